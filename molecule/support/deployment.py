"""A deployed application: its variables, and requests as its users make them."""

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
    "app_celery",
    "app_source",
    "app_url",
    "celery_queues",
    "celery_default_queue",
    "app_redis_passwords",
    "app_database_login",
    "app_flower_password",
    "app_secret_key",
    "app_database_password",
    "sandbox_name",
    "sandbox_state",
    "group_names",
    "groups",
    "celery_host_queues",
    "app_private_address",
    "app_network",
    "app_tls",
    "app_tls_authority",
    "base_ssh_hardening",
]


@dataclass
class Answer:
    """What an HTTP request was answered."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Deployment:
    """A deployed application: its variables, and requests as its users make them."""

    def __init__(self, inventory: str, host: str) -> None:
        """Read the variables of the inventory for one host."""
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
        """A variable of the inventory."""
        return self.variables[name]

    @property
    def hosts(self) -> set[str]:
        """The hosts that the application runs on."""
        groups = ("redis", "postgresql", "edge", "web", "workers", "beat", "flower")
        return {host for group in groups for host in self.groups.get(group, [])}

    def request(
        self,
        path: str,
        data: Any = None,
        login: str = "",
        method: str | None = None,
        url: str = "",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Ask the application through its front door. Certificates are another test's subject."""
        request = urllib.request.Request((url or self.app_url) + path, method=method, headers=headers or {})
        if data is not None:
            request.data = data if isinstance(data, bytes) else json.dumps(data).encode()
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
    """Redirects are answers here."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


@functools.cache
def deployed(inventory: str, host: str) -> Deployment:
    """Read each host's variables once."""
    return Deployment(inventory, host)
