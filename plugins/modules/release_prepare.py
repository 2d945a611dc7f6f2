#!/usr/bin/python
"""Ansible module: what a release's code does once before its units start."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_prepare
short_description: Checks a release, collects its static files and migrates the database
description:
  - Runs the release's code in one process, through C(<app>-manage), as the web user with its secrets.
  - A migration that the running release could not survive is refused before the database is touched,
    unless it is named in O(allow).
  - Whatever fails leaves the running release as it is.
  - In check mode nothing is run, for the release is mostly not on the host then.
options:
  app: {description: The application's name., type: str, required: true}
  release: {description: The release id., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  celery:
    description: The Celery application, as C(module:name), whose settings are compared with the deployment's. Empty leaves that out.
    type: str
    default: ""
  wsgi:
    description: The WSGI or ASGI application, as C(module:name), which is loaded too. Empty leaves that out.
    type: str
    default: ""
  check: {description: "Whether to run Django's checks, C(check --deploy).", type: bool, default: true}
  static:
    description: Whether to collect static files, where that was not done.
    type: bool
    default: true
  check_level:
    description: The least level of a finding that fails. C(NONE) runs no checks.
    type: str
    choices: [CRITICAL, ERROR, WARNING, INFO, NONE]
    default: WARNING
  check_ignore: {description: Ids of findings that do not fail., type: list, elements: str, default: []}
  commands:
    description: Commands of manage.py that run when static files were collected.
    type: list
    elements: str
    default: []
  migrate: {description: Whether to migrate. One host of a deploy does., type: bool, default: true}
  hooks:
    description: "Whether the release's commands for C(before_migrate) and C(after_migrate) are run, when it migrates."
    type: bool
    default: true
  running:
    description: The release that serves now. Without one nothing is refused.
    type: str
    default: ""
  allow:
    description: Migrations, as C(app_label.migration_name), that are applied although they are judged unsafe.
    type: list
    elements: str
    default: []
  linter:
    description:
      - The environment with django-migration-linter. It is needed only when a migration is to be judged;
        when it is not there, RV(linter_missing) tells so and nothing is migrated.
    type: path
    required: true
  lock_timeout:
    description: Seconds that a migration waits for a lock, with the running release's queries behind it; 0 means for ever.
    type: int
    default: 5
  load_timeout: {description: Seconds in which the application must be loaded., type: int, default: 180}
author: Coldframe
"""

EXAMPLES = r"""
- release_prepare: {app: shop, release: 3f2a9c1b7d04, root: /srv/shop, running: 6b0d52f1c7aa, linter: /opt/migrations}
"""

RETURN = r"""
collected: {description: Whether static files were collected., type: bool, returned: always}
settings:
  description:
    - What is laid over the application's settings, and what stays, each with its C(section), C(name), C(own) value, the C(value) of the
      deployment, which is empty for what stays, and a C(note). Passwords are hidden.
  type: list
  returned: always
plan:
  description: The unapplied migrations in order, each with its C(migration), C(atomic) and C(operations).
  type: list
  returned: always
applied: {description: The migrations that were applied., type: list, returned: always}
output: {description: What Django's C(migrate) wrote., type: str, returned: when not in check mode}
report: {description: "What is worth a word: findings that do not fail, and indexes.", type: list, returned: always}
warnings: {description: What may disturb the running release., type: list, returned: when there are some}
linter_missing: {description: Whether the plan waits for the linter., type: bool, returned: always}
"""

import json
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import Application
from ansible.module_utils.coldframe_commands import plain
from ansible.module_utils.coldframe_failures import DOC, EXITS, check_remedies, own_lines, remedies

NAME = re.compile(r"[A-Za-z_]\w*\.\w+")
ORDER = (
    "celery",
    "wsgi",
    "check_level",
    "check_ignore",
    "commands",
    "migrate",
    "hooks",
    "running",
    "allow",
    "linter",
    "lock_timeout",
    "load_timeout",
)
MOST_NAMES = 30  # of migrations in a message
FINDING = re.compile(
    r"^([A-Za-z][\w.]*\.[A-Z]\d{3}(?:\.[^:\n]+)?): ", re.MULTILINE
)  # the id of a finding, before its text
FAILED = {
    "": "The new release does not start",
    "load": "The new release cannot be loaded",
    "settings": "The new release's settings do not fit the deployment",
    "check": "The new release does not pass its checks",
    "static": "The static files of the new release cannot be collected",
    "command": "A command of release_commands failed for the new release",
    "hook": "A command of app_hooks failed for the new release",
    "index": "An invalid index that a migration makes cannot be dropped",
    "plan": "The migrations of the new release cannot be listed",
    "judge": "The migrations of the new release cannot be judged",
}


def wrong_names(names: list[str]) -> list[str]:
    """List the names that are no migration's."""
    return [name for name in names if not NAME.fullmatch(name)]


def described(plan: list[dict[str, Any]]) -> str:
    """Write a plan as people read it: each migration, and its operations below."""
    return "".join(f"{m['migration']}\n" + "".join(f"    {each}\n" for each in m["operations"]) for m in plan)


def findings(items: list[dict[str, Any]]) -> list[str]:
    """Write findings about migrations, a line each."""
    return [f"{item['migration']}: {item['operation']}: {item['reason']}" for item in items]


def refusal(result: dict[str, Any], running: str) -> str:
    """Say which migrations are refused, why, and the ways out."""
    names = list(dict.fromkeys(item["migration"] for item in result["refused"]))
    return "\n".join(
        [
            f"The running release {running} could not survive {len(names)} of the {len(result['plan'])} unapplied "
            "migrations. None was applied, and it goes on:",
            *findings(result["refused"]),
            "Either expand first and contract later: a release that no longer uses it, then one that takes it away.",
            "Or let requests of the running release fail until the new one has taken over, by naming "
            f"{'it' if len(names) == 1 else 'them'}:",
            f"    release_allow_migrations: [{', '.join(names)}]",
            f"or once, make deploy ALLOW_MIGRATIONS={','.join(names)}",
        ]
    )


def failure(result: dict[str, Any], lock_timeout: int, ignored: list[str] | None = None, running: str = "") -> str:
    """Say what failed, what was done before it and what helps.

    :param ignored: release_check_ignore as it is.
    :param running: the running release, empty at a first deploy.
    """
    error, plan = result["error"], result["plan"]
    helps = remedies(error["text"])
    if result["step"] == "check" and error["type"] == "Failed":
        return check_failure(result, ignored or [], running)
    if result["step"] != "migrate":
        what = FAILED[result["step"]] + (f" ({result['command']})" if result["step"] == "command" else "")
        lock = [lock_advice(lock_timeout)] if error["lock"] else []
        applied = [applied_text(result["applied"])] if result["applied"] else []
        return "\n".join([f"{what}; what ran before was left running.", *lock, *applied, error["text"], *helps])
    left = [m for m in plan if m["migration"] not in result["applied"]]
    if not left or error["type"] == "CommandError":
        what = "The database was not migrated to the end"
    else:
        what = f"The migration {left[0]['migration']} failed"
    text = [f"{what}; what ran before was left running."]
    if error["lock"]:
        text.append(lock_advice(lock_timeout))
    if left and not left[0]["atomic"]:
        text += half_applied(left[0], result)
    text.append(f"Applied before it: {', '.join(result['applied']) or 'none'}.")
    text.append(f"Not applied: {', '.join(m['migration'] for m in left) or 'none'}.")
    return "\n".join([*text, error["text"], *helps])


def lock_advice(lock_timeout: int) -> str:
    """Say what to do about a lock that did not come in time."""
    return (
        f"It waited for a lock longer than release_migration_lock_timeout, {lock_timeout} s: something else uses the "
        "table for longer. Deploy again when it does not, or raise release_migration_lock_timeout "
        "(the running release's queries wait behind the migration for as long)."
    )


def half_applied(migration: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """Say what a migration that is not atomic left behind, and how the next attempt can succeed."""
    name = migration["migration"]
    done = result["done"].get(name, [])
    rest = migration["operations"][len(done) :]
    text = [
        f"It is not atomic, so it was not taken back. Done: {'; '.join(d['operation'] for d in done) or 'nothing'}. "
        f"Failed: {rest[0] if rest else 'nothing'}. Not begun: {'; '.join(rest[1:]) or 'nothing'}."
    ]
    if result["invalid"]:
        text.append(f"Invalid indexes are there, of this attempt or an earlier one: {', '.join(result['invalid'])}.")
    if all(each["repeatable"] for each in done) and "already exists" not in result["error"]["text"]:
        text.append(
            "The next deploy begins it anew: an invalid index that it makes is dropped first, a valid one is kept."
        )
    else:
        label, _, rest_of_name = name.partition(".")
        text.append(
            "The next deploy would begin it anew, and fail at what is there. Before it, take back by hand what was done; "
            "or do by hand what is missing, and note the migration as applied: "
            f"manage.py migrate --fake {label} {rest_of_name}, with the new release (--release)."
        )
    return text


def check_failure(result: dict[str, Any], ignored: list[str], running: str) -> str:
    """Write the findings that fail, with what to write for those of Django's own.

    :param ignored: release_check_ignore as it is.
    :param running: the running release, empty at a first deploy.
    """
    text = [f"{FAILED['check']}; what ran before was left running.", result["error"]["text"]]
    if result["applied"]:
        text.append(applied_text(result["applied"]))
    if known := check_remedies(result["error"]["text"].splitlines()):
        text += [f"In the settings (see {DOC}):", *(f"    {each}" for each in known)]
    if not running:
        text.append(
            "This is the first deploy: workers and Beat run only after it, and a check that asks them cannot pass yet."
        )
    ids = dict.fromkeys([*ignored, *FINDING.findall(result["error"]["text"])])
    text.append("What is meant to be so is left out by its id. For all of them:")
    text.append(f"    release_check_ignore: [{', '.join(ids)}]")
    return "\n".join(text)


def applied_text(names: list[str]) -> str:
    """Say which migrations were applied, or how many."""
    if len(names) > MOST_NAMES:
        return f"Its migrations were applied: {len(names)}, from {names[0]} to {names[-1]}."
    return f"Its migrations were applied: {', '.join(names)}."


def report(result: dict[str, Any]) -> list[str]:
    """Write what did not fail and is worth a word, a line each."""
    lines = [f"Check {line}" for line in result["checked"]] if not result["error"] else []
    if result["ignored"]:
        lines.append(f"Left out by release_check_ignore: {', '.join(result['ignored'])}")
    lines += result["foreign"]
    lines += [
        f"An invalid index, left by an attempt that was cut off, was dropped: {index}" for index in result["dropped"]
    ]
    lines += [f"An index of an attempt that was cut off was kept: {index}" for index in result["kept"]]
    lines += [
        f"An invalid index is in the database; nothing uses it, and each write keeps it up: {index}. If none is being "
        "made just now, drop it by hand (DROP INDEX CONCURRENTLY), and make it again if it is wanted."
        for index in result["invalid"]
    ]
    return lines


def run(module: AnsibleModule, order: dict[str, Any]) -> dict[str, Any]:
    """Run the release's process; return what it did. Fails when it ends without saying so."""
    app, release = module.params["app"], module.params["release"]
    command = [f"/usr/local/bin/{app}-manage", "--release", release, "--module", "coldframe.release.prepare"]
    code, output, errors = module.run_command(command, data=json.dumps(order))
    try:
        result: dict[str, Any] = json.loads(output)
        result["output"] = plain(result["output"])
        if result["error"]:
            result["error"]["text"] = plain(result["error"]["text"])
        return result
    except ValueError:
        reason = [f"Exit status {code}: {EXITS[code]}."] if code in EXITS else []
        if "\nTimeout (" in f"\n{errors}":  # faulthandler's word
            reason = [f"It was not loaded within app_start_timeout, {order['load_timeout']} s. It was here:"]
        lines = own_lines("\n".join(plain(errors).split("\n")[-200:]), f"{module.params['root']}/releases/")
        msg = "\n".join([f"{FAILED['']}; what ran before was left running.", *reason, lines, *remedies(lines)])
        module.fail_json(msg=msg, rc=code)
        raise  # fail_json does not return


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "celery": {"type": "str", "default": ""},
            "wsgi": {"type": "str", "default": ""},
            "check": {"type": "bool", "default": True},
            "static": {"type": "bool", "default": True},
            "check_level": {
                "type": "str",
                "choices": ["CRITICAL", "ERROR", "WARNING", "INFO", "NONE"],
                "default": "WARNING",
            },
            "check_ignore": {"type": "list", "elements": "str", "default": []},
            "commands": {"type": "list", "elements": "str", "default": []},
            "migrate": {"type": "bool", "default": True},
            "hooks": {"type": "bool", "default": True},
            "running": {"type": "str", "default": ""},
            "allow": {"type": "list", "elements": "str", "default": []},
            "linter": {"type": "path", "required": True},
            "lock_timeout": {"type": "int", "default": 5},
            "load_timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    if wrong := wrong_names(parameters["allow"]):
        module.fail_json(msg=f"allow holds {wrong[0]!r}; it must be app_label.migration_name, such as blog.0007_title.")
    folder = Path(parameters["root"], "releases", parameters["release"], ".release")
    static, stamp = folder / "static", folder / "static-collected"
    order = {name: parameters[name] for name in ORDER}
    order["check"] = parameters["check"] and parameters["check_level"] != "NONE"
    order["static"] = parameters["static"] and not stamp.exists()
    if module.check_mode:
        module.exit_json(
            changed=order["static"],
            collected=order["static"],
            settings=[],
            plan=[],
            applied=[],
            report=[],
            linter_missing=False,
        )

    if order["static"]:
        module.run_command(["chown", "-R", f"{parameters['app']}-web:", str(static)], check_rc=True)
    try:
        result = run(module, order)
    finally:
        if order["static"]:  # out of the application's reach from now on
            module.run_command(["chown", "-R", "root:root", str(static)], check_rc=True)
            # The edge reads them, whatever the application's settings and the umask say.
            module.run_command(["chmod", "-R", "u=rwX,go=rX", str(static)], check_rc=True)
    if result["collected"]:
        stamp.touch()
    Application(module, parameters["app"], parameters["root"]).keep_static()

    for line in findings(result["warnings"]) + report(result):
        module.warn(line)
    answer = {name: result[name] for name in ("collected", "settings", "plan", "applied", "output", "linter_missing")}
    answer["report"] = report(result)
    answer["changed"] = bool(result["collected"] or result["applied"] or result["dropped"])
    if result["plan"]:
        answer["diff"] = {"before_header": "unapplied migrations", "before": described(result["plan"]), "after": ""}
    if result["error"]:
        module.fail_json(
            msg=failure(result, parameters["lock_timeout"], parameters["check_ignore"], parameters["running"]), **answer
        )
    if result["refused"]:
        module.fail_json(msg=refusal(result, parameters["running"]), refused=result["refused"], **answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
