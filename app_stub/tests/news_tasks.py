"""Django's own tasks, as an application writes them."""

try:
    from django.tasks import task
    from django.tasks.exceptions import TaskResultDoesNotExist
except ImportError:  # before Django 6.0
    from django_tasks import task
    from django_tasks.exceptions import TaskResultDoesNotExist

__all__ = ["TaskResultDoesNotExist", "add", "add_later", "attempt", "fail", "in_bulk"]
CALLS = []


@task
def add(*numbers: int, **more: int) -> int:
    CALLS.append(numbers)
    return sum(numbers) + sum(more.values())


@task
async def add_later(one: int, other: int) -> int:
    return one + other


@task(takes_context=True)
def attempt(context: object) -> list:
    return [context.attempt, context.task_result.id]


@task
def fail() -> None:
    raise KeyError("news")


@task(queue_name="bulk")
def in_bulk() -> None:
    pass
