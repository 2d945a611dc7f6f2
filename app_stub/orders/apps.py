from django.apps import AppConfig


class OrdersConfig(AppConfig):
    name = "orders"

    def ready(self) -> None:
        """Celery finds the tasks in tasks.py by itself, not those of these, nor receivers."""
        from orders import batches, dead_letters, outbox, reports, webhooks  # noqa: F401
