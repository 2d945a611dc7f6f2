#!/usr/bin/env python3
"""Assembles the application that the scenarios `release` and `faults` deploy.

    assemble.py FOLDER [PROTECTION]

It is the example with the Django app `holds`, whose tasks take long. One of the example's protections can be left
out, by name, to show that the tests then fail.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ADDITIONS = {
    "shop/settings.py": 'INSTALLED_APPS += ["holds"]\n',
    "shop/urls.py": 'urlpatterns += [path("holds/", include("holds.urls"))]\n',
}
# The file of a protection, a text in it, and that text without the protection.
PROTECTIONS = {
    "acks_late": ("shop/celery.py", "app.autodiscover_tasks()", "app.Task.acks_late = False\napp.autodiscover_tasks()"),
    "sweep": ("orders/outbox.py", "if send_overdue() < BATCH:", "if True:"),
    "idempotency": ("orders/tasks.py", ".filter(pk=order_id, confirmed_at=None)", ".filter(pk=order_id)"),
}


def assemble(folder: Path, without: str = "") -> None:
    """Write the application into a folder, which is emptied first; leave out the protection of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "app_stub", folder, ignore=shutil.ignore_patterns("tests", ".*", "__pycache__"))
    holds = ROOT / "molecule/application/holds"
    shutil.copytree(holds, folder / "holds", ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in ADDITIONS.items():
        with (folder / path).open("a") as file:
            file.write(text)
    if without:
        path, text, other = PROTECTIONS[without]
        source = (folder / path).read_text()
        assert text in source, f"{path} has changed: {text!r} is not in it"
        (folder / path).write_text(source.replace(text, other))


def main(folder: str, without: str = "") -> None:
    """Refuse a name that is no protection; assemble the application."""
    if without and without not in PROTECTIONS:
        sys.exit(f"WITHOUT is {without!r}; it must be one of: {', '.join(PROTECTIONS)}.")
    assemble(Path(folder), without)


if __name__ == "__main__":
    main(*sys.argv[1:])
