#!/usr/bin/python
"""Ansible module: takes a host's lock for one deploy and says what there is to do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_begin
short_description: Locks a host for one deploy, notes it in the history, and compares the host with what is wanted
description:
  - Fails, naming the holder and the time, when another deploy has the lock. A lock whose deploy ran on this
    same controller and has ended is taken over. The lock is given back by M(deploy_end).
  - In check mode nothing is locked or noted.
options:
  app: {description: The application's name., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  action: {description: What is being done., type: str, choices: [deploy, rollback], default: deploy}
  release: {description: The release that shall run., type: str, required: true}
  source: {description: Where it comes from; for the history., type: str, default: ""}
  converged:
    description: >-
      A digest of all that the host's configuration follows from. Empty: do not compare. The lock keeps it, and M(deploy_end)
      makes it the host's when the deploy ends well.
    type: str
    default: ""
  inputs:
    description: >-
      A digest of all that the deploy is made of. The host keeps it if the deploy ends well, with what it left there, and M(deploy_state) returns
      it. Empty: nothing is kept.
    type: str
    default: ""
  partial: {description: "Whether only a part of the host is converged: then O(converged) does not become the host's.", type: bool, default: false}
  web: {description: Whether Gunicorn runs on this host., type: bool, default: false}
  queues: {description: The queues that this host serves., type: list, elements: str, default: []}
  beat: {description: Whether Beat runs on this host., type: bool, default: false}
  processes: {description: "Further parts that run on this host, such as C(service-bot) and C(timer-report).", type: list, elements: str, default: []}
  as_before: {description: Compare with the units that the release last ran with here., type: bool, default: false}
  venv: {description: "The virtual environment that the release shall have here. Empty: do not compare.", type: path, default: ""}
  migrations: {description: Files of migrations in the release., type: list, elements: str, default: []}
  record:
    description: "What the application takes of this host, which deploys of other applications read. Empty: what was noted stays."
    type: dict
    default: {}
  signers:
    description:
      - The public keys whose releases the host takes from now on. Without O(signing_keys) the host keeps those that it has.
      - A host that knows signers takes others only if one of those that it knows has signed the new list. The first are taken as they are.
    type: raw
    default: []
  signing_keys:
    description: The private keys that sign O(signers). The action plugin does so on the controller, and sends none of them.
    type: list
    elements: str
    default: []
  signatures: {description: "The signatures of O(signers); the action plugin fills them in.", type: list, elements: str, default: []}
  holder: {description: Who deploys; the action plugin fills it in., type: dict, default: {}}
  take_over: {description: The deploy whose lock is stale; the action plugin fills it in., type: str, default: ""}
author: Coldframe
"""

EXAMPLES = r"""
- deploy_begin: {app: shop, root: /srv/shop, release: 3f2a9c1b7d04, web: true, queues: [default]}
"""

RETURN = r"""
who: {description: Who deploys., type: str, returned: always}
when: {description: "When it began, in seconds since the epoch.", type: int, returned: always}
deploy: {description: The deploy's own id., type: str, returned: always}
current: {description: The release that runs now., type: str, returned: always}
converge: {description: Whether the host's configuration must be converged., type: bool, returned: always}
place: {description: Whether the release must be put in place first., type: bool, returned: always}
activate: {description: Whether units must start or stop., type: bool, returned: always}
lock: {description: The lock that was found., type: dict, returned: always}
migrations: {description: Those that the running release does not have., type: list, returned: always}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import PARTS, Application, replace
from ansible.module_utils.coldframe_signatures import check_signers


def refusal(app: str, host: Application, error: str) -> str:
    """Say why a host does not take these signers, and what to do."""
    return (
        f"The list of signers of this deploy {error}. Nothing was changed. This host takes releases of {app} only from the signers in "
        f"{host.signers_file}. Deploy with the vault that has their release_signing_key. If that key is lost, remove this file on each "
        "host as root, and deploy again (docs/security.md, Signatures)."
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "action": {"type": "str", "choices": ["deploy", "rollback"], "default": "deploy"},
            "release": {"type": "str", "required": True},
            "source": {"type": "str", "default": ""},
            "converged": {"type": "str", "default": ""},
            "inputs": {"type": "str", "default": ""},
            "partial": {"type": "bool", "default": False},
            "venv": {"type": "path", "default": ""},
            "migrations": {"type": "list", "elements": "str", "default": []},
            "record": {"type": "dict", "default": {}},
            "signers": {"type": "raw", "default": []},
            "signing_keys": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "signatures": {"type": "list", "elements": "str", "default": []},
            "holder": {"type": "dict", "default": {}},
            "take_over": {"type": "str", "default": ""},
            **PARTS,
        },
        supports_check_mode=True,
    )
    p = module.params
    host = Application(module, p["app"], p["root"])
    deploy = p["holder"].get("deploy", "")
    lock, when = host.lock(), int(time.time())
    signers = p["signers"] or ""
    parts = host.parts(p["release"], **{name: p[name] for name in PARTS})
    if p["action"] == "deploy":
        try:
            check_signers(host.signers, signers, p["signatures"])
        except ValueError as error:
            module.fail_json(msg=refusal(p["app"], host, str(error)))
    if not module.check_mode:
        if p["take_over"] and lock.get("deploy") == p["take_over"]:
            host.finish(p["take_over"], "cut off")
        coming = "" if p["partial"] else p["converged"]
        # A host that gets no release, such as one with Redis alone, stays as it is.
        left = {
            "digest": p["inputs"],
            "converged": coming,
            "release": p["release"] if p["venv"] else host.current,
            "parts": parts,
            "venv": p["venv"],
        }
        if not host.take_lock(
            p["holder"] | {"since": int(time.time()), "converged": coming, "inputs": left if p["inputs"] else {}}
        ):
            lock = host.lock()
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(lock.get("since", 0)))
            module.fail_json(
                msg=f"{lock.get('who')} has been deploying {p['app']} since {since}. Wait until that is done. If it is "
                "certain that it has ended, break its lock with 'make unlock' (playbooks/unlock.yml), then deploy again.",
                lock=lock,
            )

    converge = bool(p["converged"]) and host.stamp() != p["converged"]
    place = p["release"] != host.current or not host.in_place(p["release"], p["venv"])
    activate = not host.as_wanted(p["release"], parts)
    if not module.check_mode:
        if signers and signers != host.signers:
            replace(host.signers_file, signers)
        if p["record"]:
            host.write_record(p["record"])
        host.inputs_file.unlink(missing_ok=True)
        if converge:  # until it came to its end the host is neither as before nor as wanted
            host.stamp_file.unlink(missing_ok=True)
        host.note(
            deploy,
            "begun",
            action=p["action"],
            who=p["holder"].get("who", ""),
            release=p["release"],
            before=host.current,
            source=p["source"],
        )
    module.exit_json(
        changed=False,
        deploy=deploy,
        who=p["holder"].get("who", ""),
        when=when,
        current=host.current,
        converge=converge,
        place=place,
        activate=activate,
        lock=lock,
        migrations=[name for name in p["migrations"] if not (host.root / "current" / name).exists()],
    )


if __name__ == "__main__":
    main()
