"""A deploy that would leave messages without their task is refused and shown in a dry run; a rollback goes on, and nothing is lost."""

import shutil

import pytest
from support.playbooks import ROOT, deploy, output, play, restore, roll_back
from support.units import current, running, wanted
from waits import wait_for

pytestmark = [pytest.mark.deploys, pytest.mark.one_host, pytest.mark.changes, pytest.mark.example]

FAR, PAST = "2100-01-01T00:00:00+00:00", "2001-01-01T00:00:00+00:00"
INTENT = "7d0f6a0e-3a55-4a44-9d0c-52f1a6f0f4b1"
TASK = """

@shared_task(name="orders.tasks.{name}", ignore_result=False)
def {name}({parameters}):
    return "done"
"""


@pytest.fixture
def variant(tmp_path):
    """Make variants of the application with a further task."""

    def make(folder, name="", parameters=""):
        shutil.copytree(ROOT / "app_stub", tmp_path / folder)
        if name:
            with (tmp_path / folder / "orders/tasks.py").open("a") as file:
                file.write(TASK.format(name=name, parameters=parameters))
        return str(tmp_path / folder)

    return make


@pytest.fixture
def restored(host, deployment, inventory):
    """The release that runs; it runs again after the test."""
    before = current(host, deployment.app_name)
    yield before
    restore(inventory, before)
    assert current(host, deployment.app_name) == before


def test_task_that_waits_keeps_a_release_without_it_away(host, deployment, inventory, variant, manage, restored):
    app = deployment.app_name
    with_task = variant("with", "letter", "to")
    assert deploy(inventory, app_source=with_task).returncode == 0
    old = current(host, app)
    # An ETA beyond what the queue allows: Beat sends it when it is due.
    sent = manage(
        "from datetime import datetime; from celery import current_app as app; "
        f"print(app.send_task('orders.tasks.letter', [1], eta=datetime.fromisoformat({FAR!r})).id)"
    )
    # And an intent of the application, which is sent then too.
    manage(
        "from orders.models import Intent; "
        f"Intent.objects.create(id={INTENT!r}, task='orders.tasks.letter', args=[1], due_at={FAR!r})"
    )
    without = variant("without", "post", "to")
    # In a dry run the controller tells the tasks of a release that is not on the host; a deploy asks it there.
    for arguments, on_controller in ((["--check"], True), ([], False)):
        result = deploy(inventory, *arguments, app_source=without, release_check_on_controller=on_controller)
        said = output(result)
        assert result.returncode != 0, said
        assert "The new release could not execute what waits for 1 task: " in said
        assert (
            "orders.tasks.letter is not in the new release, and waits: 1 stored for default until due, "
            "1 kept by the application." in said
        )
        assert "make deploy ALLOW_TASKS='orders.tasks.letter'" in said
        assert current(host, app) == old and running(host, app) == wanted(deployment, old)

    changed = deploy(inventory, app_source=variant("changed", "letter", "to, subject"))
    assert changed.returncode != 0 and "missing a required argument: 'subject'" in output(changed)
    wrong = deploy(inventory, app_source=without, release_allow_tasks=["orders.tasks.letter", "orders.tasks.echo"])
    assert wrong.returncode != 0 and "release_allow_tasks has orders.tasks.echo, and nothing is wrong" in output(wrong)
    assert current(host, app) == old

    result = deploy(inventory, app_source=without, release_allow_tasks=["orders.tasks.letter"])
    assert result.returncode == 0 and "Allowed: orders.tasks.letter is not in the new release" in output(result)
    # The rollback has it again: nothing was lost.
    back = roll_back(inventory, old)
    assert back.returncode == 0 and current(host, app) == old, back.stdout
    manage(f"from orders.models import Intent; Intent.objects.filter(id={INTENT!r}).delete()")
    manage(
        "from coldframe.delayed.models import DelayedTask; "
        f"row = DelayedTask.objects.get(task_id={sent!r}); assert {FAR!r} in row.message; "
        f"row.message, row.due = row.message.replace({FAR!r}, {PAST!r}), 0; row.save()"
    )
    done = f"from celery.result import AsyncResult; print(AsyncResult({sent!r}).status)"
    wait_for(lambda: manage(done) == "SUCCESS", 60, "the task is done by the release that has it")


def test_rollback_tells_what_the_older_release_lacks_and_goes_on(
    host, deployment, inventory, variant, manage, restored
):
    app = deployment.app_name
    assert deploy(inventory, app_source=variant("newer", "letter", "to")).returncode == 0
    # An ETA within what the queue allows: a worker holds it.
    sent = manage(
        "from celery import current_app as app; print(app.send_task('orders.tasks.letter', [1], countdown=60).id)"
    )
    newer = current(host, app)
    back = roll_back(inventory, restored)
    said = output(back)
    assert back.returncode == 0 and current(host, app) == restored, said
    assert f"Release {restored} cannot execute what waits for 1 task. The rollback goes on" in said
    assert f"orders.tasks.letter is not in release {restored}, and waits: 1 with a worker of default." in said
    forward = roll_back(inventory, newer)
    assert forward.returncode == 0, forward.stdout
    done = f"from celery.result import AsyncResult; print(AsyncResult({sent!r}).status)"
    wait_for(lambda: manage(done) == "SUCCESS", 120, "the task is done by the release that has it")


def test_schedule_says_what_beat_will_send_and_what_points_at_nothing(inventory, manage):
    manage(
        "from django_celery_beat.models import IntervalSchedule, PeriodicTask; "
        "every, _ = IntervalSchedule.objects.get_or_create(every=6, period='hours'); "
        "PeriodicTask.objects.update_or_create(name='to nothing', defaults={'task': 'orders.tasks.nothing', 'interval': every})"
    )
    try:
        result = play(inventory, "schedule")
        said = output(result)
        assert result.returncode == 0 and "changed=0 " in said, said
        assert "orders.tasks.heartbeat to bulk: " in said and " at the same time" in said
        assert "to nothing: the release has no task orders.tasks.nothing." in said
    finally:
        manage(
            "from django_celery_beat.models import PeriodicTask; PeriodicTask.objects.filter(name='to nothing').delete()"
        )
