"""What every server has."""

import subprocess

import pytest


def test_security_updates_are_installed_every_day(host):
    settings = host.check_output("apt-config dump APT::Periodic")
    for name in ("Update-Package-Lists", "Unattended-Upgrade"):
        assert f'APT::Periodic::{name} "1";' in settings
    chosen = host.check_output("unattended-upgrade --dry-run --verbose 2>&1 | grep -i 'allowed origins'")
    assert "security" in chosen.lower()
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert host.check_output(f"systemctl is-enabled {timer}") == "enabled"


def test_clock_is_kept(host):
    """A container has its host's clock, so the service is enabled there and no more."""
    names = "systemd-timesyncd chrony ntpsec openntpd"
    assert "enabled" in host.run(f"systemctl is-enabled {names}").stdout.split()


def test_ssh_takes_no_password(host, deployment):
    if not deployment.base_ssh_hardening:
        pytest.skip("base_ssh_hardening is off")
    settings = set(host.check_output("sshd -T").splitlines())
    assert {"passwordauthentication no", "kbdinteractiveauthentication no"} <= settings
    assert "permitrootlogin without-password" in settings or "permitrootlogin prohibit-password" in settings
    if not deployment.sandbox_state:
        return
    config = f"{deployment.sandbox_state}/ssh_config"
    options = ["-F", config, "-o", "PubkeyAuthentication=no", "-o", "ControlPath=none", "-o", "BatchMode=no"]
    name = host.backend.get_hostname()
    result = subprocess.run(
        ["ssh", *options, name, "true"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert result.returncode == 255 and "Permission denied (publickey)" in result.stderr
