#!/usr/bin/python
"""Ansible module: the report of a deploy on the controller, signed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_report
short_description: Writes and signs the report of a deploy, or checks the signatures of those that hosts kept
description:
  - With O(report), writes it as JSON and as a page of HTML into O(folder), and the software bill of materials (SBOM) of the release and
    its hosts as CycloneDX has it, each with its signature beside it.
  - With O(found), checks what hosts kept, and stores a right copy in O(folder).
options:
  folder: {description: The folder for reports on the controller., type: path, required: true}
  template: {description: The template of the page., type: path}
  report: {description: "The document, from the filter P(deploy_report#filter).", type: dict}
  packages: {description: "What is installed, host to what M(deploy_end) returned as C(packages).", type: dict, default: {}}
  found: {description: "What M(deploy_report) read, host to its result.", type: dict}
  signing_keys: {description: "The private keys of the inventory. The first signs; if it is empty, nothing is signed.", type: list, elements: str, default: []}
  signers: {description: Public keys of others., type: list, elements: str, default: []}
author: Coldframe
"""

EXAMPLES = r"""
- release_report: {folder: .reports/shop-production, template: playbooks/templates/report.html.j2, report: "{{ report }}"}
"""

RETURN = r"""
path: {description: The page., type: str, returned: always}
files: {description: The files that hosts keep., type: list, returned: with C(report)}
signer: {description: The fingerprint of the key that signed; empty if nothing is signed., type: str, returned: with C(report)}
lines: {description: "What the report says, in short.", type: list, returned: with C(found)}
problems: {description: What is wrong with the copies of the hosts., type: list, returned: with C(found)}
"""

import json
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe_signatures import (
    REPORT,
    allowed_signers,
    fingerprint,
    public_key,
    sign,
    signer,
    verify,
)
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from jinja2 import Environment, StrictUndefined
from packageurl import PackageURL
from packaging.utils import canonicalize_name

KINDS = {"json": "the report", "html": "its page", "cdx.json": "its list of packages"}


def name_of(report: dict[str, Any]) -> str:
    """Name the files of a report; later ones sort behind earlier ones."""
    return f"{report['when'].replace('-', '').replace(':', '')}-{report['action']}-{report['release'] or 'none'}"


def page(report: dict[str, Any], template: str) -> str:
    """Render the page. What is in the report is text there, whatever characters it has."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(report=report)


def locked(text: str) -> dict[tuple[str, str], list[str]]:
    """Map each package and version of a lock file to the digests that it may have."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if pinned := re.match(r"([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?\s*==\s*([^\s;]+)", line):
            found[(canonicalize_name(pinned[1]), pinned[2])] = re.findall(r"--hash=(\S+)", line)
    return found


def bill(report: dict[str, Any], packages: dict[str, dict[str, Any]]) -> str:
    """Return the software bill of materials: what the environments of the hosts have, with the digests of the lock file."""
    hosts: dict[tuple[str, ...], list[str]] = {}
    digests: dict[tuple[str, str], list[str]] = {}
    for host, each in packages.items():
        digests |= locked(each.get("lock", ""))
        for name, version in each.get("python", {}).items():
            hosts.setdefault(("pypi", canonicalize_name(name), version), []).append(host)
        for name, version in each.get("debian", {}).items():
            hosts.setdefault(("deb", name, version, f"debian-{each.get('debian_version', '')}"), []).append(host)
    bom = Bom()
    bom.metadata.component = Component(
        name=report["application"], version=report["release"], type=ComponentType.APPLICATION, bom_ref="release"
    )
    for (kind, name, version, *distribution), where in sorted(hosts.items()):
        purl = (
            PackageURL("deb", "debian", name, version, {"distro": distribution[0]})
            if distribution
            else PackageURL(kind, name=name, version=version)
        )
        properties = [Property(name="coldframe:hosts", value=" ".join(where))]
        if not distribution:
            allowed = digests.get((name, version))
            properties += [Property(name="coldframe:locked", value="no" if allowed is None else "yes")]
            properties += [Property(name="coldframe:lock-hash", value=digest) for digest in allowed or []]
        bom.components.add(
            Component(
                name=name,
                version=version,
                type=ComponentType.LIBRARY,
                purl=purl,
                bom_ref=purl.to_string(),
                properties=properties,
            )
        )
    bom.register_dependency(bom.metadata.component, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def write(
    report: dict[str, Any], template: str, folder: Path, key: str, packages: dict[str, dict[str, Any]] | None = None
) -> list[Path]:
    """Write the files of a report, and return their paths.

    Raises ValueError when the key cannot be read, and OSError when a file cannot be written.
    """
    texts = {
        "json": json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False) + "\n",
        "html": page(report, template),
        "cdx.json": bill(report, packages or {}),
    }
    signatures = {kind: sign(text.encode(), key, REPORT) for kind, text in texts.items()} if key else {}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in KINDS:
        file = folder / f"{name_of(report)}.{kind}"
        file.write_text(texts[kind])
        written.append(file)
        if key:
            written.append(file.with_name(f"{file.name}.sig"))
            written[-1].write_text(signatures[kind])
    return written


def checked(files: dict[str, str], name: str, signers: str) -> tuple[str, bool]:
    """Say whether the signatures of a copy are right, and whether it may be believed to be as it was written."""
    signatures = {kind: files.get(f"{name}.{kind}.sig", "") for kind in KINDS}
    if not any(signatures.values()):
        return "not signed", True
    said = ""
    for kind, what in KINDS.items():
        text = files.get(f"{name}.{kind}", "").encode()
        try:
            by = signer(text, signatures[kind], REPORT)
        except ValueError as error:
            return f"signature WRONG: {what} {error}", False
        try:
            verify(text, signatures[kind], signers, REPORT)
        except ValueError:
            said = f"signature right, by {by}, a key that neither release_signing_key nor release_signers has"
        said = said or f"signature right, by {by}"
    return said, True


def summary(report: dict[str, Any]) -> list[str]:
    """Say in short what a report says. More than ten migrations are counted; the page lists them."""
    migrations = report["migrations"]["applied"]
    applied = ", ".join(migrations) if len(migrations) <= 10 else f"{len(migrations)}, which the page lists"
    lines = [
        f"{report['action'].capitalize()} of {report['application']}, release {report['release'] or 'none'}"
        + (": the previous release was restored" if report.get("outcome") == "restored" else ""),
        f"  {report['when']} by {report['who'] or 'an unknown user'}, source {report['source'] or 'unknown'}",
        f"  file sha256 {report['sha256'] or 'unknown'}, lock file sha256 {report['lock_sha256'] or 'unknown'}",
        f"  migrations applied: {applied or 'none'}",
    ]
    if (watch := report.get("watch", {})).get("seconds"):
        lines.append(f"  watched for {watch['seconds']} s: {len(watch['tasks'])} tasks ran")
        lines += [f"    {said}" for said in watch["problems"] + watch["notes"]]
    for name, host in report["hosts"].items():
        changed = [what.replace("_", " ") for what, true in host["changed"].items() if true]
        seconds = ", ".join(f"{phase} {number}" for phase, number in host["seconds"].items())
        lines.append(
            f"  {name}: changed {', '.join(changed) or 'nothing'}; started {len(host['started'])} units, stopped {len(host['stopped'])}"
        )
        lines.append(
            f"    smoke test: {host['smoke']['requests']} requests, {host['smoke']['failed']} failed; seconds: {seconds or 'unknown'}"
        )
    return lines


def own_copy(folder: Path, name: str) -> dict[str, str]:
    """Return the files of a report that this machine keeps; empty when it has none."""
    return {path.name: path.read_text() for path in folder.glob(f"{name}.*")} if name else {}


def trusted(copies: dict[str, dict[str, str]], name: str, signers: str) -> str:
    """Name the copy that the others are compared with: the first that is signed and right, or else the first; empty for none."""
    signed = (
        where for where, files in copies.items() if f"{name}.json.sig" in files and checked(files, name, signers)[1]
    )
    return next(signed, next(iter(copies), ""))


def judged(
    files: dict[str, str], name: str, signers: str, model: dict[str, str], where: str
) -> tuple[str, bool, list[str]]:
    """Say of a host's copy whether it is as it was written, whether it may be believed, and what the report says.

    :param model: the files that it is compared with, which are those `where`.
    """
    said, right = checked(files, name, signers)
    if right and (
        other := [KINDS[kind] for kind in KINDS if files.get(f"{name}.{kind}") != model.get(f"{name}.{kind}")]
    ):
        said, right = f"it differs from the copy {where}: {' and '.join(other)}", False
    try:
        return said, right, summary(json.loads(files.get(f"{name}.json", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "the report cannot be read: it was changed, or is of another version of Coldframe", False, []


def show(found: dict[str, dict[str, Any]], signers: str, folder: Path, keep: bool = True) -> dict[str, Any]:
    """Check the newest report that hosts have, and say what it says. What this machine has of it is never overwritten.

    :param keep: whether to store it where this machine has none.

    Raises OSError when the copy cannot be stored.
    """
    name = max((host.get("name") or "" for host in found.values()), default="")
    own = own_copy(folder, name)
    copies = {f"in {folder}": own} if own else {}
    copies |= {f"on {host}": each["files"] for host, each in found.items() if each.get("name") == name}
    where = trusted(copies, name, signers)
    lines: list[str] = []
    states, problems = [], []
    path = ""
    for host, each in found.items():
        if each.get("name") != name:
            states.append(f"  copy on {host}: there is none")
            continue
        said, right, read = judged(each["files"], name, signers, copies[where], where)
        states.append(f"  copy on {host}: {said}")
        if not right:
            problems.append(f"{host}: {said} ({name}). Compare it with the copies of other hosts and in {folder}.")
        elif not path:
            lines, path = read, str(folder / f"{name}.html") if own or keep else ""
            if keep and not own:
                folder.mkdir(parents=True, exist_ok=True)
                for file, text in each["files"].items():
                    (folder / Path(file).name).write_text(text)
    page = [f"  page {path}"] if path else []
    return {"lines": lines + states + page, "problems": problems, "path": path}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "template": {"type": "path"},
            "report": {"type": "dict"},
            "packages": {"type": "dict", "default": {}},
            "found": {"type": "dict"},
            "signing_keys": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "signers": {"type": "list", "elements": "str", "default": []},
        },
        required_one_of=[["report", "found"]],
        mutually_exclusive=[["report", "found"]],
        required_by={"report": ["template"]},
        supports_check_mode=True,
    )
    p = module.params
    keys, folder = [key for key in p["signing_keys"] if key], Path(p["folder"])
    try:
        if p["report"] is None:
            own = [public_key(key) for key in keys]
            module.exit_json(
                changed=False, **show(p["found"], allowed_signers([*own, *p["signers"]]), folder, not module.check_mode)
            )
        key = keys[0] if keys else ""
        files = write(p["report"], Path(p["template"]).read_text(), folder, key, p["packages"])
        by = fingerprint(public_key(key)) if key else ""
    except ValueError as error:
        module.fail_json(msg=f"release_signing_key cannot be used: {error}.")
    except OSError as error:
        module.fail_json(msg=f"The report cannot be kept in {folder}: {error}")
    page_path = next(str(file) for file in files if file.suffix == ".html")
    module.exit_json(changed=False, path=page_path, files=[str(file) for file in files], signer=by)


if __name__ == "__main__":
    main()
