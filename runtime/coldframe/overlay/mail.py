"""Lays over the server for e-mail, where `app_email` names one. On a sandbox host without one, mail goes to the journal.

On a developer's machine it is printed, whatever sends it on the servers.
"""

from __future__ import annotations

from coldframe import settings_check
from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import Settings

BACKEND = settings_check.SMTP
CONSOLE = "django.core.mail.backends.console.EmailBackend"
PASSWORD = "EMAIL_HOST_PASSWORD"  # the secret in app_secrets that is the password  # noqa: S105  # pragma: allowlist secret
FROM = ("DEFAULT_FROM_EMAIL", "SERVER_EMAIL")


def lay(settings: Settings, deployment: Deployment) -> None:
    """Lay over the server, the login and the sender. Without a server the application's own settings stay.

    On a sandbox host without a server, Django's SMTP backend is replaced; others stay.
    """
    given = deployment.email
    if deployment.development:
        settings.lay("email", "EMAIL_BACKEND", CONSOLE, "a developer's machine sends no mail")
        return
    if not given and deployment.email_logged and settings.get("EMAIL_BACKEND") == BACKEND:
        settings.lay("email", "EMAIL_BACKEND", CONSOLE, "a sandbox host sends no mail, and the journal has it")
        return
    if not given:
        settings.keep("email", "EMAIL_BACKEND", described(settings), "app_email names no server")
        return
    encryption = given["encryption"]
    values = {
        "EMAIL_BACKEND": BACKEND,
        "EMAIL_HOST": given["host"],
        "EMAIL_PORT": given["port"],
        "EMAIL_HOST_USER": given["user"],
        "EMAIL_HOST_PASSWORD": deployment.secret(PASSWORD) if given["user"] else "",
        "EMAIL_USE_TLS": encryption == "starttls",
        "EMAIL_USE_SSL": encryption == "tls",
        **(dict.fromkeys(FROM, given["sender"]) if given["sender"] else {}),
    }
    for name, value in values.items():
        settings.lay("email", name, value)


def described(settings: Settings) -> str:
    """Describe the application's backend, and its server where it has one."""
    backend = str(settings.get("EMAIL_BACKEND"))
    server = ":".join(str(part) for name in ("EMAIL_HOST", "EMAIL_PORT") if (part := settings.get(name)))
    return backend if backend in settings_check.UNSENT or not settings.get("EMAIL_HOST") else f"{backend} with {server}"
