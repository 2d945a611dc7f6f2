from django.urls import path

from orders import views, webhooks

urlpatterns = [
    path("", views.front),
    path("orders/", views.create_order),
    path("orders/<uuid:order_id>/", views.show_order),
    path("tasks/<uuid:task_id>/", views.show_task, name="task"),
    path("webhooks/payment/", webhooks.receive_payment),
]
