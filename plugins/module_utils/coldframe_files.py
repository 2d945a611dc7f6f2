"""Which files of an application's folder a release is made of, and git, which is asked about them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from fnmatch import translate
from functools import cache
from pathlib import Path

from ansible.module_utils.coldframe_commands import plain

# Left out in any case: nobody's source.
NEVER = (".git", "__pycache__", "*.pyc")
# Left out unless app_include names it.
TOOLS = (".venv", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".tox", "tests")
SECRET: tuple[str, ...] = (".env", ".env.*", ".envs", ".envrc", "*.env", "*.pem", "*.key", "*.p12", "*.pfx")
SECRET += ("*.keytab", "*.kdbx", "id_rsa", "id_ecdsa", "id_ed25519")
SECRET += (".netrc", ".pgpass", ".pypirc", ".htpasswd", ".vault_pass*")
EXAMPLE = re.compile(r"(^|[._-])(example|sample|template|dist|defaults?)([._-]|$)", re.IGNORECASE)
# Outside of git nobody says what is no source. A folder of such a name that is a Python package is source.
LOCAL: tuple[str, ...] = ("*.sqlite3", "*.sqlite3-*", "*.log", "celerybeat-schedule*", "node_modules")
LOCAL += ("media", "staticfiles", ".idea", ".vscode", ".DS_Store", ".coverage", "htmlcov")
# Whoever owns the folder, and without running what its configuration names.
QUIETLY = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
SHOWN = 10  # names that a person is shown
# What a folder may hold besides files, folders and links. To read it may never end.
OTHERS = {stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}


def git(*arguments: str | Path, **environment: str) -> str:
    """Run git and return what it prints.

    It never asks for a password, for there is nobody to answer.

    Raises CalledProcessError when git fails, FileNotFoundError when there is none.
    """
    inherited = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    done = subprocess.run(
        ["git", *map(str, arguments)],
        env=inherited | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"} | environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # no terminal, so ssh does not ask either
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, plain(done.stderr))
    return done.stdout.strip("\n")


def listed(folder: Path, *options: str) -> list[Path]:
    """List the files and links that git does of a folder, relative to it."""
    names = git(*QUIETLY, "-C", folder, "ls-files", "-z", *options).split("\0")
    paths = []
    for name in filter(None, names):
        if (folder / name / ".git").exists():  # a repository inside of it
            paths += [Path(name, inner) for inner in listed(folder / name, *options)]
        elif os.path.lexists(folder / name) and (not (folder / name).is_dir() or (folder / name).is_symlink()):
            paths.append(Path(name))
    return paths


def in_work_tree(folder: Path) -> bool:
    """Whether git keeps the folder; not when it ignores it as a whole.

    Raises ValueError when the folder is in a work tree that git cannot be asked about.
    """
    folder = folder.resolve()
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return False
    where = f"app_source is {str(folder)!r}, which is in a git work tree"
    try:
        return bool(listed(folder, "--cached") or listed(folder, "--others", "--exclude-standard"))
    except FileNotFoundError as error:
        raise ValueError(f"{where}, and git is not there to say what it ignores: install the package git.") from error
    except subprocess.CalledProcessError as error:
        raise ValueError(f"{where}, and git does not say what it ignores: {error.stderr.strip()}") from error


@cache
def _compiled(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(glob.rstrip("/")) for glob in globs) or r"(?!)")


def fits(path: Path, globs: Iterable[str]) -> bool:
    """Whether one of the globs fits the path, a folder that it is in, or the name of either."""
    match = _compiled(tuple(globs)).match
    return any(match(part) or match("/".join(path.parts[: n + 1])) for n, part in enumerate(path.parts))


def looks_secret(root: Path, path: Path) -> bool:
    """Whether a file or folder looks as if it held a secret: by its name, a *.pem by the key in it."""
    if not fits(path, SECRET) or EXAMPLE.search(path.name):
        return False
    if path.suffix == ".pem" and (root / path).is_file() and not fits(path.parent, SECRET):
        return b"PRIVATE KEY-----" in (root / path).read_bytes()
    return True


def refuse_others(root: Path, paths: Iterable[Path], whose: str) -> None:
    """Refuse what is neither a regular file nor a link.

    :param paths: what `Choice` takes, relative to `root`.
    :param whose: the beginning of a sentence, such as "The application's folder has".

    Raises ValueError, naming it and what to do.
    """
    found = []
    for path in paths:
        mode = (root / path).lstat().st_mode
        found += [f"{path} ({what})" for is_it, what in OTHERS.items() if is_it(mode)]
    if found:
        raise ValueError(
            f"{whose} {shown(found)}, and a release has only files, folders and links. Remove it, or name it in app_exclude."
        )


class Choice:
    """Which files of an application's folder make a release, and which do not."""

    def __init__(self, root: Path, kind: str, include: list[str], exclude: list[str]) -> None:
        """Choose.

        :param kind: `checkout` (all of it is committed), `work_tree` (git knows what is source) or `folder`.
        :param include: globs of what travels although git ignores it or a built-in list leaves it out.
        :param exclude: globs of what does not travel in any case.
        """
        self.root, self.kind, self.include, self.exclude = root, kind, include, exclude
        self.files: list[Path] = []
        self.committed_secrets: list[str] = []
        self.left_out: set[str] = set()
        if kind == "work_tree":
            committed = set(listed(root, "--cached"))
            found = committed | set(listed(root, "--others", "--exclude-standard"))
            ignored = ("--others", "--ignored", "--exclude-standard")
            if include:
                found |= {path for path in listed(root, *ignored) if fits(path, include)}
            names = git(*QUIETLY, "-C", root, "ls-files", "-z", *ignored, "--directory").split("\0")
            self.left_out = {name for name in names if name and not self.noise(Path(name))}
            self.left_out -= {
                name for name in self.left_out for other in names if other != name and other.startswith(name)
            }
        else:
            found = set(self.walk())
            committed = found if kind == "checkout" else set()
        for path in sorted(found):
            if not self.unwanted(path):
                self.take(path, path in committed)
            elif not self.noise(path):
                self.left_out.add(str(path))

    def take(self, path: Path, committed: bool) -> None:
        """Take a file, unless it looks like a secret and nobody has named it."""
        if fits(path, self.include) or not looks_secret(self.root, path):
            self.files.append(path)
        elif committed:
            self.committed_secrets.append(str(path))
        else:
            self.left_out.add(str(path))

    def noise(self, path: Path) -> bool:
        """Whether that a file or folder is left out is not worth a word, or was asked for."""
        return fits(path, (*NEVER, *TOOLS, *self.exclude, *self.include)) or (self.root / path / "pyvenv.cfg").exists()

    def unwanted(self, path: Path) -> bool:
        """Whether a file or folder is left out by its name."""
        if fits(path, self.exclude):
            return True
        if fits(path, self.include):
            return fits(path, NEVER)
        if fits(path, (*NEVER, *TOOLS)):
            return True
        ways = [Path(*path.parts[: n + 1]) for n in range(len(path.parts))] if self.kind == "folder" else []
        return any(fits(Path(way.name), LOCAL) and not (self.root / way / "__init__.py").exists() for way in ways)

    def walk(self) -> Iterator[Path]:
        """Yield files and links, passing over whole folders where nothing in them can be wanted."""
        for folder, folders, files in os.walk(self.root):
            here = Path(folder).relative_to(self.root)
            for name in list(folders):
                path = here / name
                passed = self.unwanted(path) and (not self.include or fits(path, (*NEVER, *self.exclude)))
                if passed or (self.root / path / "pyvenv.cfg").exists():
                    folders.remove(name)
                    if not self.noise(path):
                        self.left_out.add(f"{path}/")
                elif (self.root / path).is_symlink():
                    files.append(name)
            for name in files:
                yield here / name

    def report(self) -> str:
        """Say what was left out that a person might miss, first of all what looks like a secret; empty when nothing."""
        secret = sorted(name for name in self.left_out if looks_secret(self.root, Path(name)))
        other = sorted(self.left_out.difference(secret))
        said = [f"what looks like a secret ({shown(secret)})"] if secret else []
        said += [shown(other)] if other else []
        return (
            f"Left out of the release: {'; '.join(said)}. List in app_include what the application needs of these."
            if said
            else ""
        )


def shown(names: list[str]) -> str:
    """Name the first of them, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
