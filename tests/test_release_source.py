"""A folder and a commit with the same files are the same release; what git does not have is refused by its variable."""

import os
import shutil
import subprocess

import pytest
from release_artifact import collect, digest
from release_source import source

EXCLUDE = [".git", "__pycache__"]


def git(folder, *arguments):
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=os.environ | identity, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def folder(tmp_path):
    """An application in a work tree, with whatever git has to keep: modes, links, folders, odd names."""
    folder = tmp_path / "work"
    (folder / "site" / "package").mkdir(parents=True)
    (folder / "site" / "manage.py").write_text("print(1)\n")
    (folder / "site" / "manage.py").chmod(0o755)
    (folder / "site" / "package" / "ä b.py").write_text("x = 1\n")
    (folder / "site" / "link").symlink_to("package")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=one")
    git(folder, "tag", "v1")
    return folder


@pytest.fixture
def repository(folder, tmp_path):
    git(tmp_path, "clone", "--quiet", "--bare", str(folder), "bare.git")
    return tmp_path / "bare.git"


@pytest.fixture
def take(repository, tmp_path):
    """Have a version of the repository found; return the folder and its description."""

    def take(version, address=str(repository), part=""):
        return source("", address, version, part, tmp_path / "cache")

    return take


def release(folder):
    return digest(collect([{"src": str(folder), "dest": "", "exclude": EXCLUDE}], {}, []), {})


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_same_files_are_the_same_release_wherever_they_are_from(folder, take, umask):
    before = os.umask(umask)
    try:
        path, _ = take("v1")
    finally:
        os.umask(before)
    assert release(path) == release(folder)
    assert not (path / ".git").exists()
    assert release(path / "site") == release(folder / "site") == release(take("v1", part="site")[0])


def test_branch_tag_and_commit_name_what_they_name_now(folder, repository, take):
    first = git(folder, "rev-parse", "HEAD")
    (folder / "site" / "manage.py").write_text("print(2)\n")
    git(folder, "commit", "--all", "--quiet", "--message=two")
    second = git(folder, "rev-parse", "HEAD")
    assert take("main") == (take("v1")[0], f"main ({first[:12]})")
    git(folder, "push", "--quiet", str(repository), "main")
    path, description = take("main")
    assert ((path / "site" / "manage.py").read_text(), description) == ("print(2)\n", f"main ({second[:12]})")
    assert take(second) == take(second[:10]) == (path, second[:12])
    path, description = take("v1")
    assert ((path / "site" / "manage.py").read_text(), description) == ("print(1)\n", f"v1 ({first[:12]})")


def test_commit_that_is_there_needs_no_repository_any_more(folder, repository, take):
    path, _ = take("main")
    shutil.rmtree(repository)
    assert take(git(folder, "rev-parse", "HEAD"))[0] == path
    with pytest.raises(ValueError, match="app_repository is"):
        take("main")


def test_folder_says_its_commit_and_whether_it_was_changed(folder, tmp_path):
    def describe(folder):
        return source(str(folder), "", "", "", tmp_path / "cache")

    commit = git(folder, "rev-parse", "HEAD")[:12]
    assert describe(folder / "site") == (folder / "site", f"{folder}/site ({commit})")
    (folder / "elsewhere").write_text("")
    assert describe(folder / "site")[1] == f"{folder}/site ({commit})"
    (folder / "site" / "new.py").write_text("")
    assert describe(folder / "site")[1] == f"{folder}/site ({commit}+changes)"
    assert describe(tmp_path) == (tmp_path, str(tmp_path))


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("", "", "", ""), "app_source and app_repository are both empty: set"),
        (("here", "", "v1", ""), "app_version is 'v1'.*app_repository is empty"),
        (("", "{bare}", "", ""), "app_version is '': it must be a branch, a tag or a commit of app_repository"),
        (
            ("", "/absent.git", "v1", ""),
            "app_repository is '/absent.git', which git cannot read: .*git ls-remote /absent",
        ),
        (("", "--upload-pack=touch {bare}/ran", "v1", ""), "app_repository is '--upload-pack"),
        # pragma: allowlist nextline secret
        (("", "https://me:secret@127.0.0.1:1/a", "v1", ""), r"'https://\*\*\*@127.0.0.1:1/a', which git cannot read"),
        (("", "{bare}", "v2", ""), "app_version is 'v2', which is no branch, tag or commit.*The newest there: .*v1"),
        (("", "{bare}", "0123456", ""), "app_version is '0123456'"),
        (("", "{bare}", "HEAD", ""), "app_version is 'HEAD'"),
        (("", "{bare}", "v1", "src"), "app_repository_folder is 'src', and .*It has: site"),
    ],
)
def test_what_cannot_be_had_is_refused_by_its_variable(repository, tmp_path, arguments, said):
    arguments = [argument.format(bare=repository) for argument in arguments]
    with pytest.raises(ValueError, match=f"(?s){said}") as refusal:
        source(*arguments, tmp_path / "cache")
    assert "secret" not in str(refusal.value)
    assert not (repository / "ran").exists()
