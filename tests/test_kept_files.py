"""The static files that outlive a release's turn, and the uploads that its units made."""

import grp
import os

import pytest
from ansible.module_utils import coldframe
from fake_systemd import FakeModule


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(coldframe, "STATE", tmp_path / "state")
    (tmp_path / "state/shop").mkdir(parents=True)
    monkeypatch.setattr(coldframe.grp, "getgrnam", lambda name: grp.getgrgid(os.getgid()))
    return coldframe.Application(FakeModule(), "shop", tmp_path / "srv")


def release(host, name, **files):
    static = host.root / "releases" / name / ".release/static/css"
    static.mkdir(parents=True)
    for file, text in files.items():
        (static / f"{file}.css").write_text(text)
    host.keep_static()


def kept(host):
    return {path.name: path.read_text() for path in (host.root / "assets/static").rglob("*.css")}


def test_files_of_each_release_are_kept_as_long_as_the_release(host):
    release(host, "a", both="1", a_only="2")
    release(host, "b", both="1", b_only="3")
    assert kept(host) == {"both.css": "1", "a_only.css": "2", "b_only.css": "3"}
    coldframe.remove(host.root / "releases/a")
    host.keep_static()
    assert kept(host) == {"both.css": "1", "b_only.css": "3"}, "what both had is the other one's now"
    coldframe.remove(host.root / "releases/b")
    host.keep_static()
    assert list((host.root / "assets").rglob("*")) == []


def test_kept_files_are_the_same_ones_readable_and_no_links(host):
    mask = os.umask(0o077)
    try:
        release(host, "a", page="1")
    finally:
        os.umask(mask)
    (host.root / "releases/a/.release/static/css/link.css").symlink_to("/etc/passwd")
    host.keep_static()
    folder = host.root / "assets/static/css"
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in folder.iterdir()] == ["page.css"]
    assert folder.joinpath("page.css").samefile(host.root / "releases/a/.release/static/css/page.css")


def test_uploads_are_opened_and_what_their_maker_closed_is_not(host, tmp_path):
    shared = host.root / "shared"
    for path, mode in {"": 0o770, "media": 0o2775, "media/2026": 0o2750, "media/gnupg": 0o700}.items():
        (shared / path).mkdir(parents=True)
        (shared / path).chmod(mode)
    outside = tmp_path / "outside"
    for path, mode in {
        shared / "media/2026/photo": 0o640,
        shared / "media/2026/secret": 0o600,
        shared / "media/gnupg/key": 0o640,
        outside: 0o640,
    }.items():
        path.touch()
        path.chmod(mode)
    (shared / "media/2026/link").symlink_to(outside)
    os.link(outside, shared / "media/2026/hard")
    os.mkfifo(shared / "media/2026/pipe", 0o640)
    host.see_to_shared()
    modes = {str(path.relative_to(shared)): path.lstat().st_mode & 0o7777 for path in shared.rglob("*")}
    assert modes["media/2026"] == 0o2775 and modes["media/2026/photo"] == 0o664
    assert modes["media/2026/secret"] == 0o600 and modes["media/gnupg"] == 0o700
    assert outside.stat().st_mode & 0o777 == 0o640 and shared.stat().st_mode & 0o777 == 0o770
    (shared / "media/2026").chmod(0o750)
    host.see_to_shared()
    assert (shared / "media/2026").stat().st_mode & 0o777 == 0o750, "once"


def test_release_from_before_closes_what_it_makes_so_it_is_opened_after_it_again(host):
    (host.root / "shared/media").mkdir(parents=True)
    host.see_to_shared()
    assert host.shared_stamp.exists()
    units = host.root / "releases/old/.release/units"
    units.mkdir(parents=True)
    (units / "web.service").write_text("[Service]\nUMask=0027\n")
    coldframe.point(host.root / "current", "releases/old")
    host.see_to_shared()
    assert not host.shared_stamp.exists()
