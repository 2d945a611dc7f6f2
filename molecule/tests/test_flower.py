"""Flower shows what happens, to who logs in."""

import pytest
from conftest import wait_for

pytestmark = pytest.mark.group("flower")
PAGES = ["/flower/", "/flower/workers", "/flower/tasks", "/flower/api/workers", "/flower/api/tasks"]


@pytest.mark.parametrize("path", PAGES)
def test_closed_without_login(deployment, path):
    assert deployment.request(path).status == 401
    assert deployment.request(path, login="ops:wrong").status == 401


@pytest.mark.parametrize("path", PAGES)
def test_open_with_login(deployment, path):
    assert deployment.request(path, login=f"ops:{deployment.app_flower_password}").status == 200


@pytest.mark.parametrize("path", ["/flower/metrics", "/flower/healthcheck"])
def test_pages_without_login_stay_inside(deployment, path):
    assert deployment.request(path).status == 403


def test_sees_the_worker_of_each_queue(deployment):
    def seen():
        workers = deployment.request(
            "/flower/api/workers?refresh=1", login=f"ops:{deployment.app_flower_password}"
        ).json
        return {name.split("-")[0] for name in workers}

    wait_for(lambda: set(deployment.celery_queues) <= seen(), 20, "Flower names a worker of each queue")


def test_socket_is_closed_to_others(host, deployment):
    if set(deployment.groups["edge"]) != set(deployment.groups["flower"]):
        pytest.skip("Flower listens on its host's private address")
    result = host.run(f"runuser -u nobody -- ls /run/{deployment.app_name}-flower")
    assert "Permission denied" in result.stderr


@pytest.mark.changes
def test_remembers_tasks_over_a_restart(host, deployment, manage):
    def knows(task_id):
        answer = deployment.request("/flower/api/tasks?limit=50", login=f"ops:{deployment.app_flower_password}")
        return answer.status == 200 and task_id in answer.json

    task_id = manage("from orders.tasks import echo; print(echo.delay('remember me').id)")
    wait_for(lambda: knows(task_id), 20, "Flower has seen the task")
    host.check_output(f"systemctl restart {deployment.app_name}-flower")
    wait_for(lambda: knows(task_id), 20, "Flower still knows the task")
