"""One request in the journal, from nginx to its task, and what an operator finds by priority and unit."""

import re
import uuid

import pytest
from support.hosts import entries
from support.units import current
from waits import wait_for

pytestmark = [pytest.mark.one_host, pytest.mark.group("web")]


def order(deployment):
    """Place an order; return the answer, and the id of the request."""
    content = {"sku": "logged", "quantity": 1, "email": "a@example.com", "idempotency_key": str(uuid.uuid4())}
    answer = deployment.request("/orders/", content)
    assert answer.status == 201
    found = answer.headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", found)
    return answer.json, found


@pytest.mark.example
def test_one_request_is_followed_from_the_edge_to_its_task(host, deployment):
    answer, request = order(deployment)
    app, release = deployment.app_name, current(host, deployment.app_name)
    done = f"Task orders.tasks.charge_order[{answer['task_id']}] succeeded"
    find = lambda: [e for e in entries(host, f"REQUEST_ID={request}") if done in e["MESSAGE"]]  # noqa: E731
    (task,) = wait_for(find, 30, "the task of the request is done")
    assert (task["TASK_ID"], task["TASK_NAME"]) == (answer["task_id"], "orders.tasks.charge_order")
    assert task["SYSLOG_IDENTIFIER"] == f"{app}-worker-{task['QUEUE']}" and task["RELEASE"] == release
    assert task["_SYSTEMD_UNIT"] == f"{task['SYSLOG_IDENTIFIER']}@{release}.service" and task["PRIORITY"] == "6"
    followed = entries(host, f"REQUEST_ID={request}")
    assert {entry["SYSLOG_IDENTIFIER"] for entry in followed} >= {f"{app}-web", task["SYSLOG_IDENTIFIER"]}
    assert any('"POST /orders/ HTTP/' in entry["MESSAGE"] for entry in followed)
    assert any(f"[{answer['task_id']}] received" in entry["MESSAGE"] for entry in followed)
    if "edge" in deployment.group_names:
        (line,) = [
            e["MESSAGE"] for e in entries(host, "--since=-5min SYSLOG_IDENTIFIER=nginx") if request in e["MESSAGE"]
        ]
        assert '"POST /orders/ HTTP/' in line and " 201 " in line


@pytest.mark.example
def test_id_of_a_client_is_not_believed(host, deployment):
    given = uuid.uuid4().hex
    answer = deployment.request("/healthz/", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] != given and not entries(host, f"REQUEST_ID={given}")


@pytest.mark.example
@pytest.mark.group("workers")
def test_error_of_a_task_is_one_entry_of_its_priority(host, deployment, manage):
    task = manage(
        "import uuid; from celery import current_app as app; "
        "print(app.send_task('orders.tasks.charge_order', [str(uuid.uuid4())]).id)"
    )
    find = lambda: entries(host, f"TASK_ID={task} --priority=err")  # noqa: E731
    error = wait_for(find, 60, "its error is in the journal")[0]
    assert error["PRIORITY"] == "3" and error["EXCEPTION"].endswith("DoesNotExist")
    assert "Traceback (most recent call last):\n" in error["MESSAGE"]
    assert error["_SYSTEMD_UNIT"].startswith(f"{deployment.app_name}-worker-")
    manage(f"from orders.models import DeadLetter; DeadLetter.objects.filter(task_id={task!r}).delete()")


@pytest.mark.group("edge")
def test_error_of_nginx_is_an_entry_of_its_priority(host, deployment):
    missing = f"{uuid.uuid4().hex}.css"
    assert deployment.request(f"/static/{missing}").status == 404
    (error,) = wait_for(lambda: entries(host, f"--unit=nginx --priority=err --grep={missing}"), 10, "it is there")
    assert error["PRIORITY"] == "3" and error["SYSLOG_IDENTIFIER"] == "nginx"


@pytest.mark.group("postgresql")
def test_error_of_postgresql_is_an_entry_of_its_priority(host, shell):
    word = f"w{uuid.uuid4().hex}"
    shell(f"runuser -u postgres -- psql --no-psqlrc -c 'SELECT 1/0 AS {word}' 2>/dev/null || true")
    find = lambda: entries(host, f"--unit='postgresql@*' --priority=warning --grep={word}")  # noqa: E731
    (error,) = wait_for(find, 10, "it is there")
    assert error["PRIORITY"] == "4" and "division by zero" in "".join(
        entry["MESSAGE"] for entry in entries(host, "--unit='postgresql@*' --priority=warning --lines=20")
    )


def test_each_entry_of_a_unit_names_its_part_and_its_release(host, deployment):
    app, release = deployment.app_name, current(host, deployment.app_name)
    deployment.request("/")
    found = entries(host, f"_SYSTEMD_UNIT={app}-web@{release}.service --lines=50")
    assert {(entry["SYSLOG_IDENTIFIER"], entry["RELEASE"]) for entry in found} == {(f"{app}-web", release)}
    assert {entry["_TRANSPORT"] for entry in found} >= {"journal"}
