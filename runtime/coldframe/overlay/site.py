"""Lays over what follows from the site's address, its secret key, and the edge that terminates TLS."""

from __future__ import annotations

import re
from typing import Any

from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import HIDDEN, LINES, Line, Settings

PROXY = ("HTTP_X_FORWARDED_PROTO", "https")
# Checks of the header by which browsers remember that the site, its subdomains or all of their list use TLS, with the
# settings that they ask for. The edge sends it by the inventory, unless the application does so itself.
HSTS = {
    "security.W004": "SECURE_HSTS_SECONDS",
    "security.W005": "SECURE_HSTS_INCLUDE_SUBDOMAINS",
    "security.W021": "SECURE_HSTS_PRELOAD",
}


def lay_secret_key(settings: Settings, deployment: Deployment) -> None:
    """Lay over the secret key, and the keys that still verify. Other settings with the same key follow it."""
    key, own = deployment.secret("secret_key"), settings.own.get("SECRET_KEY")
    settings.lay("secret_key", "SECRET_KEY", key)
    settings.lay("secret_key", "SECRET_KEY_FALLBACKS", deployment.secret("secret_key_fallbacks").split())
    if not own or own == key:
        return
    for name, value in settings.own.items():
        if name not in ("SECRET_KEY", "SECRET_KEY_FALLBACKS") and (new := replaced(value, own, key)) != value:
            settings.laid[name] = new
            LINES.append(Line("secret_key", name, HIDDEN, HIDDEN, "it has the value of SECRET_KEY in it"))


def replaced(value: Any, old: str, new: str) -> Any:
    """Return a value in which a text is replaced, at any depth of plain mappings and lists."""
    if isinstance(value, str):
        return new if value == old else value
    if type(value) is dict:
        return {key: replaced(entry, old, new) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(replaced(entry, old, new) for entry in value)
    return value


def lay_hosts(settings: Settings, deployment: Deployment) -> None:
    """Accept requests for the names of the deployment, and for those of the application's that are no wildcard for all."""
    for name, needed in (("ALLOWED_HOSTS", deployment.hosts), ("CSRF_TRUSTED_ORIGINS", deployment.origins)):
        own = settings.get(name) or []
        further = [each for each in own if each != "*" and each not in needed]
        if "*" in own or not set(needed) <= set(own):
            settings.lay("hosts", name, [*needed, *further])


def lay_debug(settings: Settings, deployment: Deployment) -> None:
    """Switch debugging off; on a developer's machine, on."""
    settings.lay("debug", "DEBUG", bool(deployment.development))


def lay_security(settings: Settings, deployment: Deployment) -> None:
    """Trust the edge's header of TLS, and send cookies by TLS only. A developer's machine has no TLS: there nothing asks for it."""
    tls = not deployment.development
    if tls:
        settings.lay("security", "SECURE_PROXY_SSL_HEADER", PROXY)
    else:
        settings.lay("security", "SECURE_HSTS_SECONDS", 0)
        lay_cookie_names(settings)
    for name in ("SECURE_SSL_REDIRECT", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE"):
        settings.lay("security", name, tls)
    for name in ("SESSION_COOKIE_DOMAIN", "CSRF_COOKIE_DOMAIN"):
        domain = str(settings.get(name) or "").lstrip(".").lower()
        if domain and not all(host == domain or host.endswith(f".{domain}") for host in deployment.hosts):
            settings.lay("security", name, None, f"browsers would reject the cookie at {', '.join(deployment.hosts)}")
    if not tls:
        return
    silenced = list(settings.get("SILENCED_SYSTEM_CHECKS") or [])
    missing = [check for check, name in HSTS.items() if check not in silenced and not settings.get(name)]
    settings.lay("security", "SILENCED_SYSTEM_CHECKS", silenced + missing, "nginx_hsts_seconds decides")


def lay_cookie_names(settings: Settings) -> None:
    """Take the prefixes from the names of cookies for which browsers ask for TLS."""
    for name in ("SESSION_COOKIE_NAME", "CSRF_COOKIE_NAME"):
        settings.lay("security", name, re.sub("^__(Secure|Host)-", "", str(settings.get(name))))
