"""Keeps tasks with a long delay in the application's database, and has Beat send them when they are due.

A message that waits in a worker for longer than the broker's visibility timeout is delivered again, and runs twice. So a task
whose countdown or ETA is longer than its queue allows (`task_longest_countdown`) is not sent, but stored: a row of the table
`coldframe_delayedtask` has the message as it would have been published (`store.py`). The Beat that ticks publishes it
some seconds before it is due, and deletes the row (`sender.py`).

The row belongs to the caller's transaction, if there is one. It is deleted and published in one transaction of Beat's: two
senders cannot publish it both, and nothing is lost. Only when Beat or the database fails between the publish and the commit,
the task is sent again, with the same id.
"""

APP = "coldframe.delayed"  # in INSTALLED_APPS


def installed() -> bool:
    """Whether this process has the table: Django is set up, and the application is installed."""
    from django.apps import apps

    return bool(apps.ready and apps.is_installed(APP))
