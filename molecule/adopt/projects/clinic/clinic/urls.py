from appointments import views
from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("", views.index, name="index"),
    path("new/", views.new, name="new"),
    path("api/appointments/", views.AppointmentList.as_view()),
    path("admin/", admin.site.urls),
]
