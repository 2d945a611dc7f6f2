"""House rules: what a newcomer may rely on in every role."""

import ast
import re
import subprocess
from pathlib import Path

import document_variables
import pytest
import yaml
from coldframe.versions import TRIED
from preflight import SUPPORTED

ROOT = Path(__file__).parents[1]
SECRET = re.compile(r"password|credentials\b|secret_key|app_tls_\w+\.key")
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def load(path):
    return yaml.safe_load(path.read_text()) or {}


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_say_the_same(role):
    defaults = load(ROOT / f"roles/{role}/defaults/main.yml")
    options = load(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    described = {name: option["default"] for name, option in options.items() if not option.get("required")}
    assert described == defaults
    for name, option in options.items():
        assert {"description", "type"} <= set(option), name


@pytest.mark.parametrize("role", ROLES)
def test_meta_and_argument_specs_describe_a_role_alike(role):
    meta, spec = (load(ROOT / f"roles/{role}/meta/{name}.yml") for name in ("main", "argument_specs"))
    assert meta["galaxy_info"]["description"] == spec["argument_specs"]["main"]["short_description"]


@pytest.mark.parametrize("role", ROLES)
def test_main_is_phases_on_one_screen(role):
    path = ROOT / f"roles/{role}/tasks/main.yml"
    assert len(path.read_text().splitlines()) <= 40
    for task in load(path):
        assert {"ansible.builtin.import_tasks", "ansible.builtin.include_tasks"} & set(task), task["name"]


def test_the_preflight_asks_every_role_once_and_reports_what_it_found():
    """A role's own tasks do not check again, and what one found is in the report."""
    roles = {path.parents[1].name for path in ROOT.glob("roles/*/tasks/preflight.yml")}
    imports = [*load(ROOT / "playbooks/tasks/preflight.yml"), *load(ROOT / "playbooks/tasks/roles.yml")]
    report, *_ = load(ROOT / "playbooks/tasks/refuse.yml")
    asked = [task["ansible.builtin.import_role"] for task in imports if "ansible.builtin.import_role" in task]
    assert sorted(role["name"] for role in asked) == sorted(roles)
    assert {role["tasks_from"] for role in asked} == {"preflight.yml"}
    reported = re.findall(r"__(\w+)_problems", report["vars"]["preflight_problems"])
    assert sorted(reported) == sorted(roles)
    for role in roles:
        assert f"__{role}_problems" in load(ROOT / f"roles/{role}/vars/main.yml"), role
        assert "preflight.yml" not in (ROOT / f"roles/{role}/tasks/main.yml").read_text(), role


@pytest.mark.parametrize("role", ROLES)
def test_variables_bear_the_roles_name(role):
    names = set(load(ROOT / f"roles/{role}/defaults/main.yml"))
    file = ROOT / f"roles/{role}/vars/main.yml"
    names |= set(load(file)) if file.exists() else set()
    shared = "celery_" if role == "app" else f"{role}_"
    assert [name for name in names if not name.lstrip("_").startswith((f"{role}_", shared))] == []


def test_a_role_reads_no_internal_variable_of_another():
    own = "|".join(sorted({role.split("_")[0] for role in ROLES}))
    for path in (path for end in ("yml", "j2") for path in (ROOT / "roles").rglob(f"*.{end}")):
        role = path.relative_to(ROOT / "roles").parts[0].split("_")[0]
        read = set(re.findall(rf"\b__(?:{own})_\w+", path.read_text()))
        assert {name for name in read if not name.startswith(f"__{role}_")} == set(), path


def test_nothing_but_the_inventory_names_the_stub():
    places = [
        *ROOT.glob("roles/**/*"),
        *ROOT.glob("systemd/*"),
        *ROOT.glob("plugins/*/*.py"),
        *ROOT.glob("playbooks/**/*"),
    ]
    for path in places:
        if path.is_file() and "__pycache__" not in path.parts:
            text = re.sub(r'EXAMPLES = r""".*?"""', "", path.read_text(), flags=re.DOTALL)
            text = re.sub(r"#.*|description:.*", "", text)
            assert not re.search(r"\b(shop|orders|app_stub)\b", text), path


def test_secret_tasks_log_nothing():
    for path in ROOT.glob("roles/*/tasks/*.yml"):
        for task in (part for entry in load(path) for part in entry.get("block", [entry])):
            # A check names variables and shows no secret.
            facts = list(task.get("ansible.builtin.set_fact", {}))
            check = "assert" in str(task) or (len(facts) == 1 and facts[0].endswith("_problems"))
            if SECRET.search(str(task)) and not check:
                hidden = task.get("no_log") is True or "release_artifact" in task  # the module hides its secrets itself
                assert hidden, f"{path.name}: {task['name']}"


def test_variables_page_is_current():
    assert (ROOT / "docs/variables.md").read_text() == document_variables.render(), (
        "run: python bin/document_variables.py"
    )


# What `make verify` asks of servers that people use: nothing that the example alone has, and nothing that could harm.
LEFT_OUT = {"changes", "example", "attack"}
OF_THE_EXAMPLE = re.compile(r"/healthz|/readyz|/admin/|\borders\b|\bapp_stub\b|\bshop\b")


def test_verify_asks_any_application():
    assert '"-m", "not changes and not example and not attack"' in (ROOT / "bin/verify").read_text()
    for path in sorted((ROOT / "molecule/tests").glob("test_*.py")):
        source = path.read_text()
        of_module = set(re.findall(r"^pytestmark = (?:\[[^\]]*\]|.*)", source, re.MULTILINE))
        for test in ast.parse(source).body:
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                text = "\n".join(
                    source.split("\n")[
                        test.decorator_list[0].lineno - 1 if test.decorator_list else test.lineno - 1 : test.end_lineno
                    ]
                )
                marks = set(re.findall(r"pytest\.mark\.(\w+)", text + "".join(of_module)))
                if not marks & LEFT_OUT:
                    assert not OF_THE_EXAMPLE.search(text), f"{path.name}: {test.name} needs the mark example"


def imported(tasks, folder):
    """What tasks of a file in a folder import of roles: each name, the file or `main.yml`, and the condition if there is one."""
    for task in tasks or []:
        if role := task.get("ansible.builtin.import_role"):
            yield role["name"], role.get("tasks_from", "main.yml"), task.get("when")
        if file := task.get("ansible.builtin.import_tasks"):
            yield from imported(load(folder / file), (folder / file).parent)
        for part in ("block", "rescue", "always"):
            yield from imported(task.get(part), folder)


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("*.yml")), ids=lambda path: path.name)
def test_a_play_that_imports_roles_imports_their_variables(path):
    """They are those of the role app. As its dependency, each import of a role would load it again: Ansible started twice as slowly."""
    for play in load(path):
        names = {name for name, _, _ in imported(play.get("tasks"), path.parent)}
        assert not names or "app" in names, play["name"]


def entries(value):
    """All mappings of a value, and what they are in."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from entries(each)


def test_a_specification_is_loaded_by_no_import():
    """The variables are checked at once (playbooks/tasks/variables.yml)."""
    asks = ("ansible.builtin.import_role", "ansible.builtin.include_role")
    files = [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]
    asked = [(path.name, entry[ask]) for path in files for entry in entries(load(path)) for ask in asks if ask in entry]
    assert [each for each in asked if each[1].get("rolespec_validate") is not False] == [] and len(asked) > 50
    assert [role for role in ROLES if load(ROOT / f"roles/{role}/meta/main.yml")["dependencies"]] == []


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("*.yml")), ids=lambda path: path.name)
def test_a_play_imports_a_role_whose_handlers_it_runs_once(path):
    """The condition of the last import counts for the handlers of all: one that does not hold skips them."""
    for play in load(path):
        # The tasks of the role app change no host, so they notify nobody.
        imports = [each for each in imported(play.get("tasks"), path.parent) if each[0] != "app"]
        whole = [
            name for name, file, _ in imports if file == "main.yml" and (ROOT / "roles" / name / "handlers").is_dir()
        ]
        assert [name for name, *_ in imports if name in whole] == whole, play["name"]
        # Those of the role app are loaded with each role that depends on it.
        assert not whole or imports[-1][2] is None, play["name"]


def test_hosts_of_scenarios_have_ports_of_their_own():
    texts = [path.read_text() for path in ROOT.glob("molecule/*/hosts.yml")]
    slots = [int(slot) for slot in re.findall(r"molecule_slot: (\d+)", "".join(texts))]
    assert len(slots) >= len(texts) and len(set(slots)) == len(slots)
    assert set(slots) <= set(range(12)), "molecule/group_vars/all/scenario.yml has ports for so many"


def test_generated_values_are_the_same_in_every_run():
    """tests/strategies.py sets Hypothesis' profile."""
    for path in [*ROOT.glob("tests/test_*.py"), *ROOT.glob("molecule/**/test_*.py")]:
        imported = set(re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
        assert "hypothesis" not in imported or "strategies" in imported, path.name


def test_scenarios_choose_host_tests_by_their_marks():
    """A new file of host tests needs no change elsewhere."""
    for path in ROOT.glob("molecule/*/molecule.yml"):
        assert set(load(path)["verifier"].get("options", {})) <= {"hosts", "m"}, path


def test_host_tests_share_by_support_and_conftest_alone():
    """A helper is in molecule/support, a fixture in molecule/conftest.py: none is imported from a module of tests."""
    for path in ROOT.glob("molecule/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith(("conftest", "test_")), f"{path.name}: {node.module}"


@pytest.mark.parametrize("folder", ["tests", "runtime/tests", "molecule"])
def test_no_module_of_tests_imports_another(folder):
    """What several of them use is in a module of its own."""
    for path in ROOT.glob(f"{folder}/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("test_")], f"{path.name}: {names}"


MAKEFILE = (ROOT / "Makefile").read_text()
# A target that is no file, with its prerequisites; not the lines that set a variable for targets.
TARGETS = re.compile(r"^([a-z][a-z-]*%?):(?! \S+ [?:]?=| export )(.*)$", re.MULTILINE)
# A playbook that is a step of another verb.
STEPS = {"wait_for_drain": "rotate-secret", "servers": "manage"}


def targets():
    """Map each Make target to its help text and its recipe."""
    found = {}
    for match in TARGETS.finditer(MAKEFILE):
        recipe = re.match(r"\n((?:\t.*\n|@.*\n)*)", MAKEFILE[match.end() :])
        found[match[1]] = (match[2].partition("## ")[2], recipe[1] if recipe else "")
    return found


def test_every_make_target_has_a_help_text_and_is_phony():
    assert [name for name, (text, _) in targets().items() if not text] == []
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    assert sorted(phony) == sorted(name for name in targets() if "%" not in name)


def test_make_prints_the_help_text_of_every_target():
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name, (text, _) in targets().items():
        assert re.search(rf"^  make {name} +{re.escape(text)}$", shown, re.MULTILINE), name


@pytest.mark.parametrize("playbook", sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml")))
def test_every_playbook_is_a_make_target_of_its_name(playbook):
    imported = "".join(path.read_text() for path in (ROOT / "playbooks").glob("*.yml"))
    users = [name for name, (_, recipe) in targets().items() if f" playbooks/{playbook}.yml" in recipe]
    if not users and f"import_playbook: {playbook}.yml" in imported:
        return  # a part of other playbooks
    assert STEPS.get(playbook, playbook.replace("_", "-")) in users, users


def test_make_runs_playbooks_that_exist():
    names = set(re.findall(r"playbooks/([\w-]+\.yml)", MAKEFILE))
    assert names and all((ROOT / "playbooks" / name).exists() for name in names)


# Their folder is what they are about: the host image, measurements, the example application and what Molecule deploys.
PROGRAMS = ("bin/", ".ci/run", "app_stub/manage.py", "bench/", "docker/", "molecule/application/")


def test_programs_are_in_bin():
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    programs = [line.split("\t")[1] for line in listed.splitlines() if line.startswith("100755")]
    assert [name for name in programs if not name.startswith(PROGRAMS)] == []
    others = "".join(
        (ROOT / name).read_text() for name in ("Makefile", "README.md", "CONTRIBUTING.md", "bin/bootstrap")
    )
    assert [name for name in programs if name.startswith("bin/") and name not in others] == []


def test_pre_commit_runs_the_commands_of_make_lint():
    linters = "".join(recipe for name, (_, recipe) in targets().items() if name.startswith("lint-"))
    wanted = linters.replace("$$", "$").replace("'", "")
    hooks = [hook for repository in load(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    commands = [hook["entry"].removeprefix("env LC_ALL=C.UTF-8 ").removeprefix(".venv/bin/") for hook in hooks]
    assert [command for command in commands if command not in wanted] == []
    assert {command.split()[0] for command in commands} == {"ruff", "detect-secrets-hook", "ansible-lint"}
    assert all(hook["language"] == "system" for hook in hooks), "nothing is fetched"


def test_security_page_names_the_supported_versions():
    text = (ROOT / "SECURITY.md").read_text()
    assert f"| Debian, on the servers | {', '.join(SUPPORTED['Debian'])} |" in text
    for package, ranges in TRIED.items():
        versions = " or ".join(f"`{range_}`" for range_ in ranges)
        assert re.search(rf"^\| `{package}`.* \| {re.escape(versions)} \|$", text, re.MULTILINE), package


def test_changelog_has_the_version_and_what_an_operator_must_do():
    version = (ROOT / "VERSION").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", version), "one line, as semver.org has it"
    first, *released = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    assert first.startswith("[Unreleased]\n")
    assert re.match(rf"\[{re.escape(version.strip())}\] - \d{{4}}-\d{{2}}-\d{{2}}\n", released[0])
    for part in (first, *released):
        assert part.count("\n### What an operator must do\n") == 1, part[:20]


def test_readme_shows_the_version():
    shown = set(re.findall(r"Coldframe (\d+\.\d+\.\d+)", (ROOT / "README.md").read_text()))
    assert shown == {(ROOT / "VERSION").read_text().strip()}


def test_contributing_names_files_and_tests_that_exist():
    names = set(re.findall(r"`([^`\s]+)`", (ROOT / "CONTRIBUTING.md").read_text()))
    tests = [path for folder in ("tests", "molecule/tests") for path in (ROOT / folder).glob("*.py")]
    functions = {name for path in tests for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)}
    assert {name for name in names if re.fullmatch(r"test_\w+", name)} <= functions
    assert {name for name in names if re.fullmatch(r"test_\w+\.py", name)} <= {path.name for path in tests}
    folders = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir())
    files = [name for name in names if name.startswith(folders) and not re.search(r"ROLE|NAME|[{*]", name)]
    assert files and [name for name in files if not (ROOT / name).exists()] == []
