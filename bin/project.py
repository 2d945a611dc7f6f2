"""Reads a Django project with Celery: which modules it has, its queues and pages, without running any of it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import build_steps
from pages import telling_page
from static import LIBRARY, UNKNOWN, Files, Place, Value, evaluate, keyword, name_of, statements, variable
from task_queues import Queue, QueueReader

# The settings module for servers, by the last part of its name or a word of it.
PRODUCTION = re.compile(r"(^|_)(production|prod|live)(_|$)")
DEVELOPMENT = re.compile(r"(^|_)(local|dev|develop|development|test|tests|testing|ci|debug)(_|$)")
NAME = re.compile(r"[a-z][a-z0-9]{0,19}")
COMMON = {"app", "apps", "backend", "code", "django", "project", "server", "site", "source", "src", "web", "www"}
# Celery's settings before version 4, which it still reads.
OLD = {
    "task_routes": "CELERY_ROUTES",
    "task_queues": "CELERY_QUEUES",
    "task_default_queue": "CELERY_DEFAULT_QUEUE",
    "task_time_limit": "CELERYD_TASK_TIME_LIMIT",
    "beat_schedule": "CELERYBEAT_SCHEDULE",
    "beat_scheduler": "CELERYBEAT_SCHEDULER",
    "timezone": "CELERY_TIMEZONE",
}


class RefusedError(Exception):
    """What is asked for cannot be done: a list of problems, each with what decides it."""

    def __init__(self, *problems: str) -> None:
        """Keep them."""
        super().__init__("\n".join(problems))
        self.problems = list(problems)


# Django's checks of MIDDLEWARE, with the class that each one asks for.
MIDDLEWARE = {
    "security.W001": "django.middleware.security.SecurityMiddleware",
    "security.W002": "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "security.W003": "django.middleware.csrf.CsrfViewMiddleware",
}


@dataclass(frozen=True)
class Found:
    """A value that was found, and the file and line that it is from."""

    value: Any
    where: str


@dataclass
class Project:
    """What was found of a project."""

    folder: Path  # that of manage.py
    name: str = ""
    python_path: str = ""
    found: dict[str, Found] = field(default_factory=dict)  # what is printed, in this order
    queues: dict[str, Queue] = field(default_factory=dict)
    default_queue: str = ""
    installed: list[str] = field(default_factory=list)  # INSTALLED_APPS
    elsewhere: list[str] = field(
        default_factory=list
    )  # modules of packages that may have what the project's files do not
    asgi: bool = False  # whether ASGI_APPLICATION is set, which Django itself does not read
    environment: dict[str, str] = field(default_factory=dict)  # variables without a default, and where they are read
    missing_middleware: dict[str, Found] = field(
        default_factory=dict
    )  # checks of Django that fail for a class MIDDLEWARE lacks
    questions: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def is_manage(path: Path) -> bool:
    """Whether a file is Django's manage.py."""
    try:
        return "DJANGO_SETTINGS_MODULE" in (text := path.read_text(errors="replace")) or "django" in text
    except OSError:
        return False


def folder_of(app: Path, said: str) -> Path:
    """Return the folder of the project's manage.py.

    :param said: `APP`, as it was given.

    Raises RefusedError when there is none, or several.
    """
    if not app.is_dir():
        raise RefusedError(f"APP is {said!r}, which is no folder: set it to the folder of your project.")
    if is_manage(app / "manage.py"):
        return app
    found = []
    for path in sorted(app.rglob("manage.py")):
        inside = [
            app.joinpath(*path.relative_to(app).parts[: n + 1]) for n in range(len(path.relative_to(app).parts) - 1)
        ]
        if not any(Files.passed(folder) or folder.name.startswith("example") for folder in inside) and is_manage(path):
            found.append(path.parent)
    if not found:
        raise RefusedError(
            f"APP is {said!r}, which is no Django project: neither it nor a folder in it has a manage.py. Set APP to the folder that has."
        )
    if len(found) > 1:
        choices = " or ".join(f"APP={Path(said, folder.relative_to(app))}" for folder in found)
        raise RefusedError(f"APP is {said!r}, which has more than one manage.py: set {choices}.")
    return found[0]


class Reader:
    """Reads one project."""

    def __init__(self, folder: Path, given: dict[str, str], library: Path | None = None) -> None:
        """Look at its files.

        :param folder: that of manage.py.
        :param given: `SETTINGS`, `WSGI`, `CELERY` and `NAME`, where the operator said them.
        :param library: a folder with packages that are read too.
        """
        self.project = Project(folder)
        self.given = given
        self.files = Files(folder)
        self.own = self.files.paths
        if library:
            self.files.add(library)
        self.of_packages = self.files.paths[len(self.own) :]
        self.places = [Path()]  # from which modules are imported, relative to the folder
        self.settings: dict[str, list[Value]] = {}
        self.celery_conf: dict[str, list[Value]] = {}  # what the Celery application sets itself
        self.namespace: str | None = None
        self.celery_file: Path | None = None
        self.settings_files: list[Path] = []
        self.taken_from: list[str] = []  # modules of packages from which the settings import everything

    # What is told

    def at(self, place: Place) -> str:
        """Write a place as FILE:LINE."""
        return f"{place.path}:{place.line}"

    def find(self, name: str, value: Any, where: str) -> None:
        """Keep what was found."""
        self.project.found[name] = Found(value, where)

    def ask(self, question: str) -> None:
        """Keep a question to the operator."""
        if question not in self.project.questions:
            self.project.questions.append(question)

    def refuse(self, problem: str) -> None:
        """Keep a problem."""
        self.project.problems.append(problem)

    # Modules

    def read(self) -> Project:
        """Read it all."""
        self.import_places()
        self.name()
        module = self.settings_module()
        if module:
            self.find("app_settings_module", module.value, module.where)
            self.read_settings(module.value)
        self.wsgi()
        self.celery()
        self.python_path()
        self.look_elsewhere()
        QueueReader(self).read()
        self.read_pages()
        self.read_environment()
        self.read_middleware()
        self.find_files()
        if steps := build_steps.steps(self.project.folder):
            self.find(
                "app_build", [command for command, _ in steps], ", ".join(dict.fromkeys(where for _, where in steps))
            )
        return self.project

    def name(self) -> None:
        """Choose the application's name."""
        if given := self.given.get("NAME"):
            if not NAME.fullmatch(given):
                self.refuse(
                    f"NAME is {given!r}; it must be lower-case letters and digits, at most 20, beginning with a letter."
                )
            self.project.name = given
            self.find("app_name", given, "NAME")
            return
        for folder in (self.project.folder, *self.project.folder.parents):
            name = re.sub(r"[^a-z0-9]", "", folder.name.lower())[:20]
            if NAME.fullmatch(name) and name not in COMMON:
                self.project.name = name
                self.find("app_name", name, f"the folder {folder.name}")
                return
        self.refuse(
            "No name for the application follows from its folder: set NAME, lower-case letters and digits, at most 20."
        )

    def import_places(self) -> None:
        """Look from which folders modules are imported: the top, src, and what manage.py adds to sys.path."""
        for path in (Path("manage.py"), *(each for each in self.own if each.name in ("wsgi.py", "asgi.py"))):
            tree = self.files.tree(path)
            for node in ast.walk(tree) if tree else ():
                if isinstance(node, ast.Call) and name_of(node.func) in ("sys.path.append", "sys.path.insert"):
                    names = [each.value for each in ast.walk(node.args[-1]) if isinstance(each, ast.Constant)]
                    for name in names:
                        if isinstance(name, str) and name and (self.project.folder / name).is_dir():
                            self.places.append(Path(name))
        if (self.project.folder / "src").is_dir():
            self.places.append(Path("src"))
        self.places = list(dict.fromkeys(self.places))
        if self.files.library:
            self.places.append(LIBRARY)

    def named_settings(self, path: Path) -> Value | None:
        """Return the settings module that a file sets, or its default."""
        tree = self.files.tree(path)
        names = self.files.constants(path, self.places)
        for node in ast.walk(tree) if tree else ():
            value: ast.expr | None = None
            if isinstance(node, ast.Call) and name_of(node.func).endswith("environ.setdefault") and len(node.args) == 2:
                key, value = node.args[0], node.args[1]
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                key, value = node.targets[0].slice, node.value
            else:
                continue
            if isinstance(key, ast.Constant) and key.value == "DJANGO_SETTINGS_MODULE":
                module = evaluate(value, names)
                if isinstance(module, str) and self.files.module(module, self.places):
                    return Value(module, Place(path, node.lineno))
        return None

    def siblings(self, module: str) -> dict[str, Path]:
        """Map the modules beside a settings module that are settings too, by their names, to their files."""
        file = self.files.module(module, self.places)
        if not file:
            return {}
        package = file.name == "__init__.py"
        prefix = module if package else module.rpartition(".")[0]
        found = {}
        for path in self.files.paths:
            if path.parent == file.parent and path.name != "__init__.py":
                looks = package or file.parent.name in ("settings", "conf", "config") or "settings" in path.stem
                if looks:
                    found[f"{prefix}.{path.stem}" if prefix else path.stem] = path
        return found

    def settings_module(self) -> Found | None:
        """Choose the settings module for servers."""
        if given := self.given.get("SETTINGS"):
            if not self.files.module(given, self.places):
                self.refuse(f"SETTINGS is {given!r}, and the project has no such module: name one that it has.")
            return Found(given, "SETTINGS")
        programs = sorted(
            (path for path in self.own if path.name in ("manage.py", "wsgi.py", "asgi.py")),
            key=lambda path: ("wsgi.py", "asgi.py", "manage.py").index(path.name),
        )
        named = [value for path in programs if (value := self.named_settings(path))]
        if not named:
            return self.searched_settings()
        modules = list(dict.fromkeys(value.value for value in named))
        last = {module: module.rpartition(".")[2] for module in modules}
        for value in named:
            if PRODUCTION.search(last[value.value]):
                return Found(value.value, self.at(value.place))
        beside = {module: path for each in modules for module, path in self.siblings(each).items()}
        production = [module for module in beside if PRODUCTION.search(module.rpartition(".")[2])]
        if len(production) == 1:
            where = beside[production[0]]
            return Found(production[0], f"{where}:1, the one for production in {where.parent or '.'}/")
        if not production:
            plain = [value for value in named if not DEVELOPMENT.search(last[value.value])]
            if plain:
                return Found(plain[0].value, self.at(plain[0].place))
        if production:
            told = "The project has more than one settings module for servers"
        else:
            told = (
                f"Which settings module is for servers is not clear ({named[0].value}, in {self.at(named[0].place)}, is for "
                "development)"
            )
        self.refuse(f"{told}: set {self.choices('SETTINGS', production or [*modules, *beside])}.")
        return None

    def searched_settings(self) -> Found | None:
        """Choose a module that looks like Django's settings."""
        found = []
        for path in self.own:
            if "INSTALLED_APPS" in self.files.text(path) and (tree := self.files.tree(path)):
                for each in statements(tree.body):
                    if isinstance(each, ast.Assign) and name_of(each.targets[0]) == "INSTALLED_APPS":
                        found.append((self.files.name(path, self.places), f"{path}:{each.lineno}"))
                        break
        if len(found) == 1:
            return Found(*found[0])
        if found:
            self.refuse(
                "manage.py and wsgi.py name no settings module of the project: set "
                f"{self.choices('SETTINGS', [module for module, _ in found])}."
            )
        else:
            self.refuse("No settings module was found (one with INSTALLED_APPS): set SETTINGS=module.")
        return None

    @staticmethod
    def choices(variable_: str, values: list[str]) -> str:
        """Write what to set, one of several."""
        return " or ".join(f"{variable_}={value}" for value in sorted(dict.fromkeys(values)))

    # Settings

    def read_settings(self, module: str) -> None:
        """Read a settings module, and those of the project that it imports everything from."""
        file = self.files.module(module, self.places)
        names: dict[str, Any] = {}
        if file:
            self._read_settings(file, names, set())

    def _read_settings(self, file: Path, names: dict[str, Any], seen: set[Path]) -> None:
        tree = self.files.tree(file)
        if file in seen or not tree:
            return
        seen.add(file)
        self.settings_files.append(file)
        for each in statements(tree.body):
            place = Place(file, each.lineno)
            match each:
                case ast.ImportFrom(names=[ast.alias(name="*"), *_]):
                    if inner := self.files.imported(file, each, self.places):
                        self._read_settings(inner, names, seen)
                    elif each.module and not each.level:
                        self.taken_from.append(each.module)
                case ast.ImportFrom() if inner := self.files.imported(file, each, self.places):
                    names |= {
                        a.asname or a.name: self.files.constants(inner, self.places).get(a.name, UNKNOWN)
                        for a in each.names
                    }
                case ast.Expr(value=ast.Call() as call) if name_of(call.func) == "include":
                    for inner in self.included(file, call):
                        self._read_settings(inner, names, seen)
                case ast.Assign(targets=targets):
                    value = evaluate(each.value, names)
                    for target in targets:
                        if isinstance(target, ast.Name):
                            names[target.id] = value
                            self.settings.setdefault(target.id, []).append(Value(value, place))
                        elif isinstance(target, ast.Subscript) and isinstance(names.get(name_of(target.value)), dict):
                            key = evaluate(target.slice, names)
                            names[name_of(target.value)] |= {key: value} if isinstance(key, str) else {}
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                    names[name] = evaluate(each.value, names)
                    self.settings.setdefault(name, []).append(Value(names[name], place))
                case ast.AugAssign(target=ast.Name(id=name)):
                    before, more = names.get(name), evaluate(each.value, names)
                    if isinstance(before, (list, dict, str)) and type(before) is type(more):
                        names[name] = before | more if isinstance(before, dict) else before + more  # type: ignore[operator]
                        self.settings.setdefault(name, []).append(Value(names[name], place))

    def included(self, file: Path, call: ast.Call) -> Iterator[Path]:
        """Yield the files that django-split-settings' `include` names."""
        for argument in call.args:
            for node in ast.walk(argument):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    for path in sorted((self.project.folder / file.parent).glob(node.value)):
                        yield path.relative_to(self.project.folder)

    def setting(self, name: str) -> Value | None:
        """Return a setting as it is at the end, where the text says what it is."""
        values = [value for value in self.settings.get(name, []) if value.value is not UNKNOWN]
        return values[-1] if values else None

    # WSGI and ASGI

    def served(self, kind: str) -> Found | None:
        """Find the WSGI or the ASGI application."""
        if value := self.setting(f"{kind.upper()}_APPLICATION"):
            module, _, name = str(value.value).rpartition(".")
            if file := self.files.module(module, self.places):
                line = self.line(file, name)
                return Found(f"{module}:{name}", f"{file}:{line}" if line else self.at(value.place))
        found: list[tuple[str, str]] = []
        for path in [*self.own, *self.of_packages]:
            if found and path not in self.own:
                break
            if (path.stem == kind or f"get_{kind}_application" in self.files.text(path)) and (
                tree := self.files.tree(path)
            ):
                for each in tree.body:
                    if isinstance(each, ast.Assign) and name_of(each.targets[0]) in ("application", "app"):
                        module = self.files.name(path, self.places)
                        found.append((f"{module}:{name_of(each.targets[0])}", f"{path}:{each.lineno}"))
                        break
        if len(found) > 1 and kind == "wsgi":
            self.refuse(
                "The project has more than one WSGI application: set "
                f"{self.choices('WSGI', [value for value, _ in found])}."
            )
        return Found(*found[0]) if found else None

    def line(self, file: Path, name: str) -> int:
        """Return the line on which a module gives a name; 0 if none."""
        tree = self.files.tree(file)
        for each in statements(tree.body) if tree else ():
            if isinstance(each, ast.Assign) and name in map(name_of, each.targets):
                return each.lineno
        return 0

    def wsgi(self) -> None:
        """Find what Gunicorn serves."""
        before = len(self.project.problems)
        given = self.given.get("WSGI")
        found, asgi = Found(given, "WSGI") if given else self.served("wsgi"), self.served("asgi")
        self.project.asgi = self.setting("ASGI_APPLICATION") is not None
        if found:
            self.find("app_wsgi", found.value, found.where)
        elif len(self.project.problems) == before and not asgi:
            self.refuse("No WSGI application was found, by WSGI_APPLICATION or a wsgi.py: set WSGI=module:name.")
        if asgi:
            self.find("ASGI application", asgi.value, asgi.where)

    # Celery

    def celery(self) -> None:
        """Find the Celery application, and its namespace of the settings."""
        candidates = [each for path in self.own for each in self.celery_in(path)]
        candidates = candidates or [each for path in self.of_packages for each in self.celery_in(path)]
        given = self.given.get("CELERY")
        if given:
            self.find("app_celery", given, "CELERY")
            candidates = [each for each in candidates if each[0] == given or each[0].startswith(f"{given}:")]
        elif not candidates:
            self.refuse("No Celery application was found (name = Celery(...) in a module): set CELERY=module:name.")
            return
        configured = [each for each in candidates if each[3]] or candidates
        if len(configured) > 1:
            configured = [each for each in configured if self.loaded_with_django(each[0])] or configured
        if len(configured) > 1 and not given:
            self.refuse(
                "The project has more than one Celery application: set "
                f"{self.choices('CELERY', [each[0] for each in configured])}."
            )
            return
        if not configured:
            return
        value, path, line, reads = configured[0]
        self.celery_file = path
        if not given:
            self.find("app_celery", value, f"{path}:{line}")
        self.read_celery(path, value.partition(":")[2], reads)

    def celery_in(self, path: Path) -> list[tuple[str, Path, int, ast.Call | None]]:
        """List the Celery applications of a module: name, file, line, and where it takes its settings from."""
        if "elery" not in self.files.text(path) or not (tree := self.files.tree(path)):
            return []
        classes, makers = {"celery.Celery"}, set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in ("celery", "celery.app", "celery.app.base"):
                classes |= {a.asname or a.name for a in node.names if a.name == "Celery"}
            elif isinstance(node, ast.ClassDef) and {name_of(base) for base in node.bases} & classes:
                classes.add(node.name)
            elif isinstance(node, ast.FunctionDef):
                calls = (name_of(each.func) for each in ast.walk(node) if isinstance(each, ast.Call))
                if classes & set(calls):
                    makers.add(node.name)
        found = []
        for each in statements(tree.body):
            target = (
                each.targets[0]
                if isinstance(each, ast.Assign)
                else each.target
                if isinstance(each, ast.AnnAssign)
                else None
            )
            call = getattr(each, "value", None)
            if not isinstance(target, ast.Name) or not isinstance(call, ast.Call):
                continue
            made_by = call.func.value if isinstance(call.func, ast.Subscript) else call.func  # Celery[Task](...)
            if name_of(made_by) in classes | makers:
                nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
                reads = next((node for node in nodes if self.configures(node)), None)
                found.append((f"{self.files.name(path, self.places)}:{target.id}", path, each.lineno, reads))
        return found

    @staticmethod
    def configures(node: ast.Call) -> bool:
        """Whether a call has a Celery application read its settings."""
        return name_of(node.func).endswith(".config_from_object")

    def loaded_with_django(self, value: str) -> bool:
        """Whether a package of the project imports the Celery application when it is loaded, as Celery's guide has it."""
        module, _, name = value.partition(":")
        file = self.files.module(module, self.places)
        for path in self.files.paths:
            tree = self.files.tree(path) if path.name == "__init__.py" else None
            imports = [each for each in statements(tree.body) if isinstance(each, ast.ImportFrom)] if tree else []
            of_it = (each for each in imports if self.files.imported(path, each, self.places) == file)
            if any(alias.name == name for each in of_it for alias in each.names):
                return True
        return False

    def read_celery(self, path: Path, name: str, reads: ast.Call | None) -> None:
        """Read what the module of the Celery application sets."""
        names = self.files.constants(path, self.places)
        if reads:
            namespace = evaluate(keyword(reads, "namespace"), names)
            self.namespace = namespace if isinstance(namespace, str) else ""
            self.find("Celery's namespace", self.namespace or "none", f"{path}:{reads.lineno}")
            self.read_celery_config(path, reads)
        tree = self.files.tree(path)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.Assign) and (key := name_of(node.targets[0])).startswith(f"{name}.conf."):
                values = {key.rpartition(".")[2]: evaluate(node.value, names)}
            elif isinstance(node, ast.Call) and name_of(node.func) == f"{name}.conf.update":
                values = {each.arg: evaluate(each.value, names) for each in node.keywords if each.arg}
                for argument in node.args:
                    given = evaluate(argument, names)
                    values |= given if isinstance(given, dict) else {}
            else:
                continue
            for setting, value in values.items():
                self.celery_conf.setdefault(setting, []).append(Value(value, Place(path, node.lineno)))

    def read_celery_config(self, path: Path, reads: ast.Call) -> None:
        """Read the module or class of Celery's settings that `config_from_object` names, unless it is Django's settings."""
        file, inner = self.celery_config(path, reads.args[0] if reads.args else keyword(reads, "obj"))
        tree = self.files.tree(file) if file else None
        if not file or not tree:
            return
        names = self.files.constants(file, self.places)
        classes = {each.name: each.body for each in tree.body if isinstance(each, ast.ClassDef)}
        prefix, new = f"{self.namespace}_" if self.namespace else "", {old: name for name, old in OLD.items()}
        for each in statements(classes.get(inner, tree.body)):
            if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
                name = each.targets[0].id
                names[name] = evaluate(each.value, names)
                setting = new.get(name) or name.removeprefix(prefix).lower()
                self.celery_conf.setdefault(setting, []).append(Value(names[name], Place(file, each.lineno)))

    def celery_config(self, path: Path, named: ast.expr | None) -> tuple[Path | None, str]:
        """Find the file of Celery's settings, and the class in it if it is one."""
        if isinstance(named, ast.Constant):
            module, _, inner = str(named.value).partition(":")
            return self.files.module(module, self.places), inner
        tree = self.files.tree(path)
        for each in statements(tree.body) if tree else ():
            if isinstance(each, ast.ClassDef) and each.name == name_of(named or each):
                return path, each.name
            if not isinstance(each, (ast.Import, ast.ImportFrom)):
                continue
            for alias in each.names:
                if name_of(named or each) != (alias.asname or alias.name):
                    continue
                if isinstance(each, ast.Import):
                    return self.files.module(alias.name, self.places), ""
                within = ast.ImportFrom(f"{each.module}.{alias.name}" if each.module else alias.name, [], each.level)
                module_of_it = self.files.imported(path, within, self.places)
                return module_of_it or self.files.imported(path, each, self.places), alias.name
        return None, ""

    def celery_setting(self, name: str) -> Value | None:
        """Return one of Celery's settings, such as `task_routes`, from the settings or from its module."""
        if name in self.celery_conf:
            return self.celery_conf[name][-1]
        if self.namespace is None:
            return None
        names = [f"{self.namespace}_{name}".upper().lstrip("_"), OLD.get(name, "")]
        return next((value for each in names if (value := self.setting(each))), None)

    # Pages, files, environment

    def read_pages(self) -> None:
        """Find a page that shows whether the application works."""
        root = self.setting("ROOT_URLCONF")
        found = telling_page(self.files, self.places, str(root.value)) if root else None
        if found:
            self.find("smoke_request", found[0], self.at(found[1]))
        else:
            self.ask(
                "Which page shows that the application works? None was found in the URL configuration: smoke_request says '/' "
                "until you name one."
            )

    def read_environment(self) -> None:
        """Find the environment variables that the settings read without a default."""
        for file in self.settings_files:
            tree = self.files.tree(file)
            given: set[str] = set()
            for node in ast.walk(tree) if tree else ():
                if isinstance(node, ast.Call) and name_of(node.func).rpartition(".")[2] == "Env":
                    given |= {each.arg for each in node.keywords if each.arg}
                read = variable(node)
                if (
                    read
                    and read[1] is None
                    and not isinstance(getattr(node, "ctx", None), ast.Store)
                    and read[0] not in given
                ):
                    self.project.environment.setdefault(read[0], f"{file}:{getattr(node, 'lineno', 1)}")

    def read_middleware(self) -> None:
        """Find which of the classes that `check --deploy` asks for are not in MIDDLEWARE."""
        value = self.setting("MIDDLEWARE")
        if value and isinstance(value.value, list) and UNKNOWN not in value.value:
            self.project.missing_middleware = {
                check: Found(name, self.at(value.place))
                for check, name in MIDDLEWARE.items()
                if name not in value.value
            }

    def python_path(self) -> None:
        """Say from which folder modules are imported, if it is not the top."""
        apps = self.setting("INSTALLED_APPS")
        self.project.installed = (
            [name for name in apps.value if isinstance(name, str)] if apps and isinstance(apps.value, list) else []
        )
        wanted = [
            str(found.value).partition(":")[0]
            for name in ("app_settings_module", "app_wsgi", "ASGI application", "app_celery")
            if (found := self.project.found.get(name))
        ]
        for module in [*wanted, *self.project.installed]:
            first = module.partition(".")[0]
            if self.has(Path(), first):
                continue
            for place in self.places[1:]:
                if place != LIBRARY and self.has(place, first):
                    if self.project.python_path in ("", str(place)):
                        self.project.python_path = str(place)
                        self.find("app_python_path", str(place), f"{place}/{first}")
                    else:
                        self.ask(
                            f"{first} is imported from {place}/, and app_python_path is {self.project.python_path}: only one folder can be set."
                        )
                    break

    def look_elsewhere(self) -> None:
        """List the modules of packages that may have the applications or settings that the project's files do not have."""
        served = self.project.found.keys() & {"app_wsgi", "ASGI application"}
        names = [*self.taken_from, *([] if served and "app_celery" in self.project.found else self.project.installed)]
        firsts = dict.fromkeys(name.partition(".")[0] for name in names)
        self.project.elsewhere = [
            name for name in firsts if name != "django" and not any(self.has(place, name) for place in self.places)
        ]

    def has(self, place: Path, name: str) -> bool:
        """Whether a folder has a module or package of this name."""
        path = self.project.folder / place / name
        return (
            path.with_name(f"{name}.py").is_file()
            or any(path.glob("*.py"))
            or (path.is_dir() and any(path.glob("*/*.py")))
        )

    def find_files(self) -> None:
        """Say where static files and uploads are, and what else of the project matters."""
        for name in ("STATIC_URL", "STATIC_ROOT", "MEDIA_URL", "MEDIA_ROOT"):
            if (value := self.setting(name)) and isinstance(value.value, str):
                self.find(name, value.value, self.at(value.place))
        shared = {
            found[1]: self.at(values[-1].place)
            for values in self.settings.values()
            if isinstance(values[-1].value, str)
            and (found := re.match(rf"/srv/{self.project.name}/shared/([\w.-]+)", values[-1].value))
            and found[1] != "media"
        }
        if shared:
            self.find("app_writable", list(shared), ", ".join(dict.fromkeys(shared.values())))
        media = self.project.found.get("MEDIA_URL")
        if media and re.fullmatch(r"/?[\w./-]+/", str(media.value)) and str(media.value).strip("/") != "media":
            self.find("nginx_media_url", f"/{str(media.value).strip('/')}/", media.where)
        if private := self.settings.get("SENDFILE_ROOT"):
            self.find("nginx_media_url", "", self.at(private[-1].place))
            self.ask(
                "Are some uploads public? The project sends private ones with django-sendfile2, so nginx_media_url is empty, and "
                "uploads cannot be read at their paths. docs/edge.md shows how to have both."
            )
        for name, where in self.configuration().items():
            self.ask(
                f"{where} chooses a class of django-configurations: set app_environment: {{DJANGO_CONFIGURATION: {name}}}."
            )

    def configuration(self) -> dict[str, str]:
        """Return the class of django-configurations that the programs choose, and where."""
        for path in (*(each for each in self.own if each.name == "wsgi.py"), Path("manage.py")):
            tree = self.files.tree(path)
            for node in ast.walk(tree) if tree else ():
                if (
                    isinstance(node, ast.Call)
                    and name_of(node.func).endswith("environ.setdefault")
                    and len(node.args) == 2
                ):
                    key, value = (evaluate(each, {}) for each in node.args)
                    if key == "DJANGO_CONFIGURATION" and isinstance(value, str):
                        classes = [
                            each.name
                            for file in self.settings_files
                            for each in ast.walk(self.files.tree(file) or ast.Module([], []))
                            if isinstance(each, ast.ClassDef) and PRODUCTION.search(each.name.lower())
                        ]
                        return {(classes or [value])[0]: f"{path}:{node.lineno}"}
        return {}


def read(app: Path, said: str, given: dict[str, str], library: Path | None = None) -> Project:
    """Read a project.

    :param app: its folder.
    :param said: `APP`, as it was given.
    :param given: what the operator decided: `SETTINGS`, `WSGI`, `CELERY`, `NAME`.
    :param library: a folder with packages in which to look for what the project's own files do not have.
    :returns: what was found, with the problems that are to be refused.

    Raises RefusedError when there is no project.
    """
    return Reader(folder_of(app, said), given, library).read()


def python_wanted(folders: list[Path]) -> list[Found]:
    """Return what a project says of its Python, from pyproject.toml, .python-version, runtime.txt and Pipfile.

    :param folders: where these may be; the first that has one counts.
    """
    found: list[Found] = []
    for folder in folders:
        for name in ("pyproject.toml", "Pipfile", ".python-version", "runtime.txt"):
            path = folder / name
            if not path.is_file() or any(each.where.startswith(f"{name}:") for each in found):
                continue
            text = path.read_text(errors="replace")
            value = ""
            if name.endswith(".toml") or name == "Pipfile":
                try:
                    told = tomllib.loads(text)
                except tomllib.TOMLDecodeError:
                    continue
                poetry = told.get("tool", {}).get("poetry", {}).get("dependencies", {})
                value = told.get("project", {}).get("requires-python") or poetry.get("python") or ""
                value = value or told.get("requires", {}).get("python_version", "")
            else:
                value = next(
                    (line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")), ""
                )
            if isinstance(value, str) and value:
                line = next((n for n, each in enumerate(text.splitlines(), 1) if value in each), 1)
                found.append(Found(value.removeprefix("python-"), f"{name}:{line}"))
    return found
