"""What the commands of app_build write is a part of the release, and they run once for the same source."""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import release_build
from release_artifact import collect, digest
from support.hosts import wait_for_end

SITE = {"manage.py": "", "front/in.css": "a {}", "build.sh": "#!/bin/sh\ncp front/in.css front/$1\n", "t/keep.txt": "x"}
BUILT = "import pathlib, sys; [(p.parent.mkdir(parents=True, exist_ok=True), p.write_text('built')) for p in map(pathlib.Path, sys.argv[1:])]"


@pytest.fixture
def site(tmp_path):
    """An application in a folder, whose script may be executed."""
    for name, text in SITE.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(text)
    (tmp_path / "site/build.sh").chmod(0o755)
    return tmp_path / "site"


@pytest.fixture
def build(site, tmp_path):
    """Run commands; return the files that they wrote by name, whether they were run, and what was left out."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").symlink_to(sys.executable)

    def run(*commands, **changed):
        parameters = {"src": str(site), "kind": "folder", "include": [], "exclude": [], "commands": list(commands)}
        parameters |= {
            "venv": str(tmp_path / "venv"),
            "venv_error": "",
            "timeout": 60,
            "cache": str(tmp_path / "cache"),
        }
        path, ran, left_out = release_build.build(parameters | changed)
        names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir())
        return {name: (path / name).read_text() for name in names}, ran, left_out

    return run


def writes(*names):
    """Return a command that writes files."""
    return f'python -c "{BUILT}" {" ".join(names)}'


def test_commands_run_in_a_copy_in_order_and_what_they_write_is_kept(build, site):
    before = sorted(site.rglob("*"))
    found, ran, left_out = build("./build.sh one.css", "cp front/one.css front/two.css", writes("front/in.css"))
    assert found == {"front/one.css": "a {}", "front/two.css": "a {}", "front/in.css": "built"}
    assert (ran, left_out) == (True, "") and sorted(site.rglob("*")) == before


def test_same_source_and_commands_are_not_run_again(build, site):
    first = build(writes("a"))
    (site / "manage.py").touch()
    assert build(writes("a")) == (first[0], False, first[2])
    assert build(writes("b"))[1], "other commands"
    (site / "manage.py").write_text("x")
    assert build(writes("a"))[1], "other source"
    assert not build(writes("b"), commands=[writes("a")])[1]
    (site / "manage.py").chmod(0o755)
    assert build(writes("a"))[1], "a file that may be executed"


def test_same_build_is_the_same_release_and_another_is_another(build, site, tmp_path):
    def release(*commands):
        path, _, _ = release_build.build(
            {"src": str(site), "kind": "folder", "include": [], "exclude": [], "commands": list(commands)}
            | {"venv": str(tmp_path / "venv"), "venv_error": "", "timeout": 60, "cache": str(tmp_path / "cache")}
        )
        trees = [{"src": str(site), "dest": "", "kind": "folder", "include": [], "exclude": []}]
        members = collect([*trees, {"src": str(path), "dest": "", "exclude": []}], {}, [])
        return digest(members, {}), members["manage.py"][1]

    first = release(writes("manage.py"))
    assert first == release(writes("manage.py")) and first[1] == b"built"
    assert release("cp t/keep.txt manage.py")[0] != first[0]


def test_what_no_release_has_is_left_out_and_what_git_ignores_is_not(build, site):
    (site / ".gitignore").write_text("dist/\n")
    (site / "media").mkdir()
    (site / "media/logo.svg").write_text("")  # is left out of the source, and said there
    names = (
        "dist/a.js",
        "node_modules/x/index.js",
        "a/node_modules/y.js",
        "debug.log",
        "tests/t.py",
        "dist/b.key",
        "c/d.psd",
    )
    found, _, left_out = build(writes(*names), exclude=["*.psd"])
    assert list(found) == ["dist/a.js"]
    assert "debug.log" in left_out and "dist/b.key" in left_out and "node_modules" not in left_out
    found, _, _ = build(writes(*names), include=["node_modules", "debug.log"])
    assert set(found) == {"dist/a.js", "node_modules/x/index.js", "a/node_modules/y.js", "debug.log", "c/d.psd"}


def test_what_app_build_writes_is_not_told_as_left_out_of_the_source(build, site):
    subprocess.run(["git", "init", "--quiet", site], check=True)
    (site / ".gitignore").write_text("dist/\nnotes\n")
    (site / "dist").mkdir()
    (site / "dist/stale.js").write_text("stale")
    (site / "notes").write_text("")
    built, _, _ = build(writes("dist/new.js"), kind="work_tree")
    assert list(built) == ["dist/new.js"], "the folder that git ignores is not in the copy"
    said = []
    trees = [{"src": str(site), "dest": "", "kind": "work_tree", "include": [], "exclude": []}]
    output = site.parent / "output/dist"
    output.mkdir(parents=True)
    (output / "new.js").write_text("")
    members = collect([*trees, {"src": str(output.parent), "dest": "", "exclude": []}], {}, said)
    assert "dist/new.js" in members and "dist/stale.js" not in members
    assert "notes" in said[0] and "dist" not in said[0]


def test_failed_command_is_told_with_its_status_and_its_last_lines_and_is_tried_again(build, site):
    fails = 'python -c "import sys; print(*range(100), sep=chr(10)); print(chr(27) + chr(91) + str(31) + chr(109) + chr(111)); sys.exit(3)"'
    for _ in range(2):
        with pytest.raises(ValueError) as refusal:
            build(writes("a"), fails, "never")
        # "never" is no program: that is told first, and nothing is run
        assert "app_build[2] is 'never', and there is no never here" in str(refusal.value)
    for _ in range(2):
        with pytest.raises(ValueError) as refusal:
            build(writes("a"), fails, writes("b"))
        said = str(refusal.value)
        assert said.startswith("app_build[1], 'python -c ") and "ended with the status 3. No host was changed." in said
        assert said.splitlines()[-3:] == ["98", "99", "o"] and "\n70\n" not in said
    with pytest.raises(ValueError, match=r"ended by SIGKILL.*\nIt printed nothing."):
        build('python -c "import os; os.kill(os.getpid(), 9)"')
    with pytest.raises(ValueError, match=r"(?s)'node_modules/\.bin/vite build', could not be started"):
        build("node_modules/.bin/vite build")


def test_command_that_does_not_end_is_ended_with_all_that_it_started(build, site, tmp_path):
    child = f"import pathlib, time; time.sleep(3); pathlib.Path('{tmp_path}/late').touch()"
    (site / "hang.py").write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])\n")
    begun = time.monotonic()
    with pytest.raises(ValueError, match="was not done after 1 seconds"):
        build("python hang.py", timeout=1)
    assert time.monotonic() - begun < 3
    (site / "leaves.py").write_text(
        "import subprocess\nprint(subprocess.Popen(['sleep', '600']).pid, file=open('pid', 'w'))\n"
    )
    found, _, _ = build("python leaves.py")
    wait_for_end(found["pid"].strip())


def test_what_is_no_file_is_refused_by_its_name_and_never_read(build, site, tmp_path):
    with pytest.raises(
        ValueError, match=r"^The commands of app_build have left run/queue \(a FIFO\), and a release has only"
    ) as refusal:
        build("mkdir run", "mkfifo run/queue")
    assert "Remove it, or name it in app_exclude." in str(refusal.value)
    listens = "python -c \"import socket; socket.socket(socket.AF_UNIX).bind('s')\""
    with pytest.raises(ValueError, match=r"have left s \(a socket\)"):
        build(listens)
    assert build("mkdir run", "mkfifo run/queue", writes("a"), exclude=["run"])[0] == {"a": "built"}
    assert build("mkfifo queue", "rm queue", writes("b"))[0] == {"b": "built"}
    os.mkfifo(site / "front/events")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(site / "web.sock"))
    with pytest.raises(
        ValueError, match=r"^The application's folder has front/events \(a FIFO\), web\.sock \(a socket\), and"
    ):
        build(writes("never"))
    assert build(writes("a"), exclude=["events", "*.sock"])[1] and not list((tmp_path / "cache").glob("*.work"))


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("how", ["rm -rf ../source", "sh -c 'mv ../source ../elsewhere'"])
def test_command_that_removes_the_folder_is_named(build, how, last):
    with pytest.raises(ValueError) as refusal:
        build(writes("a"), how, *([] if last else [writes("b")]))
    assert str(refusal.value) == f"app_build[1], {how!r}, removed the folder that it ran in, a copy of the source."


def test_command_is_named_whatever_signal_ends_it(build):
    with pytest.raises(
        ValueError, match=r"^app_build\[0\], \"sh -c 'kill -35 \$\$'\", was ended by signal 35\. No host"
    ):
        build("sh -c 'kill -35 $$'")


def test_what_a_build_left_that_was_killed_is_removed_by_the_next(build, tmp_path):
    old, closed = tmp_path / "cache/0123456789ab.work", tmp_path / "cache/0123456789ab.work/source/pkg"
    closed.mkdir(parents=True)
    (closed / "mod.go").write_text("")
    closed.chmod(0o500)
    kept = build(writes("a"))
    assert not old.exists()
    closed.mkdir(parents=True)
    assert build(writes("a")) == (kept[0], False, "") and not old.exists(), "also where nothing is built"


def test_folder_that_a_command_has_closed_is_removed(build, tmp_path):
    assert build("mkdir -p a/b", writes("a/b/c"), "chmod 500 a a/b")[0] == {"a/b/c": "built"}
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [""]
    assert not list((tmp_path / "cache").glob("*/source"))


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("npm ci", "npm"),
        ("env npm ci", "npm"),
        ("env A=1 B='x y' npm ci", "npm"),
        ("/usr/bin/env NODE_ENV=production npm", "npm"),
        ("env -u NODE_OPTIONS npm ci", "npm"),
        ("env -uNODE_OPTIONS npm ci", "npm"),
        ("env --unset NODE_OPTIONS --unset=B npm ci", "npm"),
        ("env -C front npm ci", "npm"),
        ("env -Cfront npm ci", "npm"),
        ("env --chdir=front A=1 npm ci", "npm"),
        ("env --chdir front npm ci", "npm"),
        ("env -i -u X A=1 make", "make"),
        ("env -iu X make", "make"),
        ("env - A=1 make", "make"),
        ("env -- A=1 make all", "make"),
        ("env -a other --debug make", "make"),
        ("env --ignore-signal=INT --block-signal make", "make"),
        ("env -S 'A=1 make -j' all", "make"),
        ("env --split-string='-u X make'", "make"),
        ("env -C a env -u B make", "make"),
        ("env", "env"),
        ("env -u X", "env"),
        ("environment -u X", "environment"),
    ],
)
def test_program_behind_env_is_found(command, program):
    assert release_build.program_of(shlex.split(command)) == program


def test_missing_program_behind_options_of_env_is_the_one_that_is_told(build):
    with pytest.raises(ValueError, match=r"is 'env -u A -C front acme-pack', and there is no acme-pack here"):
        build("env -u A -C front acme-pack")


def test_missing_programs_are_told_together_before_anything_runs(build, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    commands = [
        f"python -c \"open('{tmp_path}/ran', 'w')\"",
        "npm ci",
        "env A=1 B=2 acme --x",
        "manage.py compilemessages",
    ]
    with pytest.raises(ValueError) as refusal:
        build(*commands)
    npm, acme, manage, msgfmt = str(refusal.value).splitlines()
    assert npm == (
        "app_build[1] is 'npm ci', and there is no npm here, on the controller: "
        "install Node.js with npm on this machine (on Debian: apt install nodejs npm)."
    )
    assert "there is no acme here" in acme and "lock the package" in acme
    assert "python manage.py" in manage and "apt install gettext" in msgfmt
    assert not (tmp_path / "ran").exists() and not list((tmp_path / "cache").glob("*.work"))
    with pytest.raises(ValueError, match=r"no python here.*could not be installed on this machine: no index"):
        build("python -c pass", venv_error="no index")


def test_commands_see_no_variables_of_the_deployment_and_no_repository(build, monkeypatch, tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD", "secret-1")  # pragma: allowlist secret
    monkeypatch.setenv("APP_DATABASE_PASSWORD", "secret-2")  # pragma: allowlist secret
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("npm_config_registry", "https://npm.example")
    write = "python -c \"import json, os; json.dump(dict(os.environ), open('seen', 'w'))\""
    seen = json.loads(build(f"env VITE_API=/api {write}")[0]["seen"])
    assert not [value for value in seen.values() if value.startswith("secret-")]
    assert seen["HTTPS_PROXY"] == "http://proxy.example:3128" and seen["npm_config_registry"] == "https://npm.example"
    assert seen["VITE_API"] == "/api" and seen["HOME"]
    assert str(Path(sys.executable).parent) not in seen["PATH"].split(":")
    assert build("sh -c 'git rev-parse --git-dir >found 2>&1 || echo none >found'")[0]["found"].endswith("none\n")
