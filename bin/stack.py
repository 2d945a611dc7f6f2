"""The stack of an inventory in containers: what bin/compose does. Its folder is .compose/NAME (playbooks/compose.yml)."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from connections import ROOT, environment_of
from newinventory import WORDS as NEW
from newinventory import is_free, prepare, tried, words
from project import RefusedError
from ruamel.yaml import YAML

COMPOSE = ROOT / ".compose"
STAMP = ".written.json"
WORDS = (*NEW, "COMPOSE_NAME", "COMPOSE_HTTPS_PORT", "REMOVE_DATA")
HOST = "compose"  # the one host of the inventory that is made of another one
GROUPS = ("redis", "postgresql", "edge", "web", "workers", "beat")  # of which every stack has one
LEFT_OUT = ("monitoring",)
PORTS = range(8700, 8900)
DATA = ("redis-broker", "redis-cache", "postgresql")
RESTARTS = 2  # after so many, a container does not come up
PATIENCE = 60  # seconds beyond the time in which a container may start


@dataclass
class Tool:
    """What builds images and runs containers on this machine, and what runs Compose files with it."""

    name: str
    engine: list[str]
    compose: list[str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the engine; return what it said."""
        return subprocess.run([*self.engine, *arguments], capture_output=True, text=True, check=False)

    def composed(self, folder: Path, *arguments: str) -> None:
        """Run Compose for a stack, and end this program with what it said if it fails."""
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        if not Path("/run/systemd/system").is_dir():
            environment["DISABLE_HC_SYSTEMD"] = "true"  # podman's health checks are timers of systemd
        done = subprocess.run(
            [*self.compose, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{shlex.join([*self.compose, *arguments])} in {folder} failed:\n{done.stdout}{done.stderr}")


def tool() -> Tool:
    """Return what this machine has: Docker with its Compose plugin, or podman with podman-compose.

    Raises RefusedError when there is neither.
    """
    if shutil.which("docker"):
        done = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if not done.returncode:
            return Tool("docker", ["docker"], ["docker", "compose"])
    if not shutil.which("podman"):
        raise RefusedError(
            "There is neither podman nor Docker with its Compose plugin on this machine ('docker compose version' fails). "
            "'make system' installs podman on a Debian."
        )
    podman, composer = str(ROOT / "docker/host/podman"), ROOT / ".venv/bin/podman-compose"
    if not composer.exists():
        raise RefusedError(
            "podman-compose is not in .venv: run it by make, such as 'make compose-up', which installs it."
        )
    return Tool("podman", [podman], [str(composer), "--podman-path", podman, "--in-pod", "false"])


# The folder


def name_of(inventory: Path, given: dict[str, str]) -> str:
    """Return the name of a stack. Raises RefusedError for one that Compose does not take."""
    name = given.get("COMPOSE_NAME", re.sub(r"[^a-z0-9_-]", "-", inventory.name.lower()))
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise RefusedError(
            f"COMPOSE_NAME is {name!r}; it must begin with a small letter or a digit, and have nothing but these and _-."
        )
    return name


def read(folder: Path) -> dict[str, Any]:
    """Return what is known of the stack in a folder; empty when there is none."""
    stamp = folder / STAMP
    return json.loads(stamp.read_text()) if stamp.exists() else {}


def choose_port(folder: Path, given: dict[str, str]) -> int:
    """Return the port on loopback: the one that is asked for, that the stack has, or one that nobody has.

    Raises RefusedError for what is none.
    """
    if text := given.get("COMPOSE_HTTPS_PORT", ""):
        if not re.fullmatch(r"[0-9]{1,5}", text) or not 1024 <= int(text) <= 65535:
            raise RefusedError(f"COMPOSE_HTTPS_PORT is {text!r}; it must be a port, a number from 1024 to 65535.")
        return int(text)
    if has := read(folder).get("port"):
        return int(has)
    others = {read(path).get("port") for path in COMPOSE.glob("*")}
    for port in PORTS:
        if port not in others and is_free(port):
            return port
    raise RefusedError(
        f"None of the ports {PORTS[0]} to {PORTS[-1]} is free on this machine: give one, COMPOSE_HTTPS_PORT=..."
    )


def hosts_of(inventory: Path) -> Path:
    """Return the file with the hosts of an inventory. Raises RefusedError when there is none."""
    for name in ("hosts.yml", "hosts.yaml"):
        if (inventory / name).is_file():
            return inventory / name
    raise RefusedError(
        f"ENV is {environment_of(inventory)}, and {inventory} has no hosts.yml, of which the groups are read."
    )


def one_host(tree: dict[str, Any]) -> list[str]:
    """Put one host in the place of all hosts of a group and of its children; return the names of the groups that have hosts.

    What is said of single hosts is left out. Variables of groups stay.
    """
    found = []
    for name, group in list((tree or {}).items()):
        group = group or {}
        inside = one_host(group["children"]) if group.get("children") else []
        found += inside
        if group.get("hosts"):
            group["hosts"] = {HOST: {}}
        if group.get("hosts") or inside:
            found.append(name)
        if name in LEFT_OUT:
            del tree[name]
    return found


def write_inventory(inventory: Path, folder: Path) -> Path:
    """Write the inventory of a stack: that of the servers, with this machine as the one host of all groups. Return its folder."""
    parser = YAML()
    tree = parser.load(hosts_of(inventory).read_text()) or {}
    groups = one_host(tree)
    everything = tree.setdefault("all", {}) or {}
    everything["hosts"] = {
        HOST: {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "inventory_dir": str(inventory),
        }
    }
    children = everything.setdefault("children", {})
    for group in GROUPS:
        if group not in groups:
            children[group] = (children.get(group) or {}) | {"hosts": {HOST: {}}}
    tree["all"] = everything
    own = folder / ".inventory"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    own.mkdir(exist_ok=True)
    with (own / "hosts.yml").open("w") as file:
        parser.dump(tree, file)
    link = own / "group_vars"
    link.unlink(missing_ok=True)
    link.symlink_to(inventory / "group_vars")
    return own


def write(inventory: Path, playbook: str, given: dict[str, str]) -> None:
    """Write the folder; end as the playbook does."""
    name = name_of(inventory, given)
    folder = COMPOSE / name
    before = read(folder)
    extra: dict[str, Any] = {
        "compose_name": name,
        "compose_folder": str(folder),
        "compose_inventory": environment_of(inventory),
        "compose_https_port": choose_port(folder, given),
    }
    if "DEBIAN" in given:
        if given["DEBIAN"] not in ("12", "13"):
            raise RefusedError(f"DEBIAN is {given['DEBIAN']!r}; it must be 12 or 13.")
        extra["check_debian"] = given["DEBIAN"]
    own = write_inventory(inventory, folder)
    command = ["ansible-playbook", "-i", str(own), playbook, "-e", json.dumps(extra)]
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(code)
    about = read(folder)
    what = "is as it was" if before.get("files") == about["files"] else "was written"
    print(
        f"{folder.relative_to(ROOT)}/compose.yml {what}: release {about['release']}, Debian {about['debian']}, {about['url']}/"
    )


# The containers


class Stack:
    """The stack in a folder that was written."""

    def __init__(self, folder: Path, with_: Tool) -> None:
        """Read what there is of it."""
        self.folder, self.tool, self.about = folder, with_, read(folder)
        self.name = self.about["name"]
        self.services: dict[str, dict[str, Any]] = yaml.safe_load((folder / "compose.yml").read_text())["services"]

    def container(self, service: str) -> str:
        """Return the name of a service's container."""
        return f"{self.name}-{service}"

    def inspect(self, what: str, name: str, form: str) -> str:
        """Return a property of a container or an image; empty when there is none."""
        return self.tool.run(what, "inspect", "--format", form, name).stdout.strip()

    def state(self, service: str) -> str:
        """Return the state of a service's container, such as `running`; empty when there is none."""
        return self.inspect("container", self.container(service), "{{.State.Status}}")

    def stages(self) -> list[list[str]]:
        """List the services in the order in which they start. Those of a stage need those before it."""
        last = [name for name in ("nginx",) if name in self.services]
        rest = [name for name in self.services if name not in (*DATA, "prepare", *last)]
        return [list(DATA), ["prepare"], rest, last]

    def problems(self) -> list[str]:
        """Say what stands in the way of a start."""
        found, port = [], self.about["port"]
        has = self.inspect("container", self.container("nginx"), "{{.State.Status}} {{.HostConfig.PortBindings}}")
        own = has.startswith("running ") and f" {port}}}" in has
        if not own and not is_free(port):
            found.append(
                f"The port {port} is taken by another program ('ss -ltnp' names it). Give the stack another one: COMPOSE_HTTPS_PORT=..."
            )
        image = self.services["prepare"]["image"]
        if self.inspect("image", image, "{{.Id}}"):
            lock = self.inspect("image", image, '{{index .Config.Labels "coldframe.lock"}}')
            if lock != self.about["lock"]:
                found.append(
                    f"The image {image} was built from another lock file ({lock[:12] or 'none'}) than the inventory has "
                    f"({self.about['lock'][:12]}). Remove it ('{self.tool.name} rmi {image}'), and it is built anew."
                )
        return found

    def build(self) -> None:
        """Build the images that are not there."""
        missing = [
            service
            for service, each in self.services.items()
            if "build" in each and not self.inspect("image", each["image"], "{{.Id}}")
        ]
        if not missing:
            return
        base = [str(ROOT / "docker/app/base"), self.about["suite"], *self.tool.engine]
        if code := subprocess.run(base, stdout=subprocess.DEVNULL, check=False).returncode:
            sys.exit(code)
        for service in missing:
            print(f"Building {self.services[service]['image']}", flush=True)
            self.tool.composed(self.folder, "build", service)

    def healthy(self, service: str) -> tuple[bool, str]:
        """Whether a service is healthy, and what its check said. The check is asked here: podman has none without systemd."""
        test = self.services[service]["healthcheck"]["test"][1:]
        done = self.tool.run("exec", self.container(service), *(word.replace("$$", "$") for word in test))
        return not done.returncode, (done.stdout + done.stderr).strip()

    def wait(self, service: str) -> None:
        """Wait until a service is healthy, or one that runs once has ended well. End this program with its log if that does not come."""
        check = self.services[service].get("healthcheck")
        seconds = int(check["start_period"].removesuffix("s")) + PATIENCE if check else 3600
        until = time.monotonic() + seconds
        said = ""
        while time.monotonic() < until:
            state, code, restarts = self.inspect(
                "container", self.container(service), "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"
            ).split() or ["gone", "1", "0"]
            if check:
                well, said = self.healthy(service) if state == "running" else (False, state)
                if well:
                    return
                if int(restarts) > RESTARTS or state == "gone":
                    break
            elif state == "exited":
                if code == "0":
                    return
                break
            time.sleep(0.5)
        log = self.tool.run("logs", "--tail", "40", self.container(service))
        sys.exit(f"{self.container(service)} did not start ({said or 'it ended'}). Its log:\n{log.stdout}{log.stderr}")

    def changed(self) -> list[str]:
        """List the services whose container is of another image, or has mounted other files."""
        found = []
        for service, each in self.services.items():
            has = self.inspect(
                "container", self.container(service), '{{.Config.Image}} {{index .Config.Labels "coldframe.files"}}'
            )
            if has and has != f"{each['image']} {each['labels']['coldframe.files']}":
                found.append(service)
        return found

    def up(self) -> None:
        """Start everything, each service when those that it needs are healthy, and wait until all are.

        What runs and has changed is stopped before, in order: Compose alone would stop the broker while workers finish their tasks.
        """
        if self.changed():
            self.down(data=False)
        for stage in filter(None, self.stages()):
            print(f"Starting {', '.join(stage)}", flush=True)
            self.tool.composed(self.folder, "up", "--detach", "--no-build", "--no-deps", *stage)
            for service in stage:
                self.wait(service)

    def down(self, data: bool) -> None:
        """Stop everything in the opposite order, so that workers can finish their tasks, and remove the containers."""
        for stage in reversed(self.stages()):
            if running := [service for service in stage if self.state(service) == "running"]:
                print(f"Stopping {', '.join(running)}", flush=True)
                self.tool.composed(self.folder, "stop", *running)
        self.tool.composed(self.folder, "down", *(["--volumes"] if data else []))

    def report(self) -> str:
        """Say where it is, and how to log in."""
        url, here = self.about["url"], self.folder.relative_to(ROOT)
        shown = self.tool.name if self.tool.name == "docker" else shlex.join(self.tool.engine).replace(f"{ROOT}/", "")
        lines = [f"{self.name} runs in containers:", f"  {url}/   with a certificate that nobody has signed"]
        if self.about["flower"]:
            lines.append(
                f"  {url}/flower/   user {self.about['flower']}, password in {here}/secrets/flower/flower_password"
            )
        web = self.container("web")
        lines += [
            f"A user for the admin: {shown} exec -it {web} {self.about['python']} -m coldframe.manage manage.py createsuperuser",
            f"Logs: {shown} logs --follow {web}",
            f"make compose-down ENV={self.about['inventory']} stops it and keeps the data; REMOVE_DATA=1 removes that, too.",
        ]
        return "\n".join(lines)


def stack(folder: Path, with_: Tool) -> Stack:
    """Return the stack in a folder. Raises RefusedError when there is none."""
    if not read(folder):
        has = ", ".join(sorted(path.parent.name for path in COMPOSE.glob(f"*/{STAMP}"))) or "none"
        raise RefusedError(
            f"There is no stack {folder.name!r}: 'make compose' writes one. Those that there are: {has}."
        )
    return Stack(folder, with_)


def make(target: str, environment: str, given: dict[str, str]) -> None:
    """Run a target of the Makefile for an inventory; end this program if it fails."""
    more = [
        f"{name}={value}" for name, value in given.items() if name in ("DEBIAN", "COMPOSE_NAME", "COMPOSE_HTTPS_PORT")
    ]
    command = ["make", "--no-print-directory", target, f"ENV={environment}", *more]
    # The variables of the command that runs this would count in that one, too.
    variables = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS")
    }
    if code := subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode:
        sys.exit(code)


def main(verb: str, inventory: Path, playbook: str, arguments: list[str]) -> None:
    """Do what a target of the Makefile is for. Raises RefusedError with what is wrong.

    :param verb: `write`, `up`, `down` or `test`.
    :param inventory: that of ENV, unless the arguments name a project.
    :param arguments: further words, NAME=value.
    """
    given = words(arguments, WORDS)
    runs = tool() if verb != "write" else None
    if "APP" in given:
        app = Path(given["APP"]).expanduser().resolve()
        inventory = tried(app) if verb in ("down", "test") else prepare(given).inventory
        if verb == "write":
            make("compose", environment_of(inventory), given)
            return
    folder = COMPOSE / name_of(inventory, given)
    if verb == "write" or runs is None:
        write(inventory, playbook, given)
        return
    if verb == "up":
        make("compose", environment_of(inventory), given)
        found = stack(folder, runs)
        if problems := found.problems():
            raise RefusedError(*problems)
        found.build()
        found.up()
        print(found.report())
    elif verb == "down":
        stack(folder, runs).down(given.get("REMOVE_DATA", "0") != "0")
    else:
        stack(folder, runs)
        make("compose", environment_of(inventory), given)
        environment = os.environ | {"COMPOSE_STACK": str(folder)}
        command = ["pytest", "-q", "-p", "no:cacheprovider", "docker/tests"]
        sys.exit(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)
