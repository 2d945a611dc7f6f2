"""Secrets that commands print: each command runs once, and one that fails is named."""

import json
import os
import subprocess
from pathlib import Path

import inventory
import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

ROOT = Path(__file__).parents[1]
SECRETS = sorted(name for name, option in inventory.specs(str(ROOT)).items() if option.get("no_log"))
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.import_tasks": str(ROOT / "playbooks/tasks/variables.yml")},
            {"ansible.builtin.debug": {"msg": "{{ query('ansible.builtin.vars', *secrets) }}"}},
            {"ansible.builtin.debug": {"msg": "{{ query('ansible.builtin.vars', *secrets) }}"}},
        ],
    }
]
APP = {
    "app_name": "blog",
    "app_source": "/srv/blog",
    "app_settings_module": "blog.settings",
    "app_wsgi": "blog.wsgi:application",
    "app_celery": "blog.celery:app",
    "app_url": "https://blog.example.org",
    "celery_queues": {"default": {}},
    "smoke_request": {"path": "/"},
}


def test_names_that_no_variable_can_have_are_left_to_the_check():
    """As in YAML, where `on` and 404 are no text."""
    inventory_file = {True: "x", 404: "x", "sandbox_x-y": "x", "sandbox_name": "a", "app_secret_key": "k"}
    assert inventory.worked_out_once(inventory_file, str(ROOT)) == {"sandbox_name": "a", "app_secret_key": "k"}


def value(name):
    """Make a value of the secret's type."""
    match inventory.specs(str(ROOT))[name]:
        case {"options": options}:
            return {part: f"{part} of {name}" for part in options}
        case {"type": "dict"}:
            return {"web": f"{name}-1", "worker": f"a{{{{b}}}}{{%{name}"}
        case {"choices": choices}:
            return choices[-1]
        case _ if name.endswith("_url"):
            return f"https://hooks.example.net/{name}"
        case _ if "_signing_key" in name:
            frame = "-----{} OPENSSH PRIVATE KEY-----"
            return "\n".join((frame.format("BEGIN"), f"{name}:a{{{{b}}}}#{{%", frame.format("END")))
        case _:
            return f"{name}:a{{{{b}}}}#{{%"


@pytest.fixture
def run(tmp_path):
    """Check variables and read the secrets twice; return how it ended, what the play saw and which commands ran."""

    def run(variables):
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"one": None}, "vars": APP | variables}}))
        folder = tmp_path / "playbooks"
        folder.mkdir(exist_ok=True)
        for name in ("roles", "plugins"):  # the tasks find the project beside the playbook
            links(ROOT / name, tmp_path / name)
        for path in (ROOT / "playbooks").iterdir():
            links(path, folder / path.name)
        play = [PLAY[0] | {"vars": {"secrets": list(variables)}}]
        (folder / "play.yml").write_text(json.dumps(play))
        environment = {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_STRATEGY": "linear",
        }
        done = subprocess.run(
            ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), str(folder / "play.yml")],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        tasks = [task["hosts"]["one"] for task in json.loads(done.stdout)["plays"][0]["tasks"] if "hosts" in task]
        ran = tmp_path / "ran"
        return done, tasks, ran.read_text().split() if ran.exists() else []

    return run


def links(path, link):
    """Have a link there."""
    link.unlink(missing_ok=True)
    link.symlink_to(path)


def command(folder, name, text):
    """A lookup that prints a text, and notes that it ran."""
    file = folder / f"{name}.txt"
    file.write_text(text)
    return f"lookup('ansible.builtin.pipe', 'echo {name} >>{folder}/ran; cat {file}')"


def test_every_secret_may_be_what_a_command_prints_and_the_command_runs_once(tmp_path, run, monkeypatch):
    assert len(SECRETS) > 8
    for name in ("broker", "cache"):  # whose passwords are among the secrets
        monkeypatch.setitem(APP, f"app_{name}_url", f"rediss://{name}.example.net")
    values = {name: value(name) for name in SECRETS}
    given = {
        name: f"{{{{ {command(tmp_path, name, json.dumps(values[name]))} | from_json }}}}"
        if isinstance(values[name], dict)
        else f"{{{{ {command(tmp_path, name, values[name])} }}}}"
        for name in SECRETS
    }
    given["app_secrets"] = {
        "TOKEN": f"{{{{ {command(tmp_path, 'TOKEN', 'a{{b}}')} }}}}",
        "PLAIN": "as it stands",
    }
    values["app_secrets"] = {"TOKEN": "a{{b}}", "PLAIN": "as it stands"}
    done, tasks, ran = run(given)
    assert done.returncode == 0, done.stdout
    assert "censored" in str(tasks[0]) and not any(str(values[name]) in str(tasks[0]) for name in SECRETS)
    for seen in tasks[-2:]:
        assert dict(zip(given, seen["msg"], strict=True)) == values
    assert sorted(ran) == sorted(({*SECRETS} - {"app_secrets"}) | {"TOKEN"})


def test_command_that_fails_is_named_with_its_variable_and_without_what_it_printed(run):
    failing = "{{ lookup('ansible.builtin.pipe', 'echo sesame; exit 3') }}"
    given = {
        "app_secret_key": failing,
        "app_secrets": {"TOKEN": failing, "OTHER": "x"},
        "app_redis_passwords": "{{ nowhere.redis }}",
        "app_database_password": "{{ lookup('ansible.builtin.pipe', 'no-such-program get x') }}",
        "app_flower_password": "{{ lookup('ansible.builtin.pipe', 'true') }}",
    }
    done, tasks, _ = run(given)
    assert done.returncode != 0
    said = tasks[-1]["msg"].splitlines()
    status = "cannot be worked out: the command that prints it ended with the status"
    assert f"app_secret_key {status} 3. Run it by hand to see why." in said
    assert f"app_secrets.TOKEN {status} 3. Run it by hand to see why." in said
    assert f"app_database_password {status} 127. Run it by hand to see why." in said
    assert any(line.startswith("app_redis_passwords cannot be worked out: ") for line in said)
    assert not any("OTHER" in line for line in said)
    assert "sesame" not in done.stdout + done.stderr


@pytest.mark.parametrize("vault", [True, False])
def test_app_secrets_in_two_files_is_refused_with_both_and_what_to_do(tmp_path, run, monkeypatch, vault):
    """The later one alone would count, also where it is encrypted."""
    folder = tmp_path / "group_vars/all"
    folder.mkdir(parents=True)
    (folder / "app.yml").write_text("app_secrets:\n  STRIPE_KEY: sesame\n")
    assert run({})[0].returncode == 0, "one file"
    later = "app_secrets: {MAIL_KEY: sesame}\n"
    if vault:
        (tmp_path / "password").write_text("open\n")
        monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "password"))
        later = VaultLib([("default", VaultSecret(b"open"))]).encrypt(later).decode()
    (folder / ("vault.yml" if vault else "secrets.yml")).write_text(later)
    done, tasks, _ = run({})
    assert done.returncode != 0 and "sesame" not in done.stdout + done.stderr
    name = "vault" if vault else "secrets"
    assert tasks[-1]["msg"] == (
        f"app_secrets is in group_vars/all/app.yml and group_vars/all/{name}.yml of {tmp_path}, and one file alone counts: "
        f"remove it from group_vars/all/app.yml, and give each secret that was there by 'make secrets ENV={tmp_path} SET=NAME'."
    )


def test_inventory_without_secrets_is_left_to_the_check(run):
    done, tasks, _ = run({})
    assert done.returncode == 0, "a secret that is missing is said by the preflight"
    assert not any(task.get("failed") for task in tasks)
