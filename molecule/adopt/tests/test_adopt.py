"""Projects that know nothing of Coldframe work on a server as their developers wrote them."""

from __future__ import annotations

import filecmp
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.deployment import Deployment
from support.hosts import wait_for
from support.playbooks import ROOT, Finished, ansible, changed, output

SCENARIO = Path(__file__).parents[1]
CHOSEN = (os.environ.get("ADOPT") or "clinic,press").split(",")  # as hosts.yml has it
SCAN = b"what a scanner made"


class Project:
    """A project that `make try` deployed."""

    def __init__(self, name: str) -> None:
        """Read the variables of its inventory."""
        self.name = name
        self.folder = ROOT / ".cache/adopt" / name
        self.environment = f".sandbox/{name}"
        self.deployment = Deployment(f"{self.environment}/hosts.yml", "sandbox")

    def make(self, target: str, **variables: str) -> Finished:
        """Run a target of the Makefile for its host; it must pass."""
        words = [f"{name}={value}" for name, value in {"ENV": self.environment, **variables}.items()]
        done = ansible("make", "--no-print-directory", target, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def deploy(self) -> Finished:
        """Deploy it with the command that a developer types."""
        done = ansible("make", "--no-print-directory", "try", f"APP={self.folder}")
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def run(self, command: str) -> str:
        """Run a command on the host as root; return what it prints."""
        return self.make("ssh", CMD=command).stdout


@pytest.fixture(scope="module", params=CHOSEN)
def project(request: pytest.FixtureRequest) -> Project:
    """Return each project."""
    return Project(request.param)


def place_appointment(project: Project, name: str, scan: bool = False) -> Callable[[], bool]:
    """Book a visit at the clinic; return whether its tasks are done."""
    fields = {"patient": name, "email": "ana@example.com", "at": "2030-01-07T09:00:00Z"}
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (key.encode(), value.encode())
        for key, value in fields.items()
    )
    if scan:
        body += b'--x\r\nContent-Disposition: form-data; name="scan"; filename="knee.png"\r\n\r\n' + SCAN + b"\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = project.deployment.request("/api/appointments/", body + b"--x--\r\n", headers=headers)
    assert answer.status == 201, answer.body

    def done() -> bool:
        placed = {each["patient"]: each for each in project.deployment.request("/api/appointments/").json}
        return bool(placed[name]["reminded"] and (placed[name]["thumbnail"] or not scan))

    return done


def place_issue(project: Project, name: str) -> Callable[[], bool]:
    """Have the press make an issue of some pages; return whether they are bound, in order."""
    answer = project.deployment.request("/issues/", {"title": name, "pages": 4})
    assert answer.status == 201, answer.body
    path = f"/issues/{answer.json['id']}/"
    pages = [f"{name}, page {page}" for page in range(1, 5)]
    return lambda: project.deployment.request(path).json["bound"] == pages


PLACE = {"clinic": place_appointment, "press": place_issue}


@contextmanager
def load(project: Project) -> Iterator[list[Callable[[], bool]]]:
    """Use the application steadily, five times a second; give what was accepted. A request that fails, fails the test."""
    placed: list[Callable[[], bool]] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def use() -> None:
        while not stop.wait(0.2):
            try:
                placed.append(PLACE[project.name](project, f"load-{time.monotonic_ns()}"))
            except BaseException as error:
                failed.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    try:
        yield placed
    finally:
        stop.set()
        thread.join()
    assert not failed, f"{len(failed)} of {len(failed) + len(placed)}: {failed[0]}"


def test_files_of_the_project_are_unchanged(project):
    """Nothing is added either, but what its developers' own tools make."""
    found = filecmp.dircmp(SCENARIO / "projects" / project.name, project.folder, ignore=["uv.lock"])

    def differences(each: filecmp.dircmp[str]) -> list[str]:
        own = each.diff_files + each.left_only + each.right_only
        return own + [name for below in each.subdirs.values() for name in differences(below)]

    assert differences(found) == []


def test_each_queue_has_a_worker_and_beat_ticks(project):
    queues = set(project.deployment.celery_queues)
    assert queues == {"clinic": {"default", "mail", "reports"}, "press": {"default", "render"}}[project.name]

    def late() -> set[str]:
        printed = project.make("status").stdout
        return queues - set(re.findall(r"(?m)^ *([\w-]+) +done \d+ s ago by", printed))

    wait_for(lambda: not late(), 90, "each queue has its probe")


def test_flower_shows_the_workers_behind_its_login(project):
    assert project.deployment.request("/flower/api/workers").status == 401
    login = f"ops:{project.deployment.app_flower_password}"

    def seen() -> set[str]:
        workers = project.deployment.request("/flower/api/workers?refresh=1", login=login).json
        return {name.partition("-")[0].partition("@")[0] for name in workers}

    wait_for(lambda: seen() == set(project.deployment.celery_queues), 60, "Flower has asked the workers")


def test_admin_is_there_with_its_style(project):
    page = project.deployment.request("/admin/login/")
    assert page.status == 200
    style = re.search(r'href="([^"]+\.css)"', page.body)
    assert style and project.deployment.request(style[1]).status == 200


def test_deployment_decides_and_the_rest_stays_the_projects(project):
    name = project.deployment.app_name
    printed = project.run(f"{name}-manage --module coldframe.settings")
    zone = {"clinic": "Europe/Madrid", "press": "America/Bogota"}[project.name]
    code = "from django.conf import settings as s; print(s.TIME_ZONE, s.DEBUG, s.DATABASES['default']['ENGINE'])"
    assert project.run(f'{name}-manage shell --command "{code}"').split()[-3:-1] == [zone, "False"]
    laid = {"clinic": "result_backend: 'redis://localhost:6379/1' ->", "press": "broker_url: "}[project.name]
    assert laid in printed and project.deployment.app_database_password not in printed


def test_work_is_done_in_its_queues(project):
    done = [PLACE[project.name](project, "first")]
    if project.name == "clinic":
        done.append(place_appointment(project, "with-scan", scan=True))
    wait_for(lambda: all(each() for each in done), 30, "the tasks are done")


def test_schedule_of_the_project_is_kept(project):
    if project.name == "press":  # it counts every five seconds
        placed = project.deployment.request("/issues/", {"title": "counted"}).json["id"]
        counted = project.deployment.request(f"/issues/{placed}/").json["counted"]
        wait_for(lambda: project.deployment.request(f"/issues/{placed}/").json["counted"] > counted, 20, "Beat sends")
        return
    code = "from django_celery_beat.models import PeriodicTask as P; print([(p.name, str(p.crontab)) for p in P.objects.all()])"
    kept = project.run(f'{project.deployment.app_name}-manage shell --command "{code}"')
    assert re.search(r"'reminders', '0 7 \* \* \* .*Europe/Madrid", kept), kept


def test_second_deploy_changes_nothing(project):
    assert changed(project.deploy()) == 0


def test_deploy_and_rollback_under_load_lose_nothing(project):
    """And uploads outlive both."""
    uploaded = ""
    if project.name == "clinic":
        done = place_appointment(project, "kept", scan=True)
        wait_for(done, 30, "its tasks are done")
        placed = project.deployment.request("/api/appointments/").json
        uploaded = next(each["scan"] for each in placed if each["patient"] == "kept")
        uploaded = "/" + uploaded.split("/", 3)[3]
    changed_file = next(project.folder.glob("**/views.py"))
    changed_file.write_text(changed_file.read_text() + "\n# Changed.\n")
    with load(project) as placed:
        wait_for(lambda: len(placed) > 5, 20, "it is used")
        assert changed(project.deploy()) > 0
        rolled = project.make("rollback")
        count = len(placed)
        wait_for(lambda: len(placed) > count + 5, 20, "it is used after that too")
    assert "rollback" in output(rolled).lower()
    wait_for(lambda: all(each() for each in placed), 60, f"the tasks of {len(placed)} requests are done")
    if uploaded:
        assert project.deployment.request(uploaded).body == SCAN.decode()
