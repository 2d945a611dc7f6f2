from django.contrib import admin
from django.urls import path
from issues import views

urlpatterns = [
    path("healthz", views.health),
    path("issues/", views.create),
    path("issues/<int:pk>/", views.show),
    path("admin/", admin.site.urls),
]
