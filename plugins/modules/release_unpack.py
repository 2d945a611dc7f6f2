#!/usr/bin/python
"""Ansible module: puts the files of a signed release on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_unpack
short_description: Checks the signature of a release's file, and unpacks it
description:
  - On a host that knows signers, a file that none of them has signed is refused before anything of it is unpacked.
  - A release that ran on the host already is left as it is. Until then each deploy puts right what is not as in the file.
  - What the file was is noted in C(.release/artifact.json) of the release.
options:
  app: {description: The application's name., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  release: {description: The release id., type: str, required: true}
  src: {description: "The file that M(release_artifact) built, on the controller; the action plugin sends it.", type: path, required: true}
  signature: {description: Its signature., type: str, default: ""}
  source: {description: Where the release comes from; for reports., type: str, default: ""}
author: Coldframe
"""

EXAMPLES = r"""
- release_unpack: {app: shop, root: /srv/shop, release: 3f2a9c1b7d04, src: .cache/releases/3f2a9c1b7d04.tar.gz}
"""

RETURN = r"""
signer: {description: "The fingerprint of the key that signed it; empty if the host knows no signers.", type: str, returned: always}
when: {description: "When this began, in seconds since the epoch.", type: int, returned: always}
"""

import contextlib
import grp
import hashlib
import json
import os
import tarfile
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import Application, point, replace
from ansible.module_utils.coldframe_signatures import RELEASE, verify

NOTE = ".release/artifact.json"


def refusal(app: str, file: Path, error: str) -> str:
    """Say why a host does not take a release's file, and what to do."""
    return (
        f"The release {error}. Nothing of it was unpacked. This host takes releases of {app} only from the signers in {file}. "
        "Deploy with the vault that has their release_signing_key, or have one of them name your public key in release_signers "
        "and deploy (docs/security.md, Signatures)."
    )


def unpack(archive: Path, release: str, releases: Path, group: int) -> bool:
    """Have a release's files as they are in the archive; say whether something was not. Others in its folder stay.

    Raises ValueError when the archive is not this release's.
    """
    changed = False
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if parts[:1] != (release,) or ".." in parts:
                raise ValueError(f"is another one: its file has {member.name}")
            path = releases / member.name
            there = os.lstat(path) if os.path.lexists(path) else None
            if member.issym():
                if not path.is_symlink() or os.readlink(path) != member.linkname:
                    point(path, member.linkname)
                    changed = True
            elif member.isdir():
                if not there:
                    path.mkdir()
                    changed = True
            else:
                file = tar.extractfile(member)
                content = file.read() if file else b""
                if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
                    with contextlib.suppress(FileNotFoundError):
                        path.unlink()  # a process may have the old file open
                    path.write_bytes(content)
                    os.utime(path, (member.mtime, member.mtime))
                    changed = True
            found = os.lstat(path)
            if (found.st_uid, found.st_gid) != (0, group):
                os.lchown(path, 0, group)
                changed = True
            if not member.issym() and found.st_mode & 0o7777 != member.mode:
                path.chmod(member.mode)
                changed = True
    return changed


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "src": {"type": "path", "required": True},
            "signature": {"type": "str", "default": ""},
            "source": {"type": "str", "default": ""},
        }
    )
    p = module.params
    began = int(time.time())
    host = Application(module, p["app"], p["root"])
    archive, signer = Path(p["src"]), ""
    if host.signers:
        try:
            signer = verify(archive, p["signature"], host.signers, RELEASE)
        except ValueError as error:
            module.fail_json(msg=refusal(p["app"], host.signers_file, str(error)))
    try:
        changed = unpack(archive, p["release"], host.root / "releases", grp.getgrnam(p["app"]).gr_gid)
    except (ValueError, tarfile.TarError, EOFError) as error:
        module.fail_json(
            msg=f"The release {p['release']} {error}. Remove .cache/releases on the controller, then deploy again."
        )
    with archive.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    note = {"sha256": sha256, "signature": p["signature"], "signer": signer, "source": p["source"]}
    path = host.root / "releases" / p["release"] / NOTE
    if not path.exists() or path.read_text() != json.dumps(note):
        replace(path, json.dumps(note), 0o640)
        changed = True
    module.exit_json(changed=changed, signer=signer, when=began)


if __name__ == "__main__":
    main()
