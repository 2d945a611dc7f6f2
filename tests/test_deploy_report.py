"""A deploy leaves a signed report without secrets, and what was changed in it is noticed."""

import json
import os
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import deploy_report as kept
import pytest
import release_report as reports
from ansible.module_utils.coldframe_signatures import REPORT, allowed_signers, fingerprint, sign
from deploy_end import artifact, exposure, packages
from reports import deploy_report, report_packages
from support.playbooks import PLAIN

ROOT = Path(__file__).parents[1]
TEMPLATE = (ROOT / "playbooks/templates/report.html.j2").read_text()
NEW, OLD = "3f2a9c1b7d04", "0f1e2d3c4b5a"  # pragma: allowlist secret
WEB = f"shop-web@{NEW}.service"
SECRETS = {"api": "dG9wLXNlY3JldC1hcGk", "key": "first line of a key\nsecond line of a key\n", "short": "no"}
FACTS = {
    "application": "shop",
    "version": "0.9.0",
    "action": "deploy",
    "outcome": "done",
    "release": NEW,
    "source": "main (1a2b3c4)",
    "sha256": "5" * 64,
}
FACTS |= {
    "contract": ["visibility timeout 3600 s"],
    "tasks": {"problems": [], "notes": ["shop.tasks.mail was not read"]},
}


def host(**changed):
    """What Ansible knows of a host after a deploy."""
    drains = {"state": "draining", "doing": "draining, running shop.tasks.mail[5c1e]"}
    units = [{"unit": WEB, "state": "active", "doing": ""}, {"unit": f"shop-worker-bulk@{OLD}.service"} | drains]
    known = {
        "group_names": ["web"],
        "app_state": {"when": 100},
        "release_begun": {"who": "anna@desk", "when": 130, "current": OLD, "converge": False},
        "release_unpacked": {"changed": True, "when": 131},
        "release_prepared": {
            "collected": True,
            "plan": [{"migration": "blog.0002_x"}],
            "applied": ["blog.0002_x"],
            "report": [],
        },
        "release_environment": {"changed": False},
        "release_activated": {"when": 140, "until": 150, "started": [WEB], "stopped": [f"shop-web@{OLD}.service"]},
        "release_ended": {
            "when": 155,
            "until": 156,
            "units": units,
            "exposure": {WEB: 0.2},
            "removed": [],
            "artifact": {"signer": "SHA256:x", "lock_sha256": "6" * 64},
        },
        "smoke_answer": {"status": 201, "failed": False},
        "smoke_task": {"status": 200, "failed": False, "attempts": 2},
        "smoke_further": {"results": [{"status": 302, "failed": False, "item": {"path": "/"}}]},
    }
    return known | changed


@pytest.fixture
def key(tmp_path):
    """A private and its public key."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", tmp_path / "key"], check=True)
    return (tmp_path / "key").read_text(), (tmp_path / "key.pub").read_text().strip()


def test_document_says_what_was_done_on_each_host():
    other = {"group_names": ["workers", "deploy_converge"], "app_state": {"when": 100}}
    document = deploy_report({"app1": host(), "app2": other}, FACTS, SECRETS)
    assert document["when"] == "1970-01-01T00:02:10Z" and document["who"] == "anna@desk"
    assert (document["source"], document["sha256"], document["lock_sha256"]) == ("main (1a2b3c4)", "5" * 64, "6" * 64)
    assert document["migrations"] == {"judged": ["blog.0002_x"], "applied": ["blog.0002_x"], "notes": []}
    first, second = document["hosts"].values()
    assert first["changed"] == {"configuration": False, "files": True, "packages": False, "static_files": True}
    assert first["seconds"] == {"preflight": 30, "services": 1, "place": 9, "activate": 10, "check": 5, "finish": 1}
    assert document["watch"] == {"seconds": 0, "tasks": [], "problems": [], "notes": []}
    assert first["smoke"] == {"requests": 3, "failed": 0}
    assert first["draining"] == [f"shop-worker-bulk@{OLD}.service"] and first["before"] == OLD
    assert (first["draining_tasks"], second["draining_tasks"]) == (1, 0)
    assert [unit["exposure"] for unit in first["units"]] == [0.2, None]
    assert [unit["doing"] for unit in first["units"]] == ["", "running shop.tasks.mail[5c1e]"]
    assert report_packages({"app1": {"release_ended": {"packages": PACKAGES}}, "app2": other}) == {
        "app1": PACKAGES,
        "app2": {},
    }
    assert second["changed"]["configuration"] and second["seconds"] == {} and second["units"] == []


@pytest.mark.parametrize(
    ("doing", "tasks"),
    [
        ("draining", 0),
        ("draining, running a.b[1], c[2-3]", 2),
        ("waiting for the broker: no, running shoes[1] at 10.0.0.1, running a[1]", 1),
        ("draining, running a[1] and 190 more", 191),
        ("draining, running a[1], parking b, returning c.d", 1),
    ],
)
def test_tasks_that_a_worker_has_to_finish_are_counted(doing, tasks):
    units = [{"unit": f"shop-worker-{each}@1.service", "state": "draining", "doing": doing} for each in ("a", "b")]
    ended = {"units": [*units, {"unit": WEB, "state": "active", "doing": "consuming, running a[1]"}]}
    (told,) = deploy_report({"app1": host(release_ended=ended)}, FACTS, {})["hosts"].values()
    assert told["draining_tasks"] == 2 * tasks


def test_rollback_says_what_the_host_noted_of_the_release():
    noted = {"artifact": {"sha256": "7" * 64, "source": "v1 (5d6e7f8)", "signer": "", "lock_sha256": "8" * 64}}
    known = host(release_unpacked=None, release_prepared=None, release_ended=noted)
    document = deploy_report({"app1": known}, FACTS | {"action": "rollback", "source": "", "sha256": ""}, {})
    assert (document["source"], document["sha256"]) == ("v1 (5d6e7f8)", "7" * 64)
    assert document["hosts"]["app1"]["seconds"] == {"preflight": 30, "services": 10, "activate": 10}
    assert not document["hosts"]["app1"]["changed"]["files"]


def planted(value, secret):
    """The same with a secret at the end of every text."""
    if isinstance(value, dict):
        return {name: planted(each, secret) for name, each in value.items()}
    if isinstance(value, list):
        return [planted(each, secret) for each in value]
    return f"{value} {secret}" if isinstance(value, str) else value


@pytest.mark.parametrize("name", ["api", "key"])
def test_no_secret_is_in_any_file_of_a_report(tmp_path, key, name):
    facts = planted(FACTS, SECRETS[name]) | {"action": "deploy", "release": NEW}
    document = deploy_report({"app1": planted(host(), SECRETS[name])}, facts, [SECRETS, {"other": "x" * 20}])
    files = reports.write(document, TEMPLATE, tmp_path / "out", key[0])
    assert len(files) == 6
    text = "\n".join(file.read_text() for file in files)
    assert "(secret)" in text and "anna@desk" in text and "main (1a2b3c4)" in text
    for line in [SECRETS[name], *SECRETS[name].splitlines(), *key[0].splitlines()[1:-1]]:
        assert line not in text
    document = deploy_report({"app1": planted(host(), SECRETS[name])}, facts, {})
    assert SECRETS[name].splitlines()[0] in json.dumps(document), "it is there where nobody looks for it"


class Page(HTMLParser):
    """What a page loads, and its text."""

    def __init__(self):
        """Begin with nothing."""
        super().__init__()
        self.tags, self.loaded, self.text = set(), [], ""

    def handle_starttag(self, tag, attrs):
        """Remember it."""
        self.tags.add(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data):
        """Remember it."""
        self.text += data


PACKAGES = {
    "python": {"Django": "5.2.1", "zope.interface": "7.0", "sneaked_in": "1.0"},
    "lock": "django==5.2.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via x\nzope-interface==7.0 ; python_version > '3' --hash=sha256:cc\nunused==1.0\n",
    "debian": {"libc6": "2.36-9+deb12u9"},
    "debian_version": "12",
}


def test_bill_of_materials_has_what_is_installed_and_the_digests_of_the_lock_file():
    document = deploy_report({"app1": host()}, FACTS, {})
    bill = json.loads(reports.bill(document, {"app1": PACKAGES, "app2": PACKAGES | {"debian": {}}, "redis": {}}))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"] | {"name": "shop", "version": NEW} == bill["metadata"]["component"]
    found = {
        each["purl"]: [(each["name"], each["value"]) for each in each["properties"]] for each in bill["components"]
    }
    assert set(found) == {
        "pkg:pypi/django@5.2.1",
        "pkg:pypi/zope-interface@7.0",
        "pkg:pypi/sneaked-in@1.0",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?distro=debian-12",
    }
    django = [
        ("coldframe:hosts", "app1 app2"),
        ("coldframe:lock-hash", "sha256:aa"),
        ("coldframe:lock-hash", "sha256:bb"),
    ]
    assert sorted(found["pkg:pypi/django@5.2.1"]) == [*django, ("coldframe:locked", "yes")]
    assert ("coldframe:locked", "no") in found["pkg:pypi/sneaked-in@1.0"]
    assert ("coldframe:hosts", "app1") in found["pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?distro=debian-12"]


def test_host_lists_its_packages(tmp_path):
    class Module:
        def run_command(self, command):
            assert command[0] == "dpkg-query"
            return 0, "installed libc6 2.36-9\nconfig-files old 1.0\n", ""

    (tmp_path / ".venv/lib/python3.13/site-packages/Django-5.2.1.dist-info").mkdir(parents=True)
    found = packages(Module(), tmp_path)
    assert found["python"] == {"Django": "5.2.1"} and found["debian"] == {"libc6": "2.36-9"} and found["lock"] == ""


def test_page_is_self_contained_and_shows_markup_as_text():
    document = deploy_report({"app1": host()}, FACTS | {"source": "<script>alert(1)</script>"}, {})
    page = Page()
    page.feed(reports.page(document, TEMPLATE))
    assert page.loaded == [] and "script" not in page.tags and "link" not in page.tags
    for shown in (
        "<script>alert(1)</script>",
        NEW,
        "anna@desk",
        "blog.0002_x",
        "visibility timeout 3600 s",
        WEB,
        "draining, running shop.tasks.mail[5c1e]",
        f"shop-worker-bulk@{OLD}.service: 1 task to finish",
        "0.2",
        "preflight 30",
    ):
        assert shown in page.text, shown


def test_long_lists_are_counted_and_folded():
    document = deploy_report({"app1": host()}, FACTS, {})
    for number, short in ((10, True), (11, False)):
        document["migrations"]["applied"] = [f"blog.{each:04}_x" for each in range(number)]
        page = Page()
        page.feed(reports.page(document, TEMPLATE))
        assert "blog.0009_x" in page.text and ("details" not in page.tags) == short
        line = next(line for line in reports.summary(document) if "migrations" in line)
        assert line.endswith("blog.0008_x, blog.0009_x" if short else "applied: 11, which the page lists")


def test_report_of_a_release_that_broke_a_budget_compares_its_tasks():
    now, before = {"done": 4, "failed": 9, "seconds": 0.2}, {"done": 4000, "failed": 1, "seconds": 0.1}
    watched = {
        "watched": 31,
        "tasks": [{"task": "blog.send", "now": now, "before": before}],
        "problems": ["blog.send fails: <9> of 13."],
        "notes": ["2 messages of blog.sign came."],
    }
    hosts = {"app1": host(release_watched={"skipped": True}), "app2": host(release_watched=watched)}
    document = deploy_report(hosts, FACTS | {"outcome": "restored"}, {})
    assert document["watch"]["seconds"] == 31 and document["outcome"] == "restored"
    page = Page()
    page.feed(reports.page(document, TEMPLATE))
    for shown in (
        "Tasks in the 31 s",
        "blog.send",
        "4000",
        "blog.send fails: <9> of 13.",
        "was restored",
        "blog.sign came.",
    ):
        assert shown in page.text, shown
    said = reports.summary(document)
    assert said[0].endswith(": the previous release was restored") and "    blog.send fails: <9> of 13." in said
    assert "    2 messages of blog.sign came." in said


@pytest.fixture
def copies(tmp_path, key):
    """What two hosts keep of a report that was signed."""
    folder = tmp_path / "state/reports"
    files = reports.write(
        deploy_report({"app1": host(), "app2": host()}, FACTS, {}), TEMPLATE, tmp_path / "out", key[0]
    )
    kept.keep(folder, {file.name: file.read_text() for file in files})
    name, found = kept.read(folder, "")
    return {each: {"name": name, "files": dict(found)} for each in ("app1", "app2")}


def shown(copies, folder, *publics):
    return reports.show(copies, allowed_signers(list(publics)), folder / "shown")


def test_right_copy_is_shown_and_stored(tmp_path, key, copies):
    result = shown(copies, tmp_path, key[1])
    assert result["problems"] == [] and result["lines"][0] == f"Deploy of shop, release {NEW}"
    assert f"  copy on app2: signature right, by {fingerprint(key[1])}" in result["lines"]
    assert Path(result["path"]).read_text().startswith("<!doctype html>") and result["path"] in result["lines"][-1]


@pytest.mark.parametrize("kind", ["json", "html", "cdx.json", "json.sig"])
def test_copy_that_was_changed_by_hand_is_named(tmp_path, key, copies, kind):
    name = f"{copies['app1']['name']}.{kind}"
    copies["app1"]["files"][name] = (
        copies["app1"]["files"][name].replace("anna", "ben").replace("U1NI", "U1NJ").replace("1.6", "1.5")
    )
    result = shown(copies, tmp_path, key[1])
    (problem,) = result["problems"]
    assert problem.startswith("app1: signature WRONG: ") and "was changed after it was signed" in problem
    assert "by anna@desk" in "".join(result["lines"]), "the copy of the other host is right"
    del copies["app2"]
    result = shown(copies, tmp_path, key[1])
    assert result["path"] == "" and not any("@desk" in line for line in result["lines"]), "nothing of it is believed"


def test_report_that_is_no_report_is_named(tmp_path, key, copies):
    name = copies["app1"]["name"]
    for text in ("{", "[]", "{}"):
        files = {f"{name}.json": text, f"{name}.json.sig": sign(text.encode(), key[0], REPORT)}
        problems = shown({"app1": {"name": name, "files": files}}, tmp_path, key[1])["problems"]
        assert "cannot be read" in problems[0]


def test_missing_signature_unknown_key_and_missing_copy_are_said(tmp_path, key, copies):
    result = shown(copies, tmp_path)
    assert any("a key that neither release_signing_key nor release_signers has" in line for line in result["lines"])
    del copies["app1"]["files"][f"{copies['app1']['name']}.html.sig"]
    assert shown(copies, tmp_path, key[1])["problems"][0].startswith("app1: signature WRONG: its page has no signature")
    copies["app1"]["files"] = {
        name: text for name, text in copies["app1"]["files"].items() if not name.endswith(".sig")
    }
    copies["app2"] = {"name": "", "files": {}}
    lines = shown(copies, tmp_path, key[1])["lines"]
    assert any(line == "  copy on app1: not signed" for line in lines), lines
    assert "  copy on app2: there is none" in lines


def test_copy_whose_signatures_were_removed_is_compared_with_another(tmp_path, key, copies):
    name = copies["app1"]["name"]
    changed = {each: text.replace("anna", "ben") for each, text in copies["app1"]["files"].items() if "sig" not in each}
    copies["app1"]["files"] = changed
    result = shown(copies, tmp_path, key[1])
    (problem,) = result["problems"]
    assert problem.startswith("app1: it differs from the copy on app2: the report and its page")
    assert "by anna@desk" in "".join(result["lines"])
    # What this machine has is compared too, and never overwritten.
    kept_here = (tmp_path / f"shown/{name}.json").read_text()
    (problem,) = shown({"app1": copies["app1"]}, tmp_path, key[1])["problems"]
    assert f"differs from the copy in {tmp_path / 'shown'}" in problem
    assert (tmp_path / f"shown/{name}.json").read_text() == kept_here and "anna" in kept_here


def test_nothing_is_stored_in_a_dry_run(tmp_path, key, copies):
    result = reports.show(copies, allowed_signers([key[1]]), tmp_path / "shown", False)
    assert result["lines"] and not result["problems"] and not (tmp_path / "shown").exists()


def test_report_that_cannot_be_kept_fails_no_host(tmp_path):
    (tmp_path / "file").touch()
    report = {
        "hosts": "all",
        "gather_facts": False,
        "connection": "local",
        "any_errors_fatal": True,
        "tasks": [
            {"ansible.builtin.import_tasks": str(ROOT / "roles/release/tasks/report.yml")},
            {"ansible.builtin.debug": {"msg": "{{ ansible_play_hosts | join('+') }} are left"}, "run_once": True},
        ],
    }
    (tmp_path / "play.yml").write_text(json.dumps([report]))
    given = {
        "__release_reports": str(tmp_path / "file/reports"),
        "__release_report": deploy_report({"app1": host()}, FACTS, {}),
        "app_project": str(ROOT),
        "app_name": "shop",
        "app_root": str(tmp_path),
        "release_signing_key": "",
    }
    command = ["ansible-playbook", "-i", "app1,app2,", str(tmp_path / "play.yml"), "-e", json.dumps(given)]
    environment = os.environ | PLAIN | {"ANSIBLE_STRATEGY": "linear"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    said = " ".join(done.stdout.split())
    assert "The deploy is done, and its report could not be kept: The report cannot be kept in " in said, said
    assert "app1+app2 are left" in done.stdout


def test_newest_reports_stay_and_the_one_of_a_release_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "KEEP", 3)
    for number in range(5):
        name = f"2026010{number}T000000Z-deploy-{number:012x}"
        kept.keep(
            tmp_path, {f"{name}.json": "{}", f"{name}.json.sig": "s", f"{name}.html": "h", f"{name}.cdx.json": "{}"}
        )
    assert len(list(tmp_path.iterdir())) == 12
    assert kept.read(tmp_path, "")[0] == "20260104T000000Z-deploy-000000000004"
    name, files = kept.read(tmp_path, "000000000003")
    assert name.endswith("3") and set(files) == {f"{name}.json", f"{name}.json.sig", f"{name}.html", f"{name}.cdx.json"}
    assert kept.read(tmp_path, "000000000000") == ("", {})
    assert (tmp_path / f"{name}.json").stat().st_mode & 0o777 == 0o600


def test_host_reads_scores_and_what_its_release_was(tmp_path):
    class Module:
        def run_command(self, command):
            assert command == ["systemd-analyze", "security", "--no-pager", "a.service"]
            return 0, "NAME\n\u2192 Overall exposure level for a.service: 0.2 SAFE \U0001f600\n", ""

    units = [
        {"unit": "a.service", "state": "active"},
        {"unit": "b.service", "state": "draining"},
        {"unit": "c.timer", "state": "active"},
    ]
    assert exposure(Module(), units) == {"a.service": 0.2} and exposure(Module(), []) == {}
    assert artifact(tmp_path) == {}
    (tmp_path / ".release").mkdir()
    (tmp_path / ".release/requirements.txt").write_text("a==1\n")
    (tmp_path / ".release/artifact.json").write_text('{"sha256": "5"}')
    assert artifact(tmp_path)["sha256"] == "5" and len(artifact(tmp_path)["lock_sha256"]) == 64
