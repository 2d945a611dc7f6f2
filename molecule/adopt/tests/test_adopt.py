"""Projects that know nothing of Coldframe work on a server as their developers wrote them."""

from __future__ import annotations

import ast
import filecmp
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import pytest
from support.deployment import Deployment
from support.playbooks import ROOT, Finished, ansible, changed, output
from waits import wait_for

# As hosts.yml has it; the project chat has a scenario of its own.
CHOSEN = [name for name in (os.environ.get("ADOPT") or "clinic,press").split(",") if name != "chat"]
NEEDS = {"cookiecutter": "COOKIECUTTER"}  # a project that is skipped without this variable
QUEUES = {
    "clinic": {"default", "mail", "reports"},
    "press": {"default", "render"},
    "mysite": {"default", "mail"},
    "weblate": {"default", "backup", "memory", "notify", "translate"},
    "cookiecutter": {"default"},
}
# A page with a form to log in.
LOGIN = {"weblate": "/accounts/login/", "cookiecutter": "/accounts/login/"}
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
    if (variable := NEEDS.get(request.param)) and not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    return Project(request.param)


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def form(fields: dict[str, str], **files: tuple[str, bytes]) -> bytes:
    """Return the body of a form, whose type is FORM, with files: their names and contents."""
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (key.encode(), value.encode())
        for key, value in fields.items()
    )
    for key, (name, content) in files.items():
        head = f'--x\r\nContent-Disposition: form-data; name="{key}"; filename="{name}"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + b"--x--\r\n"


def place_appointment(project: Project, name: str, scan: bool = False) -> Callable[[], bool]:
    """Book a visit at the clinic; return whether its tasks are done."""
    body = form(
        {"patient": name, "email": "ana@example.com", "at": "2030-01-07T09:00:00Z"},
        **({"scan": ("knee.png", SCAN)} if scan else {}),
    )
    answer = project.deployment.request("/api/appointments/", body, headers=FORM)
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


def place_note(project: Project, name: str) -> Callable[[], bool]:
    """Save a note by the form of the page; return whether the page shows that its e-mail was sent."""
    page = project.deployment.request("/")
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.body)
    cookie = re.search(r"\S*csrftoken=[^;]+", page.headers["Set-Cookie"])
    assert token and cookie
    headers = {"Cookie": cookie[0], "Referer": f"{project.deployment.app_url}/"}
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    body = urlencode({"csrfmiddlewaretoken": token[1], "text": name}).encode()
    answer = project.deployment.request("/", body, headers=headers)
    assert answer.status == 302, answer.body
    return lambda: f"<li>{name} (sent)</li>" in project.deployment.request("/").body


def look(project: Project, name: str) -> Callable[[], bool]:
    """Look at a page of an application whose tasks are sent from the host."""
    assert project.deployment.request(LOGIN[project.name]).status == 200
    return lambda: True


PLACE = {
    "clinic": place_appointment,
    "press": place_issue,
    "mysite": place_note,
    "weblate": look,
    "cookiecutter": look,
}
# Tasks of an application that need no arguments, one for each queue.
TASKS = {
    "cookiecutter": {"default": "my_awesome_project.users.tasks.get_users_count"},
    "weblate": {
        "default": "weblate.utils.tasks.ping",
        "backup": "weblate.utils.tasks.settings_backup",
        "memory": "weblate.memory.tasks.resume_memory_scope_backfill",
        "notify": "weblate.accounts.tasks.notify_daily",
    },
}


def in_shell(project: Project, code: str) -> list[Any]:
    """Run code in Django's shell on the host, with the Celery application as `app`; return the list that it prints at last."""
    module, _, name = project.deployment.app_celery.partition(":")
    code = f"from {module} import {name} as app; {code}"
    printed = project.run(f'{project.deployment.app_name}-manage shell --command "{code}"')
    found: list[Any] = ast.literal_eval([line for line in printed.splitlines() if line.startswith("[")][-1])
    return found


def send(project: Project, tasks: list[str]) -> list[str]:
    """Send tasks from the host, five in a second; return their ids."""
    return in_shell(project, f"import time; print([(time.sleep(0.2), app.send_task(task).id)[1] for task in {tasks}])")


def open_results(project: Project, ids: list[str]) -> list[str]:
    """Return the states of those tasks that have not succeeded."""
    return in_shell(project, f"print([s for s in [app.AsyncResult(i).state for i in {ids}] if s != 'SUCCESS'])")


@contextmanager
def load(project: Project) -> Iterator[list[Callable[[], bool]]]:
    """Use the application steadily, five times a second; give what was accepted. A request that fails, fails the test.

    Where requests send no tasks, they are sent from the host all the time, and their results are asked for at the end.
    """
    ids: list[str] = []
    placed: list[Callable[[], bool]] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def use() -> None:
        while not stop.wait(0.2):
            try:
                placed.append(PLACE[project.name](project, f"load-{time.monotonic_ns()}"))
            except BaseException as error:
                failed.append(error)

    def keep_sending() -> None:
        while not stop.is_set():
            try:
                ids.extend(send(project, 20 * [TASKS[project.name]["default"]]))
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=target) for target in (use, *([keep_sending] if project.name in TASKS else []))]
    for thread in threads:
        thread.start()
    try:
        yield placed
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, f"{len(failed)} of {len(failed) + len(placed)}: {failed[0]}"
    if project.name in TASKS:
        assert len(ids) >= 20
        wait_for(lambda: not open_results(project, ids), 120, f"the {len(ids)} tasks have results")


def test_files_of_the_project_are_unchanged(project):
    """Nothing is added either. What was made is what its developers or its documentation say."""
    found = filecmp.dircmp(f"{project.folder}.made", project.folder)

    def differences(each: filecmp.dircmp[str]) -> list[str]:
        own = each.diff_files + each.left_only + each.right_only
        return own + [name for below in each.subdirs.values() for name in differences(below)]

    assert differences(found) == []


def test_each_queue_has_a_worker_and_beat_ticks(project):
    queues = set(project.deployment.celery_queues)
    assert queues == QUEUES[project.name]

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


def test_page_with_a_form_to_log_in_is_there_with_its_style(project):
    page = project.deployment.request(LOGIN.get(project.name, "/admin/login/"))
    assert page.status == 200
    style = re.search(r'href="(/[^"]+\.css)"', page.body)  # the first one may be at another site
    assert style and project.deployment.request(style[1]).status == 200


def test_deployment_decides_and_the_rest_stays_the_projects(project):
    name = project.deployment.app_name
    printed = project.run(f"{name}-manage --module coldframe.settings")
    zone = {"clinic": "Europe/Madrid", "press": "America/Bogota"}.get(project.name, "UTC")
    code = "from django.conf import settings as s; print(s.TIME_ZONE, s.DEBUG, s.DATABASES['default']['ENGINE'])"
    assert project.run(f'{name}-manage shell --command "{code}"').split()[-3:-1] == [zone, "False"]
    laid = {"clinic": "result_backend: 'redis://localhost:6379/1' ->"}.get(project.name, "broker_url: ")
    assert laid in printed and project.deployment.app_database_password not in printed


def test_work_is_done_in_its_queues(project):
    if project.name in TASKS:
        ids = send(project, list(TASKS[project.name].values()))
        wait_for(lambda: not open_results(project, ids), 60, "the tasks have results")
        login = f"ops:{project.deployment.app_flower_password}"

        def queues() -> set[str]:
            shown = [project.deployment.request(f"/flower/api/task/info/{each}", login=login) for each in ids]
            return {each.json["worker"].partition("-")[0] for each in shown if each.status == 200}

        wait_for(lambda: queues() == set(TASKS[project.name]), 60, lambda: f"Flower shows the workers: {queues()}")
        return
    done = [PLACE[project.name](project, "first")]
    if project.name == "clinic":
        done.append(place_appointment(project, "with-scan", scan=True))
    wait_for(lambda: all(each() for each in done), 30, "the tasks are done")


def test_schedule_of_the_project_is_kept(project):
    if project.name == "cookiecutter":
        pytest.skip("it has none")
    if project.name == "weblate":
        names = in_shell(
            project, "from django_celery_beat.models import PeriodicTask as P; print([p.task for p in P.objects.all()])"
        )
        assert {"weblate.accounts.tasks.notify_daily", "weblate.utils.tasks.heartbeat"} <= set(names)
        read = "from django.core.cache import cache; print([cache.get('celery_heartbeat') or 0])"
        before = in_shell(project, read)
        wait_for(lambda: in_shell(project, read) > before, 180, "Beat sends the task of each minute")
        return
    if project.name == "press":  # it counts every five seconds
        placed = project.deployment.request("/issues/", {"title": "counted"}).json["id"]
        counted = project.deployment.request(f"/issues/{placed}/").json["counted"]
        wait_for(lambda: project.deployment.request(f"/issues/{placed}/").json["counted"] > counted, 20, "Beat sends")
        return
    if project.name == "mysite":
        assert "notes.tasks.count_notes" in project.make("schedule").stdout
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
    changed_file = next(project.folder.glob("**/views.py"), project.folder / "settings.py")
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


def test_weblate_translates_with_tasks_that_share_its_files(project):
    """Web and workers use the same working copies: a file of texts is uploaded, translated automatically, and committed."""
    if project.name != "weblate":
        pytest.skip("of Weblate alone")
    project.run("weblate-manage createadmin --update --username ada --email ada@example.net --no-password")
    token = in_shell(
        project, "from weblate.auth.models import User; print([User.objects.get(username='ada').auth_token.key])"
    )[0]
    own = {"Authorization": f"Token {token}"}

    def ask(path: str, data: Any = None, status: int = 200, **headers: str) -> Any:
        answer = project.deployment.request(f"/api/{path}", data, headers={**own, **headers})
        assert answer.status == status, answer.body
        return answer.json

    slug = f"shop-{int(time.time())}"
    ask("projects/", {"name": slug, "slug": slug, "web": "https://shop.example.net/"}, 201)
    for name in ("old", "new"):
        texts = json.dumps({"greeting": "Good morning", name: f"The {name} shop"}).encode()
        fields = {"name": name, "slug": name, "file_format": "json", "new_lang": "add"}
        ask(f"projects/{slug}/components/", form(fields, docfile=("en.json", texts)), 201, **FORM)
        wait_for(lambda name=name: not ask(f"components/{slug}/{name}/").get("task_url"), 120, "it is read")
        ask(f"components/{slug}/{name}/translations/", {"language_code": "cs"}, 201)

    def unit(name: str) -> dict[str, Any]:
        """The text's translation; nothing while its file is read again."""
        units = ask(f"translations/{slug}/{name}/cs/units/")["results"]
        found: dict[str, Any] = next((each for each in units if each["source"] == ["Good morning"]), {})
        return found

    old = wait_for(lambda: unit("old"), 60, "the text is there")
    answer = project.deployment.request(
        f"/api/units/{old['id']}/", {"state": 20, "target": ["Dobré ráno"]}, method="PATCH", headers=own
    )
    assert answer.status == 200, answer.body
    chosen = {"mode": "translate", "q": "state:<translated", "auto_source": "others", "threshold": 80}
    ask(f"translations/{slug}/new/cs/autotranslate/", chosen)
    wait_for(lambda: unit("new").get("target") == ["Dobré ráno"], 120, "the worker of the queue translate has done it")
    committed = project.deployment.request(
        f"/api/components/{slug}/new/repository/", {"operation": "commit"}, headers=own
    )
    assert committed.status == 200 and committed.json["result"], committed.body
