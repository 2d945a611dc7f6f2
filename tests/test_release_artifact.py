"""The same content is the same release, and every change is another one."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from release_artifact import build, collect, digest


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "package" / "__pycache__").mkdir(parents=True)
    (folder / "manage.py").write_text("print(1)\n")
    (folder / "manage.py").chmod(0o755)
    (folder / "package" / "code.py").write_text("x = 1\n")
    (folder / "package" / "__pycache__" / "code.pyc").write_text("stale")
    (folder / "link").symlink_to("manage.py")
    (folder / "linked").symlink_to("package")
    return folder


def release(folder, files=None, **salt):
    members = collect([{"src": str(folder), "dest": "", "exclude": ["__pycache__"]}], files or {}, [])
    return digest(members, salt)


def test_same_content_is_the_same_release_whatever_its_times(source):
    before = release(source)
    (source / "manage.py").touch()
    (source / "package" / "__pycache__" / "more.pyc").write_text("more")
    assert release(source) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda s: (s / "package" / "code.py").write_text("x = 2\n"),
        lambda s: (s / "package" / "new.py").write_text(""),
        lambda s: (s / "manage.py").chmod(0o644),
        lambda s: (s / "manage.py").rename(s / "other.py"),
        lambda s: (s / "link").unlink(),
    ],
)
def test_any_change_is_another_release(source, change):
    before = release(source)
    change(source)
    assert release(source) != before


def test_settings_and_secrets_count(source):
    ids = {
        release(source),
        release(source, {".release/environment": "A=1"}),
        release(source, secret="a"),
        release(source, secret="b"),
    }
    assert len(ids) == 4


def test_file_holds_it_all_and_ends_with_its_id(source, tmp_path):
    members = collect(
        [{"src": str(source), "dest": "", "exclude": ["__pycache__"]}], {".release/environment": "A=1"}, []
    )
    first, second = tmp_path / "1.tar.gz", tmp_path / "2.tar.gz"
    build(members, "abc", first)
    build(members, "abc", second)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        names = tar.getnames()
        assert names[-1] == "abc/.release/id"
        assert {"abc/manage.py", "abc/package/code.py", "abc/link", "abc/linked", "abc/.release/environment"} <= set(
            names
        )
        assert tar.getmember("abc/manage.py").mode == 0o750
        assert tar.getmember("abc/package").isdir() and tar.getmember("abc/package").mode == 0o750
        assert tar.getmember("abc").mode == tar.getmember("abc/.release").mode == 0o751
        assert names.index("abc/package") < names.index("abc/package/code.py")
        assert tar.getmember("abc/linked").linkname == "package"
        assert all(member.uid == 0 for member in tar)


def trees(*folders, kind="folder"):
    return [{"src": str(folder), "dest": "", "kind": kind, "include": [], "exclude": []} for folder in folders]


@pytest.mark.parametrize("kind", ["all", "folder"])
def test_what_is_no_file_is_refused_and_never_read(source, kind):
    os.mkfifo(source / "package/events")
    with pytest.raises(
        ValueError, match=r"has package/events \(a FIFO\), and a release has only files, folders and links\."
    ):
        collect(trees(source, kind=kind), {}, [])


@pytest.mark.parametrize(
    ("before", "built", "both"),
    [
        ("static/app", "static/app/index.js", "static/app (a folder because of static/app/index.js)"),
        ("static/app/a.js", "static/app", "static/app (a folder because of static/app/a.js)"),
        (".release", "x", ".release (a folder because of .release/environment)"),
    ],
)
def test_file_that_becomes_a_folder_is_refused(tmp_path, before, built, both):
    for folder, name in (("one", before), ("two", built)):
        (tmp_path / folder / name).parent.mkdir(parents=True)
        (tmp_path / folder / name).write_text("")
    with pytest.raises(ValueError) as refusal:
        collect(trees(tmp_path / "one", tmp_path / "two"), {".release/environment": ""}, [])
    assert f"as a file and as a folder: {both}." in str(refusal.value)


def test_link_in_the_place_of_a_folder_is_refused(tmp_path, source):
    (tmp_path / "built").mkdir()
    (tmp_path / "built/package").symlink_to("elsewhere")
    with pytest.raises(
        ValueError, match=r"as a file and as a folder: package \(a folder because of package/code\.py\)"
    ):
        collect(trees(source, tmp_path / "built"), {}, [])
    assert "linked" in collect(trees(source), {}, []), "a link of the source itself leads wherever it does"


ROOT = Path(__file__).parents[1]
# What differs between two machines that deploy: umask, time zone, locale, the order of sets and of a folder's entries, the path.
CONTROLLERS = [
    {"umask": 0o022, "env": {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}, "names": sorted},
    {
        "umask": 0o077,
        "env": {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"},
        "names": lambda n: sorted(n)[::-1],
    },
]
SOURCE = {"manage.py": 0o755, "a/z.py": 0o644, "a/B.py": 0o644, "a/ä b.py": 0o644, "b/run.sh": 0o700}


@pytest.mark.parametrize("kind", ["all", "folder", "work_tree"])
def test_two_controllers_make_the_same_file_of_the_same_source(tmp_path, kind):
    made = []
    for number, controller in enumerate(CONTROLLERS):
        source = tmp_path / ("one", "another/place")[number]
        before = os.umask(controller["umask"])
        try:
            for name in controller["names"](SOURCE):
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_text(name)
                (source / name).chmod(SOURCE[name] & ~controller["umask"])
            (source / "link").symlink_to("a")
            os.utime(source / "manage.py", (number * 10**8, number * 10**8))
            if kind == "work_tree":
                subprocess.run(["git", "init", "--quiet", source], check=True)
            tree = {"src": str(source), "kind": kind, "exclude": [".git"] if kind == "all" else []}
            files = {name: f"{name}\n" for name in controller["names"]((".release/environment", ".release/é"))}
            salt = {name: [1, "ü"] for name in controller["names"](("topology", "python"))}
            arguments = {"trees": [tree], "files": files, "salt": salt, "dest": str(source.parent / "built")}
            program = (
                "import sys; import ansible.module_utils as u; u.__path__.append(sys.argv[1]); sys.path.insert(0, sys.argv[2])\n"
                "from ansible.module_utils import basic; basic._ANSIBLE_ARGS = sys.stdin.buffer.read(); basic._ANSIBLE_PROFILE = 'legacy'\n"
                "import release_artifact; release_artifact.main()"
            )
            done = subprocess.run(
                [sys.executable, "-c", program, str(ROOT / "plugins/module_utils"), str(ROOT / "plugins/modules")],
                input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
                env=os.environ | controller["env"],
                cwd=source.parent,
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            os.umask(before)
        made.append(json.loads(done.stdout))
    first, second = made
    assert first["release_id"] == second["release_id"] and first["sha256"] == second["sha256"]
    assert Path(first["path"]).read_bytes() == Path(second["path"]).read_bytes()
    with tarfile.open(first["path"]) as tar:
        assert {f"{first['release_id']}/{name}" for name in (*SOURCE, "link", ".release/é")} <= set(tar.getnames())
