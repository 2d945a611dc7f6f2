"""What is wrong with the application's units, in sentences: what systemd calls active may not work."""

from __future__ import annotations

from typing import Any

LATELY = 600  # seconds since a process began, within which that it is not the first one counts


def unit_problems(state: dict[str, Any], lately: int = LATELY) -> list[str]:
    """Say what is wrong with the units of one host.

    :param state: what deploy_state says of the host.
    :param lately: seconds within which a restart counts.
    """
    problems = []
    deploying = bool(state["lock"])
    for unit in state["units"]:
        name, restarts = unit["unit"], unit["restarts"]
        look = f"journalctl -u {name}"
        if unit["part"].startswith("timer-") and name.endswith(".service"):
            continue  # a command of a timer: it comes and goes, whatever its release
        if unit["release"] != state["current"]:
            if unit["state"] in ("active", "activating", "reloading", "restarting") and not deploying:
                problems.append(
                    f"{name} runs beside the release {state['current'] or 'none'}, and does its part of the work: systemctl stop {name}"
                )
            continue
        # Beat ends when it loses its lease, and is started again to stand by: once is in order.
        again = restarts > (1 if unit["part"] == "beat" else 0) and unit["age"] < lately
        if again or (restarts and unit["state"] in ("activating", "restarting")):
            ended = f" ({unit['ended']})" if unit["ended"] else ""
            times = "once" if restarts == 1 else f"{restarts} times"
            problems.append(
                f"{name} was started again {times}, the last time {unit['age']} s ago{ended}: {look}"
                + (f"; now {unit['doing']}" if unit["doing"].startswith("waiting") else "")
            )
        elif unit["doing"].startswith("waiting"):
            problems.append(f"{name} does no work, {unit['doing']}: {look}")
        elif "not watched: " in unit["doing"]:
            problems.append(f"{name} would not be restarted if it hung, {unit['doing']}: {look}")
        elif unit["state"] == "inactive" or unit["state"] == "failed":
            problems.append(f"{name} does not run ({unit['state']}): systemctl start {name}")
        elif unit["state"] in ("activating", "restarting") and not deploying:
            problems.append(f"{name} is not ready yet: {look}")
        elif unit["state"] == "draining" and not deploying:
            problems.append(f"{name} is being stopped, and belongs to the current release: {look}")
    return problems


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"unit_problems": unit_problems}
