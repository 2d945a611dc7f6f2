"""Finds all environment variables that an application reads and its environment does not have.

Python ends at the first one. So the application is loaded again, in a process of its own, with a placeholder for each of those
that were missing, until it loads or ends otherwise. Of these processes only the missing variables are believed: what else
they find may be due to the placeholders.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# What packages and projects say of a missing variable.
SAID = re.compile(
    r"[Ss]et the (\w+) environment variable|[Ee]nvironment variable \W?(\w+)\W? (?:is )?(?:not set|missing|required)"
    r"|^(\w+) not found\. Declare it as envvar"
)
PLACEHOLDERS = ("1", "https://placeholder.invalid/1")  # a number, a truth value, a name, JSON; an address
LOADS, SECONDS = 40, 60  # at most, for all of them together


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that it came from."""
    each: BaseException | None = error
    while each:
        yield each
        each = each.__cause__ or each.__context__


def missing(error: BaseException) -> str:
    """Return the variable whose absence is the error; empty when it is another error."""
    for each in chain(error):
        frames = traceback.extract_tb(each.__traceback__)
        if isinstance(each, KeyError) and any(frame.filename in (os.__file__, "<frozen os>") for frame in frames):
            name = str(each.args[0])
            if each is error or re.search(rf"\b{re.escape(name)}\b", str(error)):
                return name
    said = SAID.search(str(error))
    name = next(filter(None, said.groups()), "") if said else ""
    return "" if name in os.environ else name


def further(order: Mapping[str, Any], environment: dict[str, str], folder: Path, result: dict[str, Any]) -> None:
    """Add to a result the variables that are missing besides those that it has.

    :param order: of `controller.examine`.
    :param environment: of this process, before the application was loaded.
    :param folder: the working directory then.
    :param result: of `controller.examine`. Its `left` gets a line if there may be more.
    """
    known = {finding["variable"] for finding in result["findings"] if finding.get("variable")}
    given, newest, choice = dict.fromkeys(known, PLACEHOLDERS[0]), known, 0
    end = time.monotonic() + SECONDS
    for _ in range(LOADS if known else 0):
        try:
            found = load(order, environment | given, folder, end - time.monotonic())
        except subprocess.TimeoutExpired:
            break
        new = {each["variable"]: each for each in found["findings"] if each.get("variable") not in (None, *given)}
        others = [": ".join(filter(None, (each["place"], each["text"]))) for each in found["findings"]]
        others += found["left"]
        if new:
            result["findings"] += new.values()
            newest, choice = set(new), 0
        elif not others:
            return
        elif choice + 1 < len(PLACEHOLDERS):
            choice += 1
        else:
            names = ", ".join(sorted(given))
            result["left"].append(f"further variables: with placeholders for {names}, it ends with {others[0]}")
            return
        given |= dict.fromkeys(newest, PLACEHOLDERS[choice])
    if known:
        result["left"].append(f"further variables: they were looked for {SECONDS} s or {LOADS} times.")


def load(order: Mapping[str, Any], environment: Mapping[str, str], folder: Path, seconds: float) -> dict[str, Any]:
    """Load the application in another process, and return what `controller.examine` finds there.

    Raises TimeoutExpired after some seconds.
    """
    done = subprocess.run(
        [sys.executable, "-m", "coldframe.release.controller"],
        cwd=folder,
        env=dict(environment),
        input=json.dumps({**order, "variables": True}),
        capture_output=True,
        text=True,
        check=False,
        timeout=max(seconds, 0),
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"findings": [], "left": [f"the exit status {done.returncode}"]}
    return found
