"""What git ignores, and what looks like a secret, does not travel to the servers."""

import subprocess

import pytest
from ansible.module_utils.coldframe_files import Choice, in_work_tree
from release_artifact import collect, digest


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "PRIVATE KEY" if "private" in name else "CERTIFICATE"
        path.write_text(f"-----BEGIN {kind}-----\nof {name}\n")


def git(folder, *arguments):
    name = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *name, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path):
    """A work tree with an application in a folder of it."""
    folder = tmp_path / "work" / "backend"
    write(folder, "manage.py", "site/settings.py", ".env.example", "certs/authority.pem")
    write(folder.parent, ".gitignore", "README")
    (folder.parent / ".gitignore").write_text(".env\n/backend/dist/\n*.sqlite3\n*.mo\nnode_modules\nignored\n.venv\n")
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "--quiet", "--message=one")
    return folder


def names(root, kind, include=(), exclude=()):
    return [str(path) for path in Choice(root, kind, list(include), list(exclude)).files]


def release(root, kind):
    tree = {"src": str(root), "dest": "", "kind": kind, "include": [], "exclude": []}
    return digest(collect([tree], {}, []), {})


COMMITTED = [".env.example", "certs/authority.pem", "manage.py", "site/settings.py"]
IGNORED = [".env", "dist/app.js", "db.sqlite3", "node_modules/x/index.js", "locale/de.mo", ".venv/bin/python"]


def test_what_git_ignores_stays_and_changes_no_release(tree):
    before = release(tree, "work_tree")
    assert before == release(tree, "checkout")
    write(tree, *IGNORED, "site/__pycache__/settings.pyc", "tests/test_it.py")
    assert names(tree, "work_tree") == COMMITTED and release(tree, "work_tree") == before
    write(tree, "site/new.py")
    assert names(tree, "work_tree") == sorted([*COMMITTED, "site/new.py"])
    (tree / "manage.py").unlink()  # git still has it
    assert "manage.py" not in names(tree, "work_tree")


def test_what_is_left_out_is_said_and_secrets_are_said_first(tree):
    assert Choice(tree, "work_tree", [], []).report() == ""
    write(tree, *IGNORED, "deploy/private.pem", "site/__pycache__/settings.pyc")
    said = Choice(tree, "work_tree", [], []).report()
    assert said.startswith(
        "Left out of the release: what looks like a secret (.env, deploy/private.pem); db.sqlite3, dist/, locale/de.mo, node_modules/."
    )
    assert ".venv" not in said and "pycache" not in said
    write(tree, *[f"ignored/{n}" for n in range(9)], *[f"{n}.sqlite3" for n in range(20)])
    assert "and 15 more" in Choice(tree, "work_tree", [], []).report()


@pytest.mark.parametrize(
    "include, exclude, more",
    [
        (["dist"], [], ["dist/app.js"]),
        (["*.mo", "dist/"], [], ["dist/app.js", "locale/de.mo"]),
        (["dist/*.js"], ["*.js"], []),
        (["*.py", "node_modules/x"], ["site"], ["node_modules/x/index.js"]),
        ([".env"], [], [".env"]),
    ],
)
def test_what_is_named_travels_and_what_is_excluded_does_not(tree, include, exclude, more):
    write(tree, *IGNORED)
    committed = [name for name in COMMITTED if "site" not in exclude or not name.startswith("site")]
    assert names(tree, "work_tree", include, exclude) == sorted([*committed, *more])


@pytest.mark.parametrize(
    "name", [".env", ".env.local", "config/prod.env", ".envs/.production/.django", "id_rsa", "tls.key", "private.pem"]
)
def test_a_secret_that_git_has_is_refused_until_somebody_says_what_it_is(tree, name):
    write(tree, name)
    git(tree, "add", "--force", ".")
    for kind in ("work_tree", "checkout"):
        with pytest.raises(
            ValueError, match=rf"in git what looks like a secret: {name}.*app_exclude, or in app_include"
        ):
            release(tree, kind)
        assert names(tree, kind, exclude=[name]) == COMMITTED
        assert name in names(tree, kind, include=[name])


@pytest.mark.parametrize("name", [".env", ".env.production", ".envs/.local/.django", "private.pem", "a/b/server.key"])
def test_outside_of_git_and_unknown_to_it_secrets_stay(tmp_path, tree, name):
    write(tmp_path / "plain", "manage.py", name, ".env.sample", "example.env.dist")
    assert names(tmp_path / "plain", "folder") == [".env.sample", "example.env.dist", "manage.py"]
    assert f"what looks like a secret ({name})" in Choice(tmp_path / "plain", "folder", [], []).report()
    write(tree, name)
    assert names(tree, "work_tree") == COMMITTED


def test_outside_of_git_what_is_of_one_machine_stays(tmp_path):
    write(
        tmp_path,
        "manage.py",
        "db.sqlite3",
        "media/upload.jpg",
        "staticfiles/x.css",
        "static/x.css",
        ".idea/x",
        "b/node_modules/x/y.js",
    )
    write(tmp_path, "env/pyvenv.cfg", "env/bin/python", "apps/media/__init__.py", "apps/media/models.py")
    left = ["apps/media/__init__.py", "apps/media/models.py", "manage.py", "static/x.css"]
    assert names(tmp_path, "folder") == left
    assert names(tmp_path, "folder", ["db.sqlite3"]) == sorted([*left, "db.sqlite3"])
    said = Choice(tmp_path, "folder", [], []).report()
    assert "b/node_modules/" in said and "db.sqlite3" in said and "media/" in said and "env/" not in said


def test_git_is_asked_where_it_keeps_the_folder(tree, tmp_path, monkeypatch):
    assert in_work_tree(tree) and in_work_tree(tree.parent)
    write(tree.parent, "ignored/app/manage.py")
    assert not in_work_tree(tree.parent / "ignored/app")
    write(tmp_path, "plain/manage.py")
    assert not in_work_tree(tmp_path / "plain")
    monkeypatch.setenv("PATH", "")
    assert not in_work_tree(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"app_source is .*/backend'.*install the package git"):
        in_work_tree(tree)


def test_a_repository_inside_of_it_is_asked_too(tree):
    write(tree, "lib/code.py", "lib/.env", "lib/.gitignore")
    (tree / "lib/.gitignore").write_text(".env\n")
    git(tree / "lib", "init", "--quiet")
    assert names(tree, "work_tree") == sorted([*COMMITTED, "lib/.gitignore", "lib/code.py"])
