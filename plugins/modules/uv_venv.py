#!/usr/bin/python
"""Ansible module: a virtual environment that is exactly a hash-locked requirements file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: uv_venv
short_description: Builds a read-only virtual environment from a hash-locked requirements file
description:
  - Builds the environment once with uv; a stamp inside tells that it is whole and from which lock.
  - A build that was cut off is begun again. An environment in use is never changed.
options:
  path: {description: Where the environment goes., type: path, required: true}
  requirements: {description: The lock file on the host., type: path, required: true}
  uv: {description: The uv program., type: path, default: /opt/uv/bin/uv}
  python: {description: The interpreter., type: path, default: /usr/bin/python3}
  index_url: {description: "Package index; uv's own default when empty.", type: str, default: ""}
author: Coldframe
"""

EXAMPLES = r"""
- uv_venv: {path: /srv/shop/venvs/3f2a9c1b7d04, requirements: /srv/shop/releases/1/requirements.txt}
"""

import hashlib
import os
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "requirements": {"type": "path", "required": True},
            "uv": {"type": "path", "default": "/opt/uv/bin/uv"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "index_url": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    path, lock = Path(module.params["path"]), Path(module.params["requirements"])
    stamp = path / ".lock-sha256"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else "not there yet"
    if stamp.exists() and stamp.read_text() == wanted:
        module.exit_json(changed=False)
    if module.check_mode:
        module.exit_json(changed=True)
    if not lock.exists():
        module.fail_json(msg=f"requirements is {lock}, which is not on the host.")

    shutil.rmtree(path, ignore_errors=True)
    os.umask(0o022)
    environment = {
        "UV_CACHE_DIR": "/var/cache/uv",
        "UV_SYSTEM_CERTS": "1",  # a company's own authority counts where the host trusts it
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    if module.params["index_url"]:
        environment["UV_DEFAULT_INDEX"] = module.params["index_url"]
    uv = module.params["uv"]
    create = [uv, "venv", "--quiet", "--python", module.params["python"], str(path)]
    # No source builds: a build runs the package's code as root, and needs compilers.
    install = [uv, "pip", "sync", "--quiet", "--require-hashes", "--no-build", "--compile-bytecode"]
    for arguments in (create, [*install, "--python", str(path), str(lock)]):
        code, _, errors = module.run_command(arguments, environ_update=environment)
        if code:
            module.fail_json(msg=f"The environment of {lock} was not built: {errors.strip()}", rc=code)
    (path / ".lock").unlink(missing_ok=True)  # uv's, and writable by everyone
    stamp.write_text(wanted)
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
