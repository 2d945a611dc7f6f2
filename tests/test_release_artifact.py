"""The same content is the same release, and every change is another one."""

import os
import tarfile

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
