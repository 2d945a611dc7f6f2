from django.apps import AppConfig


class CeleryTasksConfig(AppConfig):
    name = "celery_tasks"
    default_auto_field = "django.db.models.BigAutoField"
