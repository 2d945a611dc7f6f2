#!/usr/bin/python
"""Ansible module: one application release as one content-addressed file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_artifact
short_description: Builds a release's file and derives its id from the content
description:
  - Packs folders and generated files into C(<id>.tar.gz), on the controller.
  - The id is a digest of paths, contents and O(salt), so the same input is the same release.
options:
  trees:
    description: Folders to pack.
    type: list
    elements: dict
    required: true
    suboptions:
      src: {description: The folder on the controller., type: path, required: true}
      dest: {description: Where it goes inside the release., type: str, default: ""}
      exclude: {description: "Names, paths or globs that are left out; names at any depth.", type: list, elements: str, default: []}
      include:
        description: The same, of what travels although git ignores it or a built-in list leaves it out. Not with O(trees[].kind=all).
        type: list
        elements: str
        default: []
      kind:
        description:
          - C(all) takes all of the folder. The others are what M(release_source) says of an application's, and leave out
            what is no source, and what looks like a secret (C(module_utils/coldframe_files.py)).
        type: str
        choices: [all, checkout, work_tree, folder]
        default: all
  files:
    description: Generated files, path inside the release to text.
    type: dict
    default: {}
  salt:
    description: What makes a new release besides the files, for example the units that run it.
    type: dict
    default: {}
  secrets:
    description: Secrets that the release is run with. They are not packed; a changed one is a new release.
    type: dict
    default: {}
  dest:
    description: Folder for the built files.
    type: path
    required: true
  signing_key:
    description:
      - The private key that signs the file, as OpenSSH writes it, without a passphrase. If empty, the file is not signed.
      - A file that is there already is taken only if this key has signed it, and built again otherwise.
    type: str
    default: ""
author: Coldframe
"""

EXAMPLES = r"""
- release_artifact:
    trees: [{src: ../shop, exclude: [tests]}]
    files: {.release/environment: "DEBUG=0\n"}
    dest: .artifacts
"""

RETURN = r"""
release_id: {description: Twelve hexadecimal digits., type: str, returned: always}
path: {description: The built file., type: str, returned: always}
sha256: {description: The digest of the built file., type: str, returned: always}
signature: {description: "Its signature, as C(ssh-keygen -Y sign) writes it; empty without O(signing_key).", type: str, returned: always}
left_out: {description: What a person might miss in the release., type: str, returned: always}
migrations: {description: Files of Django's migrations in the release., type: list, returned: always}
"""

import fnmatch
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe_files import Choice, refuse_others, shown
from ansible.module_utils.coldframe_signatures import RELEASE, allowed_signers, public_key, sign, verify


def walk(root: Path, exclude: list[str]) -> Iterator[Path]:
    """Yield the files and links under root, passing over excluded names."""
    for folder, folders, files in os.walk(root):
        folders[:] = [n for n in folders if not any(fnmatch.fnmatch(n, e) for e in exclude)]
        linked = [n for n in folders if (Path(folder) / n).is_symlink()]
        for name in files + linked:
            if not any(fnmatch.fnmatch(name, e) for e in exclude):
                yield Path(folder, name).relative_to(root)


def chosen(tree: dict[str, Any], choices: list[Choice]) -> Iterable[Path]:
    """Choose the files of a folder, relative to it, and keep the choice where there was one.

    Raises ValueError, naming the variables to change, for committed files that look like secrets.
    """
    if tree.get("kind", "all") == "all":
        return walk(Path(tree["src"]), tree["exclude"])
    choice = Choice(Path(tree["src"]), tree["kind"], tree["include"], tree["exclude"])
    if choice.committed_secrets:
        raise ValueError(
            f"The application has in git what looks like a secret: {shown(choice.committed_secrets)}. All its processes could "
            "read it on the servers. Name it in app_exclude, or in app_include if it is none; secrets are given in app_secrets."
        )
    choices.append(choice)
    return choice.files


def collect(trees: list[dict[str, Any]], files: dict[str, str], said: list[str]) -> dict[str, tuple[int, bytes, str]]:
    """Map each path in the release to its mode, content and link target, and say what a person might miss.

    Where two trees have a path, the later one's counts.

    Raises ValueError, naming the paths and the variables to change, for committed files that look like secrets, for what is
    neither a file nor a link, and for a path that is a file in one tree and a folder in another.
    """
    members: dict[str, tuple[int, bytes, str]] = {}
    choices: list[Choice] = []
    for tree in trees:
        root = Path(tree["src"])
        paths = list(chosen(tree, choices))
        refuse_others(root, paths, "The application's folder has")
        for relative in paths:
            name, path = str(Path(tree["dest"]) / relative), root / relative
            if path.is_symlink():
                members[name] = (0o777, b"", os.readlink(path))
            else:
                executable = path.stat().st_mode & 0o100  # git's own rule, whatever the umask was
                members[name] = (0o750 if executable else 0o640, path.read_bytes(), "")
    for name, text in files.items():
        members[name] = (0o640, text.encode(), "")
    for choice in choices:  # what app_build writes may be here too, and be ignored by git
        choice.left_out = {name for name in choice.left_out if not any(f"{path}/".startswith(name) for path in members)}
        said.append(choice.report())
    refuse_both(members)
    return members


def refuse_both(members: Iterable[str]) -> None:
    """Refuse paths that are files or links in one tree and folders in another: a host could not unpack them.

    Raises ValueError, naming them.
    """
    names = set(members)
    both = {str(folder): name for name in sorted(names) for folder in Path(name).parents if str(folder) in names}
    if both:
        told = shown([f"{folder} (a folder because of {name})" for folder, name in both.items()])
        raise ValueError(
            f"The release would have as a file and as a folder: {told}. One is in the application's folder, the other one is written "
            "by app_build or by the deployment. What the commands of app_build write needs a name of its own: a file of the source "
            "that a command removes stays in the release."
        )


def digest(members: dict[str, tuple[int, bytes, str]], salt: dict[str, Any]) -> str:
    """Derive the release id."""
    total = hashlib.sha256(json.dumps(salt, sort_keys=True).encode())
    for name in sorted(members):
        mode, content, link = members[name]
        total.update(f"{name}\0{mode:o}\0{link}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()[:12]


def build(members: dict[str, tuple[int, bytes, str]], release_id: str, path: Path) -> None:
    """Write the file; its last member, C(.release/id), tells that unpacking came to the end.

    Folders are members too, so that the umask of whoever unpacks it counts for none. Others than the release's group may
    pass to C(.release/static), and see nothing on the way.
    """
    partial = path.with_suffix(".partial")
    everything = [*sorted(members.items()), (".release/id", (0o640, release_id.encode(), ""))]
    folders = {str(folder) for name in [*members, ".release/id"] for folder in Path(name).parents}
    with (
        partial.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(folders):
            info = tarfile.TarInfo(f"{release_id}/{name}" if name != "." else release_id)
            info.type, info.mode = tarfile.DIRTYPE, 0o751 if name in (".", ".release") else 0o750
            tar.addfile(info)
        for name, (mode, content, link) in everything:
            info = tarfile.TarInfo(f"{release_id}/{name}")
            info.mode, info.size = mode, len(content)
            if link:
                info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info, io.BytesIO(content))
    partial.replace(path)


def signed(path: Path, key: str) -> str:
    """Return the signature beside a built file; empty if the key did not sign it as it is now."""
    file = path.with_suffix(".sig")
    signature = file.read_text() if path.exists() and file.exists() else ""
    try:
        verify(path, signature, allowed_signers([public_key(key)]), RELEASE)
    except ValueError:
        return ""
    return signature


def write(members: dict[str, tuple[int, bytes, str]], release_id: str, path: Path, key: str) -> str:
    """Have the file at its place, and return its signature. Built files are a cache: to build one again changes nothing.

    Raises ValueError when the key cannot be read, and OSError when the file cannot be written.
    """
    if key:
        public_key(key)
    signature = signed(path, key) if key else ""
    if signature or (path.exists() and not key):
        return signature
    path.parent.mkdir(parents=True, exist_ok=True)
    build(members, release_id, path)
    if key:
        signature = sign(path, key, RELEASE)
        path.with_suffix(".sig").write_text(signature)
    return signature


def main() -> None:
    """Run the module."""
    tree = {
        "src": {"type": "path", "required": True},
        "dest": {"type": "str", "default": ""},
        "exclude": {"type": "list", "elements": "str", "default": []},
        "include": {"type": "list", "elements": "str", "default": []},
        "kind": {"type": "str", "choices": ["all", "checkout", "work_tree", "folder"], "default": "all"},
    }
    module = AnsibleModule(
        argument_spec={
            "trees": {"type": "list", "elements": "dict", "required": True, "options": tree},
            "files": {"type": "dict", "default": {}},
            "salt": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "dest": {"type": "path", "required": True},
            "signing_key": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    for each in module.params["trees"]:
        if not Path(each["src"]).is_dir():
            module.fail_json(msg=f"trees.src is {each['src']!r}, which is not a folder on the controller.")
    said: list[str] = []
    try:
        members = collect(module.params["trees"], module.params["files"], said)
    except ValueError as error:
        module.fail_json(msg=str(error))
    release_id = digest(members, {"salt": module.params["salt"], "secrets": module.params["secrets"]})
    path = Path(module.params["dest"]) / f"{release_id}.tar.gz"
    try:
        signature = write(members, release_id, path, module.params["signing_key"])
    except ValueError as error:
        module.fail_json(msg=f"release_signing_key cannot be used: {error}.")
    except OSError as error:
        module.fail_json(
            msg=f"release_artifact_dir is {module.params['dest']!r}, where releases cannot be kept: {error}"
        )
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    migrations = sorted(name for name in members if fnmatch.fnmatch(name, "*/migrations/[0-9]*.py"))
    module.exit_json(
        changed=False,
        release_id=release_id,
        path=str(path),
        sha256=sha256,
        signature=signature,
        migrations=migrations,
        left_out="\n".join(filter(None, said)),
    )


if __name__ == "__main__":
    main()
