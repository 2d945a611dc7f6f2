"""Lays over where static files and uploads are kept, and the addresses at which the edge serves them."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Any

from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import Settings, shown

STATIC_URL = "/static/"  # where the edge serves them
# Storages that keep files elsewhere, and serve them there.
REMOTE = ("storages.", "cloudinary_storage.", "django_minio_backend.", "minio_storage.", "django_gcloud_storage.")
SENDFILE = "django_sendfile.backends."  # django-sendfile2, by which code has the web server send a private file
GROUP_MAY_WRITE = 0o664  # web, workers, Beat and manage.py are in one group, and change each other's uploads


def is_elsewhere(url: str) -> bool:
    """Whether an address has a host of its own, such as a CDN's."""
    return "://" in url or url.startswith("//")


def as_path(url: str) -> str:
    """Return an address as Django uses it: what does not begin with a slash is below the site."""
    return "/" + url.lstrip("/")


def backend(settings: Settings, alias: str, old: str) -> str:
    """Return the class of a storage.

    :param alias: in STORAGES.
    :param old: the setting that older versions of Django have for it.
    """
    storages = settings.get("STORAGES") or {}
    return str(settings.own.get(old) or (storages.get(alias) or {}).get("BACKEND") or "")


def use_root(settings: Settings, section: str, alias: str) -> None:
    """Have a local storage of STORAGES use the folder of the settings, and not one of its own."""
    storage: dict[str, Any] = (settings.own.get("STORAGES") or {}).get(alias) or {}
    options = storage.get("OPTIONS") or {}
    if "location" in options or "base_url" in options:
        rest = {key: value for key, value in options.items() if key not in ("location", "base_url")}
        settings.lay_entries(section, "STORAGES", {alias: {**storage, "OPTIONS": rest}}, shown)


def lay_static(settings: Settings, deployment: Deployment) -> None:
    """Collect static files where the edge serves them, at its address. An address of another host stays."""
    settings.lay("static", "STATIC_ROOT", os.environ["STATIC_ROOT"])
    url, storage = str(settings.get("STATIC_URL") or ""), backend(settings, "staticfiles", "STATICFILES_STORAGE")
    if not storage.startswith(REMOTE):
        use_root(settings, "static", "staticfiles")
    if is_elsewhere(url):
        settings.keep("static", "STATIC_URL", url, "another host serves it")
    elif url and any("whitenoise" in name.lower() for name in settings.get("MIDDLEWARE") or ()):
        if as_path(url) != STATIC_URL:
            settings.keep("static", "STATIC_URL", url, "WhiteNoise serves it")
    elif not url or as_path(url) != STATIC_URL:
        settings.lay("static", "STATIC_URL", STATIC_URL)


def lay_media(settings: Settings, deployment: Deployment) -> None:
    """Keep uploads in the folder that outlives a release, at the address where the edge serves them."""
    url, storage = str(settings.get("MEDIA_URL") or ""), backend(settings, "default", "DEFAULT_FILE_STORAGE")
    if storage.startswith(REMOTE):
        settings.keep("media", "STORAGES['default']", storage, "uploads are kept elsewhere")
        return
    use_root(settings, "media", "default")
    settings.lay("media", "MEDIA_ROOT", deployment.environment["MEDIA_ROOT"])
    if "FILE_UPLOAD_PERMISSIONS" not in settings.own:
        settings.lay("media", "FILE_UPLOAD_PERMISSIONS", GROUP_MAY_WRITE)
    if is_elsewhere(url) or not deployment.media_url:
        settings.keep(
            "media", "MEDIA_URL", url or "not set", "" if deployment.media_url else "nginx_media_url is empty"
        )
    elif not url or as_path(url) != deployment.media_url:
        settings.lay("media", "MEDIA_URL", deployment.media_url)
    lay_sendfile(settings, deployment)


def lay_sendfile(settings: Settings, deployment: Deployment) -> None:
    """Have nginx send what django-sendfile2 sends, if its folder is the application's MEDIA_ROOT or in it."""
    root, folder = (str(settings.own.get(name) or "") for name in ("MEDIA_ROOT", "SENDFILE_ROOT"))
    used = str(settings.own.get("SENDFILE_BACKEND") or "").startswith(SENDFILE)
    if not (used and root and deployment.private_url and PurePosixPath(folder).is_relative_to(root)):
        return
    below = PurePosixPath(folder).relative_to(root)
    settings.lay("media", "SENDFILE_BACKEND", f"{SENDFILE}nginx")
    settings.lay("media", "SENDFILE_ROOT", str(PurePosixPath(deployment.environment["MEDIA_ROOT"]) / below))
    settings.lay("media", "SENDFILE_URL", str(PurePosixPath(deployment.private_url) / below))
