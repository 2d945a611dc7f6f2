"""The reports of `make status`, of a deploy and of one that failed, rendered as Ansible renders them."""

import json
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from support.tutorial import missing, replaced, steps

ROOT = Path(__file__).parents[1]
VERSION = (ROOT / "VERSION").read_text().strip()
OLD, NEW = "0f1e2d3c4b5a", "3050226828af"  # pragma: allowlist secret
TASK = "orders.tasks.charge_order[7d0c9a4e-2f5b-4f0e-9d53-0a4f5f1c2b3a]"
QUEUES = {"critical": {"concurrency": 2}, "bulk": {}}
GROUPS = {"redis": ["app1"], "edge": ["app1"], "web": ["app1", "app2"]}


def unit(part, release=NEW, **changed):
    """One of the units that deploy_state and deploy_end return."""
    name = f"blog-{part}@{release}.service"
    base = {"unit": name, "part": part, "release": release, "state": "active", "doing": "", "restarts": 0, "age": 60}
    return base | {"since": "Thu 2026-11-26 06:00:00 UTC", "ended": ""} | changed


WEB = unit("web", doing="Gunicorn arbiter booted")
DRAINING = unit("worker-critical", OLD, state="draining", doing=f"draining, running {TASK}")
DRAINED = unit("worker-bulk", OLD, state="draining", doing="draining")
STOPPING = unit("worker-mail", OLD, doing="draining")
HISTORY = [
    {"when": 1764136800, "who": "anna@desk", "action": "deploy", "release": NEW, "outcome": "done", "seconds": 42}
    | {"source": "main, 1a2b3c4"},
    {"when": 1764133200, "who": "ben@desk", "action": "rollback", "release": OLD, "outcome": "failed", "seconds": 7}
    | {"reason": "app2: Activate", "source": ""},
    {"when": 1764129600, "who": "ben@desk", "action": "deploy", "release": OLD, "outcome": "did not finish"},
]
STATE = {"current": NEW, "previous": OLD, "releases": [NEW, OLD], "lock": {}, "units": [WEB], "deploys": HISTORY}
BEGUN = {"current": OLD, "migrations": [], "deploy": "d1", "root": "/srv/blog"}


def probes(*notes):
    """What redis-cli prints for `probe_commands`."""
    return {"stdout": "\n".join(["OK", "OK", "1764136900", "500000", *notes])}


def broker(**queues):
    """What redis-cli prints for `broker_commands`."""
    none = {"waiting": 0, "taken": 0, "parked": {}, "letters": 0, "dead": {}}
    return {"stdout": "OK\nOK\n" + json.dumps({name: none | state for name, state in queues.items()})}


@pytest.fixture(scope="module", autouse=True)
def plugins():
    """Let Ansible find the project's filters."""
    init_plugin_loader()
    filter_loader.add_directory(str(ROOT / "plugins/filter"))


def task(playbook, name):
    """Find a task of a playbook."""
    plays = yaml.safe_load((ROOT / "playbooks" / playbook).read_text())
    return next(task for play in plays for task in play["tasks"] if task["name"] == name)


def render(playbook, name, **variables):
    """Render a debug task's message with its own variables; return the lines."""
    loader, found = DataLoader(), task(playbook, name)
    folder = str(ROOT / "playbooks")
    loader.set_basedir(folder)
    own = {key: trust_as_template(value) for key, value in found.get("vars", {}).items()}
    everywhere = {"playbook_dir": folder, "ansible_search_path": [folder], "groups": GROUPS, "celery_queues": QUEUES}
    everywhere |= {"app_broker_host": "app1", "app_managed_lines": []}
    templar = Templar(loader, variables={"ansible_check_mode": False} | everywhere | own | variables)
    return templar.template(trust_as_template(found["ansible.builtin.debug"]["msg"])).splitlines()


def status(first=STATE, **others):
    """Render the report of `make status` for one host, or for several."""
    return render_status(first, others)


def render_status(first=STATE, others=None, **variables):
    """The same with other variables of the deployment."""
    noted = json.dumps({"sent": 1764136890.0, "done": 1764136890.5, "worker": "critical-r1@app1"})
    hosts = {"app1": {"app_state": first, "status_broker": broker(critical={})}} | {
        n: {"app_state": s} for n, s in (others or {}).items()
    }
    hosts["app1"]["status_probes"] = probes("1764136890.0", noted, "", "")
    return render("status.yml", "What runs where", hostvars=hosts, ansible_play_hosts=list(hosts), **variables)


def front(status):
    """Say what the smoke test was answered at the address of the site."""
    return {
        "smoke_further": {"results": [{"item": {"path": page}, "status": status} for page in ("/", "/admin/login/")]}
    }


def deployed(first=None, check=False, said="", report=None, **others):
    """Render the report at the end of a deploy for one host, or for several."""
    base = {
        "release_begun": BEGUN,
        "release_ended": {"units": [WEB], "removed": []},
        "group_names": ["deploy_converge"],
    }
    hosts = {name: base | (changed or {}) for name, changed in ({"app1": first} | others).items()}
    hosts["app1"] = front(200) | {"finish_broker": {"stdout": said}} | hosts["app1"]
    variables = {"app_url": "https://blog.example.com", "release_id": NEW, "ansible_check_mode": check}
    variables |= {"release_report": report} if report else {}
    return render("finish.yml", "What runs now", hostvars=hosts, ansible_play_hosts=list(hosts), **variables)


@pytest.mark.parametrize(
    ("signer", "said"), [("SHA256:x", ""), ("", ", not signed: make secrets creates release_signing_key")]
)
def test_deploy_says_where_its_report_is_and_whether_it_is_signed(signer, said):
    report = {"path": str(ROOT / "playbooks/../.reports/blog-mine/one.html"), "signer": signer}
    assert f"Report       .reports/blog-mine/one.html{said}" in deployed(report=report)
    assert not any(
        line.startswith("Report") for line in deployed(report={"failed": True, "msg": "no space"}) + deployed()
    )


def test_status_of_a_host():
    assert status() == [
        f"Coldframe {VERSION}",
        f"app1: release {NEW}",
        f"  can roll back to: {OLD}; previous: {OLD}",
        f"  blog-web@{NEW}.service                active     since Thu 2026-11-26 06:00:00 UTC  Gunicorn arbiter booted",
        "Queues: each gets a queue probe every 30 s",
        "  critical             done 10 s ago by critical-r1@app1, after 0.5 s",
        "  bulk                 OVERDUE: never done, or more than a day ago; none was sent: does Beat tick?",
        "History (UTC)",
        f"  2025-11-26 06:00:00  anna@desk            deploy   {NEW}  done in 42 s, from main, 1a2b3c4",
        f"  2025-11-26 05:00:00  ben@desk             rollback {OLD}  failed in 7 s (app2: Activate)",
        f"  2025-11-26 04:00:00  ben@desk             deploy   {OLD}  did not finish",
    ]


def test_status_describes_a_providers_servers():
    lines = render_status(app_managed_lines=["broker   redis.example.net:6379: Redis 7.2.4"])
    assert lines[4:7] == [
        "Managed servers",
        "  broker   redis.example.net:6379: Redis 7.2.4",
        "Queues: each gets a queue probe every 30 s",
    ]


def test_status_prints_the_state_draining_once():
    lines = status(STATE | {"units": [DRAINING, DRAINED, STOPPING]})
    since = "since Thu 2026-11-26 06:00:00 UTC"
    assert lines[3] == f"  blog-worker-critical@{OLD}.service    draining   {since}  running {TASK}"
    assert lines[4].rstrip() == f"  blog-worker-bulk@{OLD}.service        draining   {since}"
    assert lines[5].endswith("active     since Thu 2026-11-26 06:00:00 UTC  draining"), (
        "another word than the state stays"
    )


def test_status_of_a_host_that_is_being_deployed_and_of_one_without_a_release():
    lock = {"who": "anna@desk", "since": 1764136800, "deploy": "d1"}
    empty = STATE | {"current": "", "previous": "", "releases": [], "units": []}
    lines = status(STATE | {"lock": lock}, app2=empty)
    assert (
        lines[3]
        == "  deploy lock: anna@desk since 2025-11-26 06:00:00 UTC (if that deploy was interrupted: make unlock)"
    )
    assert lines[5:7] == ["app2: release none", "  can roll back to: none"]


def test_deploy_of_a_host():
    assert deployed() == [
        f"Coldframe {VERSION}",
        "Application  https://blog.example.com",
        "Flower       https://blog.example.com/flower/ as ops, app_flower_password in the vault",
        f"app1: release {NEW} (previously {OLD}), configuration converged",
        f"  blog-web@{NEW}.service                active, Gunicorn arbiter booted",
    ]


def test_deploy_with_monitoring_names_its_page(monkeypatch):
    monkeypatch.setitem(GROUPS, "monitoring", ["app1"])
    assert deployed()[3:5] == [
        "Status       https://blog.example.com/status/ with the same login",
        "Prometheus   https://blog.example.com/prometheus/ with the same login",
    ]


def test_deploy_prints_the_state_draining_once_and_what_was_removed():
    ended = {"units": [DRAINING, DRAINED, unit("beat")], "removed": ["/srv/blog/releases/000000000000"]}
    assert deployed({"release_ended": ended})[4:] == [
        f"  blog-worker-critical@{OLD}.service    draining, running {TASK}",
        f"  blog-worker-bulk@{OLD}.service        draining",
        f"  blog-beat@{NEW}.service               active",
        "  removed /srv/blog/releases/000000000000",
    ]


def test_deploy_that_changes_no_release_and_a_site_without_a_first_page():
    same = {"release_begun": BEGUN | {"current": NEW}, "group_names": []} | front(404)
    lines = deployed(same, said=broker(critical={"letters": 1, "dead": {"x.y": 1}})["stdout"])
    assert lines[1] == "Application  https://blog.example.com (no page at /, 404)"
    assert lines[3] == f"app1: release {NEW} (unchanged), configuration unchanged"
    assert lines[-1] == "  critical             1 dead letters of tasks that no release has: x.y (1)"


def test_dry_run_names_units_queues_and_migrations():
    activated = {"started": [f"blog-web@{NEW}.service"], "stopped": [], "queues": ["bulk", "critical"]}
    begun = {"release_begun": BEGUN | {"current": "", "migrations": ["blog/migrations/0002_x.py"]}}
    ended = {"release_ended": {"units": [], "removed": ["/srv/blog/releases/000000000000"]}}
    lines = deployed(begun | ended | {"release_activated": activated}, check=True, app2=None)
    assert lines[3:9] == [
        f"app1 (dry run): release {NEW} (previously none), configuration converged",
        f"  would start blog-web@{NEW}.service",
        "  would stop nothing",
        "  queues whose workers change: bulk, critical",
        "  new migrations: blog/migrations/0002_x.py",
        "  would remove /srv/blog/releases/000000000000",
    ]
    assert lines[9] == f"app2 (dry run): release {NEW} (previously {OLD}), configuration converged"


def test_failure_of_a_loop_has_each_reason_on_a_line_of_its_own():
    [fail] = [each for each in yaml.safe_load((ROOT / "roles/release/tasks/fail.yml").read_text()) if "vars" in each]
    failed = [{"failed": True, "msg": "no group mail"}, {"msg": "fine"}, {"failed": True, "msg": "no group web"}]
    result = {"msg": "One or more items failed", "results": failed}
    variables = {
        "inventory_hostname": "app1",
        "ansible_failed_task": {"name": "Add groups"},
        "ansible_failed_result": result,
    }
    templar = Templar(DataLoader(), variables=fail["vars"] | variables)
    assert templar.template(trust_as_template(fail["ansible.builtin.fail"]["msg"])).splitlines() == [
        "app1: Add groups:",
        "One or more items failed",
        "no group mail",
        "no group web",
    ]


def test_tutorial_shows_lines_of_the_reports():
    """docs/your-app.md, for a host of its own; the scenario `tutorial` runs its commands."""
    units = [
        unit("beat", doing="ticking"),
        WEB,
        *(unit(f"worker-{each}", doing="consuming") for each in ("default", "mail")),
    ]
    begun = {"release_ended": {"units": units, "removed": []}}
    again = begun | {"group_names": []}
    printed = {
        "7. Deploy": deployed(begun | {"release_begun": BEGUN | {"current": ""}}),
        "8. Look at what runs": status(),
        "9. Change the application, and deploy again": deployed(again),
        "10. Roll back": deployed(again),
    }
    names = {"mysite-": "blog-", "server1": "app1", "www.example.com": "blog.example.com"}
    probe = {"mail   ": "critical", f"mail-{NEW}@app1": "critical-r1@app1"}
    page = steps((ROOT / "docs/your-app.md").read_text())
    seen = [step for step in page if step.heading in printed and step.command.startswith("make ") and step.shown]
    assert len(seen) >= len(printed)
    for step in seen:
        if "ssh" not in step.command:
            shown = [replaced(replaced(line, names), probe) for line in step.shown]
            assert missing(tuple(shown), "\n".join(printed[step.heading])) == "", step.command


def test_removal_names_what_goes_and_what_stays():
    state = STATE | {"deploys": [{"when": 1764136800, "who": "anna@desk"}], "releases": [NEW, OLD], "others": {}}
    variables = {
        "app_name": "blog",
        "app_root": "/srv/blog",
        "app_url": "https://blog.example.com",
        "app_prefix": "blog-",
    }
    groups = {"down_here": ["app1"], "postgresql": ["app1"], "redis": ["app1"], "edge": ["app1"]}

    def report(**changed):
        hosts = {"app1": {"app_state": state | changed}}
        return render("down.yml", "Report what will be removed", hostvars=hosts, **variables | {"groups": groups})

    lines = report()
    assert lines[0] == "blog is to be removed with all its data."
    assert "app1, last deployed 2025-11-26 06:00:00 UTC by anna@desk:" in lines
    assert f"  units       blog-web@{NEW}.service, blog.target" in lines
    assert "  folder      /srv/blog with 2 releases and the uploads (shared/)" in lines
    assert "  Redis       redis-server@blog-broker with the queued tasks, and redis-server@blog-cache" in lines
    assert any(line.startswith("  No other application is there: nginx is stopped") for line in lines)
    assert "  runuser -u postgres -- pg_dump --format=custom blog >/root/blog.dump" in lines
    stays = "  What stays: shop, wiki, with what they need of nginx, PostgreSQL and the firewall."
    assert stays in report(others={"shop": {}, "wiki": {}})
    assert any("last deployed at an unknown time" in line for line in report(deploys=[]))
