#!/usr/bin/python
"""Ansible module: the application's folder on the controller, from a repository where one is named."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_source
short_description: Finds the application's folder, or checks it out, and says what it is
description:
  - With O(repository), checks O(version) out into a folder that is named after the commit and never changed again.
  - History is fetched into O(cache) once, then only what is new; nothing for a whole commit id that is there already.
  - Nothing but the cache is touched, so it does the same in check mode.
options:
  folder: {description: The application's folder; not used with O(repository)., type: str, default: ""}
  repository: {description: A git repository's address or path., type: str, default: ""}
  version: {description: "A tag, a branch or a commit of it.", type: str, default: ""}
  repository_folder: {description: The application's folder inside of it., type: str, default: ""}
  cache: {description: Folder for history and checkouts., type: path, required: true}
author: Coldframe
"""

EXAMPLES = r"""
- release_source: {repository: git@git.example.com:shop.git, version: v1.2, cache: .cache/sources}
"""

RETURN = r"""
path: {description: The application's folder., type: str, returned: always}
kind: {description: "C(checkout), C(work_tree) or C(folder): who says what of it is source; for M(release_artifact).", type: str, returned: always}
description: {description: "Where it is from, for people: 'v1.2 (3f2a9c1b7d04)'.", type: str, returned: always}
"""

import fcntl
import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe_files import git, in_work_tree

SHORT = 12  # digits of a commit that people are shown


def without_credentials(text: str) -> str:
    """Hide the user and the password of web addresses."""
    return re.sub(r"(https?://)[^/@\s]*@", r"\1***@", text)


def commit_of(store: Path, version: str) -> str:
    """Return the commit that a tag, a branch or a commit id names in a repository; empty when none does."""
    names = [f"refs/tags/{version}", f"refs/heads/{version}"]
    for name in [*names, version] if re.fullmatch(r"[0-9a-f]{4,40}", version) else names:
        try:
            return git("--git-dir", store, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        except subprocess.CalledProcessError:
            continue
    return ""


def checkout(repository: str, version: str, cache: Path) -> tuple[str, Path]:
    """Return the commit of a version, and the folder that holds its files.

    Raises ValueError, naming the variable to change, when there is no such repository or version.
    """
    if re.fullmatch(r"[0-9a-f]{40}", version) and (cache / version).is_dir():
        return version, cache / version
    shown = without_credentials(repository)
    store = cache / f"{hashlib.sha256(repository.encode()).hexdigest()[:SHORT]}.git"
    store.mkdir(parents=True, exist_ok=True)
    with (store / "coldframe.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another deploy from this folder may be fetching
        git("init", "--quiet", "--bare", store)
        branches_and_tags = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        fetch = ("fetch", "--quiet", "--prune", "--no-write-fetch-head", "--end-of-options", repository)
        try:
            git("--git-dir", store, *fetch, *branches_and_tags)
        except subprocess.CalledProcessError as error:
            raise ValueError(
                f"app_repository is {shown!r}, which git cannot read: {without_credentials(error.stderr.strip())}\n"
                f"It must be a repository that 'git ls-remote {shown}' can list on the controller without asking for a password."
            ) from error
        commit = commit_of(store, version)
        if not commit:
            newest = ("for-each-ref", "--sort=-creatordate", "--count=5", "--format=%(refname:lstrip=2)")
            there = git("--git-dir", store, *newest, "refs/heads", "refs/tags").split()
            raise ValueError(
                f"app_version is {version!r}, which is no branch, tag or commit of app_repository ({shown}). "
                f"The newest there: {', '.join(there) or 'nothing, it is empty'}."
            )
        if not (cache / commit).exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix=".") as partial:
                tree = Path(partial, "tree")
                tree.mkdir()
                to_tree = ("-C", tree, "--git-dir", store, "--work-tree", tree)
                git(*to_tree, "checkout", "--force", commit, "--", ".", GIT_INDEX_FILE=f"{partial}/index")
                tree.rename(cache / commit)
    return commit, cache / commit


def state_of(folder: Path) -> str:
    """Say which commit a folder is at, and whether it was changed since; empty when git does not know it."""
    try:
        commit = git("-C", folder, "rev-parse", "HEAD")[:SHORT]
        return commit + ("+changes" if git("-C", folder, "status", "--porcelain", "--", ".") else "")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return ""


def source(folder: str, repository: str, version: str, repository_folder: str, cache: Path) -> tuple[Path, str]:
    """Return the application's folder and where it is from.

    Raises ValueError, naming the variable to change, when it cannot be had.
    """
    if not repository:
        if not folder:
            raise ValueError(
                "app_source and app_repository are both empty: set app_source to the application's folder on the "
                "controller, or app_repository and app_version to a git repository and what to take from it."
            )
        if version or repository_folder:
            raise ValueError(
                f"app_version is {version!r} and app_repository_folder {repository_folder!r}, while app_repository is "
                "empty and app_source would be deployed as it is: set app_repository, or take them out."
            )
        state = state_of(Path(folder))
        return Path(folder), f"{folder} ({state})" if state else folder
    if not version:
        shown = without_credentials(repository)
        raise ValueError(f"app_version is '': it must be a branch, a tag or a commit of app_repository ({shown}).")
    commit, top = checkout(repository, version, cache)
    if not (top / repository_folder).is_dir():
        raise ValueError(
            f"app_repository_folder is {repository_folder!r}, and app_version {version!r} has no such folder. "
            f"It has: {', '.join(sorted(p.name for p in top.iterdir() if p.is_dir())) or 'none'}."
        )
    return top / repository_folder, commit[:SHORT] if commit.startswith(version) else f"{version} ({commit[:SHORT]})"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "str", "default": ""},
            "repository": {"type": "str", "default": ""},
            "version": {"type": "str", "default": ""},
            "repository_folder": {"type": "str", "default": ""},
            "cache": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        path, description = source(**module.params | {"cache": Path(module.params["cache"]).resolve()})
        kind = "checkout" if module.params["repository"] else "work_tree" if in_work_tree(path) else "folder"
    except ValueError as error:
        module.fail_json(msg=str(error))
    except FileNotFoundError:
        module.fail_json(msg="app_repository is set, and there is no git on the controller: install the package git.")
    except subprocess.CalledProcessError as error:
        module.fail_json(msg=f"{' '.join(error.cmd)}: {without_credentials(error.stderr.strip())}")
    module.exit_json(changed=False, path=str(path), description=description, kind=kind)


if __name__ == "__main__":
    main()
