"""Ansible action of the module release_unpack: sends the release's file to a host that does not have the release."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Runs the module where the release did not run before."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        ready = f"{arguments['root']}/releases/{arguments['release']}/.release/ready"
        if self._remote_file_exists(ready):  # it ran: nothing of it is changed
            return {"changed": False, "signer": "", "when": int(time.time())}
        if self._task.check_mode:
            return {"changed": True, "signer": "", "when": int(time.time())}
        folder = self._connection._shell.tmpdir or self._make_tmp_path()  # removed by cleanup(), like any action's
        sent = self._connection._shell.join_path(folder, "release.tar.gz")
        self._transfer_file(str(Path(arguments["src"]).resolve()), sent)
        self._fixup_perms2((folder, sent))
        result: dict[str, Any] = self._execute_module(module_args=arguments | {"src": sent}, task_vars=task_vars)
        return result
