"""What is told of units that systemd calls active and that do no work."""

import pytest
from support.playbooks import output, play
from support.units import current
from waits import wait_for

pytestmark = [pytest.mark.one_host, pytest.mark.changes, pytest.mark.group("workers")]


def test_a_worker_that_may_not_log_in_says_so(inventory, deployment, worker_unit, redis, host):
    if "redis" not in deployment.group_names:
        pytest.skip("the broker runs elsewhere")
    shown = f"systemctl show --property=StatusText --value {worker_unit}"
    try:
        assert redis("ACL SETUSER worker resetpass >another\nCLIENT KILL USER worker").startswith("OK")
        wait_for(lambda: host.check_output(shown).startswith("waiting for the broker: "), 30, "it says that it waits")
        result = play(inventory, "status")
        assert result.returncode != 0, result.stdout
        assert f"{worker_unit} does no work, waiting for the broker: invalid username-password" in output(result)
    finally:
        redis("ACL LOAD")
    wait_for(lambda: host.check_output(shown).startswith("consuming"), 30, "it consumes")


def test_a_worker_that_ends_again_and_again_and_an_old_one_are_told(inventory, deployment, worker_unit, host):
    app, folder = deployment.app_name, "/run/systemd/system"
    old = f"{worker_unit.partition('@')[0]}@000000000000.service"
    try:
        host.check_output(f"cp /etc/systemd/system/{worker_unit} {folder}/{old} && mkdir -p {folder}/{worker_unit}.d")
        host.check_output(
            f"printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' >{folder}/{worker_unit}.d/loop.conf"
        )
        host.check_output(
            f"systemctl daemon-reload && systemctl start {old} && systemctl restart --no-block {worker_unit}"
        )
        restarts = f"systemctl show --property=NRestarts --value {worker_unit}"
        wait_for(lambda: int(host.check_output(restarts)) > 1, 60, "it was started again twice")
        result = play(inventory, "status")
    finally:
        host.check_output(f"systemctl stop {old} && rm {folder}/{old}")
    assert result.returncode != 0, result.stdout
    assert f"{worker_unit} was started again" in output(result) and "status=1/FAILURE" in output(result)
    assert f"{old} runs beside the release {current(host, app)}" in output(result)
