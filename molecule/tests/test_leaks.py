"""Where secrets pass through: what Ansible tells, what runs, what is kept. None of them stands there."""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import urllib.parse

import pytest
import yaml
from support.playbooks import ROOT, play
from support.units import current

pytestmark = [pytest.mark.one_host, pytest.mark.changes, pytest.mark.group("web")]
KEY = "\n".join(
    ["-----BEGIN PART-----", *(f"{hashlib.sha256(bytes([n])).hexdigest()}" for n in range(3)), "-----END PART-----"]
)


def other(name):
    """A strong value, the same in each run."""
    return base64.b32encode(hashlib.sha256(name.encode()).digest()).decode().lower()[:52]


def secrets(deployment):
    """Another value for each secret."""
    changed = {name: other(name) for name in ("app_secret_key", "app_database_password", "app_flower_password")}
    return changed | {"app_redis_passwords": {user: other(user) for user in deployment.app_redis_passwords}}


def forms(variables, deployment):
    """Each secret that is deployed or to be deployed, as it may show: itself, encoded, hashed; a long one line by line."""
    kept = ("app_secret_key", "app_database_password", "app_flower_password", "app_redis_passwords")
    values = [*(deployment.variables[name] for name in kept), *variables.values()]
    flat = [text for value in values for text in (value.values() if isinstance(value, dict) else [value])]
    lines = {line for text in flat for line in text.split("\n") if "-----" not in line}
    found = set(lines)
    for line in lines | set(flat):
        found |= {base64.b64encode(line.encode()).decode().rstrip("="), urllib.parse.quote(line, safe="")}
        found |= {hashlib.sha256(line.encode()).hexdigest()}
    return {form for form in found if "\n" not in form}


@pytest.fixture
def watched(shell):
    """Look all the time what the processes of the host were given; return how often a secret was seen."""

    def start(patterns):
        shell(
            "umask 077; cat >/run/coldframe-patterns <<'END'\n" + "\n".join(patterns) + "\nEND\n"
            "systemd-run --quiet --unit=coldframe-watch sh -c '"
            "while :; do grep -sHaoF -f /run/coldframe-patterns /proc/[0-9]*/cmdline /proc/[0-9]*/environ | cut -c1-60; "
            "sleep 0.1; done >/run/coldframe-seen'\n"
        )

    yield start
    shell("systemctl stop coldframe-watch; rm -f /run/coldframe-patterns /run/coldframe-seen")


def run(inventory, tmp_path, playbook, variables, *arguments):
    """Run a playbook that tells all that it can; variables come from a file, for arguments can be seen."""
    file = tmp_path / "variables.yml"
    file.write_text(yaml.safe_dump(variables))
    result = play(inventory, playbook, "-e", f"@{file}", "-vvv", "--diff", *arguments)
    assert result.returncode == 0, result.stdout[-3000:]
    return result.stdout + result.stderr


def told(output, patterns):
    """The lines of an output that tell a secret."""
    return [line[:200] for line in output.splitlines() if any(pattern in line for pattern in patterns)]


def work_tree(deployment, tmp_path, files):
    """The application in a work tree, with files beside it: git ignores the first and does not know the others."""
    folder = tmp_path / "app"
    shutil.copytree(deployment.app_source, folder, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    for name, text in files.items():
        (folder / name).write_text(f"SECRET={text}\n")
    (folder / ".gitignore").write_text(f"/{next(iter(files))}\n")
    return folder


@pytest.mark.thorough
def test_a_foretold_change_of_every_secret_tells_none(deployment, inventory, tmp_path):
    changed = secrets(deployment)
    output = run(inventory, tmp_path, "site", changed, "--check")
    for task in (
        "Write the access lists",
        "Write the secrets of Flower",
        "Create the logins",
        "Write the secrets, the folders",
    ):
        assert task in output
    assert told(output, forms(changed, deployment)) == []


def test_a_release_with_other_secrets_tells_none_and_keeps_them_where_they_belong(
    host, deployment, inventory, tmp_path, shell, watched, manage
):
    app, before = deployment.app_name, current(host, deployment.app_name)
    changed = {"app_secret_key": other("next"), "app_secrets": {"api_key": other("api"), "signing_key": KEY}}
    folder = work_tree(deployment, tmp_path, {".env": other("dotenv"), "deploy.key": other("key")})
    patterns = forms(changed, deployment) | {other("dotenv"), other("key")}
    watched(patterns)
    try:
        output = run(inventory, tmp_path, "deploy", changed | {"app_source": str(folder)})
        after = current(host, app)
        assert after != before
        assert "Left out of the release: what looks like a secret (.env, deploy.key)" in output
        assert shell(f"cat /etc/credstore/{app}/{after}/signing_key") == KEY
        assert told(output, patterns) == []
        assert shell("cat /run/coldframe-seen") == ""
        places = f"/srv/{app} /etc/systemd /etc/redis /etc/nginx /var/lib/coldframe /var/log /tmp /var/tmp /run/systemd/system"
        assert shell(f"grep -rlsF -f /run/coldframe-patterns {places} | grep -v acl$") == ""
        assert shell("journalctl --no-pager --output=cat --since=-10min | grep -F -f /run/coldframe-patterns") == ""
        assert shell("systemctl show '*' --all | grep -F -f /run/coldframe-patterns") == ""
        with tarfile.open(ROOT / f".cache/releases/{after}.tar.gz") as kept:
            for member in filter(tarfile.TarInfo.isfile, kept):
                content = kept.extractfile(member).read()
                assert not any(pattern.encode() in content for pattern in patterns), member.name
    finally:
        back = play(inventory, "rollback", "-e", json.dumps({"release_rollback_to": before}))
    assert current(host, app) == before, back.stdout
    assert manage("print('runs')") == "runs", "what runs by hand goes by its release's secrets, too"
