"""A deployed application: the variables of its inventory, and requests to it."""

from __future__ import annotations

import base64
import functools
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from support.playbooks import ansible

# Variables of the inventory that host tests read.
VARIABLES = [
    "app_name",
    "app_additional",
    "app_celery",
    "app_source",
    "app_url",
    "celery_queues",
    "celery_default_queue",
    "app_redis_passwords",
    "app_database_login",
    "app_flower_password",
    "app_secret_key",
    "release_signing_key",
    "app_database_password",
    "sandbox_name",
    "sandbox_state",
    "group_names",
    "groups",
    "app_asgi",
    "celery_host_queues",
    "app_private_address",
    "app_network",
    "app_sandbox",
    "app_web",
    "app_beat",
    "app_tls",
    "app_tls_authority",
    "base_ssh_hardening",
    "nginx_status_path",
]


@dataclass
class Answer:
    """The answer to an HTTP request."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        """Return the body, read as JSON."""
        return json.loads(self.body)


class Deployment:
    """A deployed application. Its attributes are the variables of one host of the inventory."""

    def __init__(self, inventory: str, host: str) -> None:
        """Read the variables of a host, with all templates evaluated."""
        self.inventory = inventory
        message = "{{ {" + ", ".join(f"'{v}': {v} | default(none)" for v in VARIABLES) + "} | to_json }}"
        result = ansible(
            "ansible",
            host,
            "-i",
            inventory,
            "-m",
            "ansible.builtin.debug",
            "-a",
            "msg=" + json.dumps(message),
            ANSIBLE_CALLBACK_RESULT_FORMAT="json",
            ANSIBLE_STRATEGY="linear",
        )
        assert result.returncode == 0, result.stdout + result.stderr
        message = json.loads(result.stdout.split("=>", 1)[1])["msg"]
        self.variables: dict[str, Any] = json.loads(message) if isinstance(message, str) else message

    def __getattr__(self, name: str) -> Any:
        """Return a variable of the inventory."""
        return self.variables[name]

    @property
    def hosts(self) -> set[str]:
        """Return the names of the hosts that the application runs on."""
        groups = ("redis", "postgresql", "edge", "web", "workers", "beat", "flower", "monitoring")
        return {host for group in groups for host in self.groups.get(group, [])}

    @property
    def prefix(self) -> str:
        """Return what the names of its Redis instances begin with."""
        return f"{self.app_name}-" if self.app_additional else ""

    def request(
        self,
        path: str,
        data: Any = None,
        login: str = "",
        method: str | None = None,
        url: str = "",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request to the application's address, without a check of the certificate; return the answer.

        `data` makes it a POST, and is sent as JSON unless it is bytes, whose type is in `headers`. `login` is NAME:PASSWORD.
        """
        request = urllib.request.Request((url or self.app_url) + path, method=method, headers=headers or {})
        if data is not None:
            request.data = data if isinstance(data, bytes) else json.dumps(data).encode()
            if not request.has_header("Content-type"):
                request.add_header("Content-Type", "application/json")
        if login:
            request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),
            NoRedirect(),
        )
        try:
            with opener.open(request, timeout=15) as response:
                return Answer(response.status, response.read().decode(), dict(response.headers))
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(), dict(error.headers))


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Returns a redirect as the answer."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow no redirect."""


@functools.cache
def deployed(inventory: str, host: str) -> Deployment:
    """Return the application with the variables of a host, which are read once."""
    return Deployment(inventory, host)
