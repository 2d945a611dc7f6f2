"""Records what is laid over the application's settings, and shows values without the passwords in them."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, NamedTuple

from coldframe import settings_check

HIDDEN = "***"
SECRET = re.compile(r"PASS|SECRET|TOKEN|SIGNATURE|CREDENTIAL|API_?KEY|(^|_)KEY$", re.IGNORECASE)


class Line(NamedTuple):
    """A setting that is laid over, or one that stays as the application has it."""

    section: str
    name: str
    own: str
    """The application's value."""
    value: str
    """The deployment's value; empty when the application's stays."""
    note: str
    """Why, where that does not go without saying."""

    def __str__(self) -> str:
        """Return the line as it is printed."""
        change = f"{self.name}: {self.own} -> {self.value}" if self.own else f"{self.name}: {self.value}"
        text = change if self.value else f"{self.name} stays: {self.own}"
        return f"{text} ({self.note})" if self.note else text


LINES: list[Line] = []  # of this process


def shown(value: Any, name: str = "") -> str:
    """Return a value as text, without passwords.

    :param name: of the setting, which may say that it is a secret as a whole.
    """
    if value and SECRET.search(name):
        return HIDDEN
    if "PERMISSIONS" in name and isinstance(value, int):
        return oct(value)
    return settings_check.shown(str(value) if isinstance(value, PurePath) else cleaned(value))


def cleaned(value: Any) -> Any:
    """Return a value whose entries with the name of a secret are hidden."""
    if isinstance(value, dict):
        return {key: HIDDEN if entry and SECRET.search(str(key)) else cleaned(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(cleaned, value)) if type(value) in (list, tuple) else value
    return value


class Settings:
    """Django's settings of the application, and what is laid over them."""

    def __init__(self, own: dict[str, Any], module: str) -> None:
        """Begin with the application's.

        :param module: the name of its settings module.
        """
        self.own, self.module, self.laid = own, module, dict[str, Any]()

    def get(self, name: str) -> Any:
        """Return a setting as it is so far: laid over, the application's, or Django's default."""
        from django.conf import global_settings

        return self.laid.get(name, self.own.get(name, getattr(global_settings, name, None)))

    def lay(self, section: str, name: str, value: Any, note: str = "") -> None:
        """Lay a value over a setting, and record it. A setting that has the value already is left alone."""
        now = self.get(name)
        if isinstance(now, PurePath) and isinstance(value, str):
            value = type(now)(value)  # code may write settings.MEDIA_ROOT / "scans"
        if now != value:
            LINES.append(Line(section, name, shown(now, name), shown(value, name), note))
            self.laid[name] = value

    def lay_entries(self, section: str, name: str, entries: dict[str, Any], described: Any, note: str = "") -> None:
        """Lay entries over a setting that is a mapping, and record each that changes.

        :param entries: key to its new value.
        :param described: a function that returns the text of an entry.
        """
        now = self.get(name) or {}
        for key, entry in entries.items():
            if now.get(key) != entry:
                before, after = described(now[key]) if now.get(key) else "not set", described(entry)
                if before != after:  # or it is a matter of form
                    LINES.append(Line(section, f"{name}[{key!r}]", before, after, note))
        if entries != {key: now.get(key) for key in entries}:
            self.laid[name] = {**now, **entries}

    def keep(self, section: str, name: str, text: str, note: str = "") -> None:
        """Record a setting that stays as the application has it."""
        LINES.append(Line(section, name, text, "", note))
