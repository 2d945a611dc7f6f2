"""Releases of an application, made and deployed while it is under load."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ansible_mitogen
from application.assemble import assemble
from support.deployment import Deployment
from support.load import Load, Machine, Request, summary
from support.playbooks import PLAIN, ROOT, ansible
from support.units import current, once, wanted
from waits import wait_for

DEPLOY = "playbooks/deploy.yml"
LONG = 60  # seconds of the tasks that workers are at when they are replaced
# What the requests during all steps together take. In one step of 25 s the slowest hundredth are seven requests,
# which shows the processors of the machine rather than the deploy.
P99_MS = 250
# What no request takes, whatever the step: some 0.7 s is usual at a deploy. A worker of Gunicorn that waits for a client to
# close its connection answers nobody else for 2 s.
LONGEST_MS = 1800
# What `make` deploys with; Molecule's own runs are plain Ansible.
MITOGEN = {
    "ANSIBLE_STRATEGY": "mitogen_linear",
    "ANSIBLE_STRATEGY_PLUGINS": str(Path(ansible_mitogen.__file__).parent / "plugins/strategy"),
}


class Scene:
    """A deployed application, the load on it, and what was seen in each step."""

    def __init__(self, host: Any, deployment: Deployment, inventory: str, folder: Path) -> None:
        """Make the application with long tasks in it, in `folder`, and deploy it."""
        self.host, self.deployment, self.inventory, self.folder = host, deployment, inventory, folder
        self.app = deployment.app_name
        self.load = Load(deployment.app_url, deployment.celery_queues, page="/holds/page/")
        self.machine = Machine(ROOT / ".cache")
        self.variables: dict[str, Any] = {}
        self.inventory_variables = {"celery_queues": deployment.celery_queues}
        self.steps: list[dict[str, Any]] = []
        self.requests: list[Request] = []  # those during the steps
        assemble(folder / "base")
        self.source = self.variant("first", {}, of="base")
        result = self.deploy()
        assert result.returncode == 0, result.stdout + result.stderr

    def variant(self, name: str, additions: dict[str, str], of: str = "first") -> Path:
        """Copy a source and append text to some of its files; return its folder.

        The page's static file is another one in each.
        """
        source = self.folder / name
        shutil.copytree(self.folder / of, source)
        (source / "holds/static/holds").mkdir(parents=True, exist_ok=True)
        (source / "holds/static/holds/page.css").write_text(f"/* {name} */")
        for path, text in additions.items():
            with (source / path).open("a") as file:
                file.write(text)
        return source

    def command(self, playbook: str, **variables: Any) -> list[str]:
        """Make the command line that runs a playbook."""
        return ["ansible-playbook", "-i", self.inventory, playbook, "-e", json.dumps(variables)]

    def play(self, playbook: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run a playbook."""
        return ansible(*self.command(playbook, **variables), **MITOGEN)

    def deploy(self, source: Path | None = None, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Deploy a source, the one of the moment if none is given, once with further variables."""
        return self.play(DEPLOY, app_source=str(source or self.source), **self.variables | variables)

    def deploy_killed_at(self, task: str) -> None:
        """Begin to deploy, and kill Ansible with all its processes here when it begins the task of that name."""
        process = subprocess.Popen(
            self.command(DEPLOY, app_source=str(self.source), **self.variables),
            cwd=ROOT,
            env=os.environ | PLAIN | MITOGEN,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout
        begun = any(line.startswith("TASK [") and task in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert begun, f"the deploy ended before it came to {task!r}"

    def queues(self, **variables: Any) -> None:
        """Deploy with other variables from now on, such as another queue table; with the inventory's if none is given."""
        self.variables = variables
        self.deployment.variables |= self.inventory_variables | variables

    @property
    def release(self) -> str:
        """The current release."""
        return current(self.host, self.app)

    def units(self) -> dict[str, dict[str, str]]:
        """Map each instance that is not stopped to its properties."""
        properties = "Id,MainPID,ActiveState,ActiveEnterTimestamp"
        shown = self.host.check_output(
            f"systemctl show --timestamp=unix --property={properties} '{self.app}-*@*.service'"
        )
        units = [dict(line.split("=", 1) for line in unit.splitlines()) for unit in shown.split("\n\n")]
        return {unit["Id"]: unit for unit in units if unit and unit["ActiveState"] not in ("inactive", "failed")}

    def processes(self) -> dict[str, str]:
        """Map each active instance to its main process."""
        return {name: unit["MainPID"] for name, unit in self.units().items() if unit["ActiveState"] == "active"}

    def assert_all_on(self, release: str) -> None:
        """Every process runs the release, whatever it is asked; those of others only finish."""
        expected = wanted(self.deployment, release)
        wait_for(
            lambda: set(map(once, self.processes())) == expected, 30, f"{sorted(expected)} and no other are active"
        )
        assert {unit["ActiveState"] for unit in self.units().values()} <= {"active", "deactivating"}
        for name, process in self.processes().items():
            seen = self.host.check_output(
                f"readlink /proc/{process}/cwd; tr '\\0' '\\n' </proc/{process}/environ | grep ^RELEASE_ID="
            )
            assert seen.split() == [f"/srv/{self.app}/releases/{release}", f"RELEASE_ID={release}"], name
        assert self.deployment.request("/healthz/").json["release"] == release

    def holds(self) -> dict[str, list[dict[str, Any]]]:
        """Map each long task's key to what was noted of it."""
        lines = self.host.check_output(f"cat /srv/{self.app}/shared/media/holds.jsonl || true").splitlines()
        notes: dict[str, list[dict[str, Any]]] = {}
        for note in map(json.loads, lines):
            if note["event"] != "ledger":
                notes.setdefault(note["key"], []).append(note)
        return notes

    def ledger(self) -> dict[str, list[int]]:
        """Map each entry's key to its parts that were done, in order."""
        lines = self.host.check_output(f"grep -h ledger /srv/{self.app}/shared/media/holds.jsonl || true").splitlines()
        parts: dict[str, list[int]] = {}
        for note in map(json.loads, lines):
            parts.setdefault(note["key"], []).append(note["part"])
        return parts

    def busy(self, queue: str, release: str, at: float) -> list[str]:
        """List the long tasks that a release's worker of the queue was at, at a time."""
        return [
            key
            for key, (begin, *end) in self.holds().items()
            if begin["seconds"] >= LONG
            and re.match(rf"{queue}-{release}(:\d+)?@", begin["worker"])
            and begin["at"] < at < (end[0]["at"] if end else float("inf"))
        ]

    def still_busy(self, release: str) -> bool:
        """Whether a worker of that release, of whichever queue, is at a long task now."""
        return any(self.busy(queue, release, time.time()) for queue in self.load.queues)

    def keep_busy(self, done: threading.Event) -> None:
        """Send each queue long tasks, the next before the last has ended, until that is done."""
        while True:
            for queue in list(self.load.queues):
                self.load.once("hold", partial(self.load.place_hold, queue=queue, seconds=LONG))
            if done.wait(LONG * 2 / 3):
                return

    @contextmanager
    def step(self, name: str, leaving: str = "") -> Iterator[str]:
        """Do something while the current release's workers are at long tasks, and see that the load met no failure.

        Gives the release that was current before. A queue that is to leave gets one task only, which lasts until it
        is gone however slow the deploy is: no other could be sent in time and not too late.
        """
        before, queues, done = self.release, list(self.load.queues), threading.Event()
        if leaving:
            self.load.queues.remove(leaving)
            self.load.once("hold", partial(self.load.place_hold, queue=leaving, seconds=2 * LONG))
        sender = threading.Thread(target=self.keep_busy, args=[done])
        sender.start()
        try:
            wait_for(
                lambda: all(self.busy(queue, before, time.time()) for queue in queues), 60, "each queue has a long task"
            )
            began = time.time()
            yield before
            ended = time.time()
        finally:
            done.set()
            sender.join()
        after = self.release
        units = {once(name): unit for name, unit in self.units().items() if unit["ActiveState"] == "active"}
        for queue in queues if after != before else []:
            # A queue that is gone has no new worker: its old one was asked to stop after the web was ready.
            unit = units.get(f"{self.app}-worker-{queue}@{after}.service") or units[f"{self.app}-web@{after}.service"]
            switched = float(unit["ActiveEnterTimestamp"].lstrip("@"))
            assert self.busy(queue, before, switched), f"no long task was running on {queue} at the switch"
        requests = [request for request in self.load.since(began) if request.at < ended]
        stalls = [(at, seconds) for at, seconds in self.machine.stalls if began - seconds < at < ended]
        self.steps.append(
            {
                "step": name,
                "seconds": round(ended - began, 1),
                **summary(requests),
                "stalls_ms": round(1000 * sum(seconds for _, seconds in stalls)),
            }
        )
        assert_served(requests)
        own = self.machine.without_stalls(requests)
        self.requests += own
        slowest = sorted(own, key=lambda request: request.seconds)[-10:]
        assert summary(own)["max_ms"] < LONGEST_MS, (
            [f"{r.kind} at {r.at - began:.1f} s took {r.seconds:.1f} s" for r in slowest],
            [f"the machine stood still at {at - began:.1f} s for {seconds:.1f} s" for at, seconds in stalls],
        )

    def table(self) -> str:
        """The steps, one a line."""
        if not self.steps:
            return "no steps"
        rows = [list(self.steps[0]), *([str(value) for value in step.values()] for step in self.steps)]
        return "\n".join(f"{row[0]:<40}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows)


def assert_served(requests: list[Request]) -> None:
    """No request failed, and there were some."""
    failed = [f"{r.at:.3f} {r.kind} after {r.seconds:.3f} s: {r.failure}" for r in requests if r.failure]
    assert requests and not failed, f"{len(failed)} of {len(requests)} failed:\n" + "\n".join(failed[:20])
