"""Wrong inventories by the dozen: each is refused by the variable's name and leaves the host as it was; strange ones are right."""

import copy
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import strategies
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from inventory import variable_problems
from support.playbooks import ROOT, play

pytestmark = [pytest.mark.one_host, pytest.mark.changes, pytest.mark.group("web")]
SETS = 14  # the variables are divided into so many sets, with wrong values
EXAMPLES, MISSPELT = 2, 3  # of each set, and of misspelt names
LONGEST = 4000  # characters of a value that a message may hold
FINGERPRINT = """
find /etc /usr/local /srv /opt /root/.[bps]* /var/lib/redis/*/*.conf /var/lib/nginx -not -type s -printf '%p %y %m %u %g %s %T@ %l\\n' 2>/dev/null | sort
find /var/spool /run/systemd/system -printf '%p %T@\\n' | sort
systemctl list-units --all --plain --no-legend --type=service,socket,target,slice,timer | grep -v -e session -e user -e run- -e '^systemd-.*@' | sort
getent passwd; getent group; dpkg-query --show; nft list ruleset; sysctl --all 2>/dev/null | grep -e overcommit_memory -e nonlocal_bind
"""


class Inventories:
    """Inventories beside a good one's variables, each a file with other host variables or groups."""

    def __init__(self, good, host):
        """Make the folder; it lies as deep in the project as the good one's, whose variables name it from there."""
        path = ROOT / good
        path = path / "hosts.yml" if path.is_dir() else path
        self.host, self.good = host, yaml.safe_load(path.read_text())
        self.folder = ROOT / ".cache/fuzz"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / "group_vars").symlink_to(path.parent / "group_vars")

    def make(self, name, variables, change=lambda children: None):
        """Write one; return its path."""
        all_ = copy.deepcopy(self.good)["all"]
        all_["hosts"] = {self.host: (all_["hosts"][self.host] or {}) | variables}
        change(all_["children"])
        path = self.folder / f"{name}.yml"
        path.write_text(yaml.safe_dump({"all": all_}, allow_unicode=True))
        return path

    def make_beside(self, name, sets):
        """Write one in which the host stands once more for each set of variables; return its path."""
        all_ = copy.deepcopy(self.good)["all"]
        own = (all_["hosts"][self.host] or {}) | {"ansible_host": self.host}
        all_["hosts"] |= {f"set{at:02}": own | variables for at, variables in enumerate(sets)}
        path = self.folder / f"{name}.yml"
        path.write_text(yaml.safe_dump({"all": all_}, allow_unicode=True))
        return path


@pytest.fixture(scope="module")
def inventories(inventory, host):
    made = Inventories(inventory, host.backend.get_hostname())
    yield made
    shutil.rmtree(made.folder)


def is_refused(name, value):
    """Whether the check of variables refuses a value by the variable's name."""
    return any(name in problem for problem in variable_problems({name: value}, str(ROOT)))


def is_read_as_written(value):
    """Whether Ansible reads from a file what was written there: templates are evaluated, and YAML has no NaN."""
    text = yaml.safe_dump(value, allow_unicode=True)
    return not re.search(r"{[{%#]", text) and yaml.safe_load(text) == value


def wrong_values(name):
    """Generate wrong values for a variable, and a template with an undefined variable."""
    fixed = [value for value in strategies.fixed(name) if value != "{{ 7 * 7 }}" and is_refused(name, value)]
    more = strategies.values(name).filter(lambda value: is_read_as_written(value) and is_refused(name, value))
    return st.sampled_from([*fixed, "{{ nope }}"]) | more


def examples(strategy, number):
    """Return so many values that Hypothesis generates, without the first, which is the simplest one."""
    found = []

    @settings(max_examples=number + 1)
    @given(strategy)
    def keep(value):
        found.append(value)

    keep()
    return found[1:]


def wrong_variables():
    """Sets of wrong variables: each public one is in two, with different values."""
    names = list(strategies.OPTIONS)
    sets = [{name: 1} for name in examples(st.sampled_from(names).flatmap(strategies.misspelt), MISSPELT)]
    for start in range(SETS):
        wrong = {name: wrong_values(name) for name in names[start::SETS]}
        sets += examples(st.fixed_dictionaries(wrong), EXAMPLES)
    return sets


def without(group):
    return lambda children: children.pop(group)


def renamed(group, other):
    return lambda children: children.update({other: children.pop(group)})


def doubled(group):
    """Another host in the group, with no address and with the same name for the connection."""
    return lambda children: children[group]["hosts"].update({"another": {"ansible_host": "192.0.2.1"}})


def wrong_groups():
    """Each change of the groups, with the words by which it is refused."""
    yield from (({}, without(group), [f"group '{group}' has no host"]) for group in strategies.GROUPS)
    yield {}, renamed("workers", "worker"), ["group 'workers' has no host"]
    yield {}, doubled("redis"), ["'redis' has 2 hosts", "app_private_address of another is ''"]
    yield {}, doubled("web"), ["app_private_address of another is ''"]


def refusal_problems(said, words):
    """What is not as a refusal should be in what Ansible says."""
    said = re.sub(r"\s+", " ", said)
    problems = [f"does not say {word}" for word in words if re.sub(r"\s+", " ", word) not in said]
    problems += ["changes something"] if re.search(r"changed=[1-9]", said) else []
    bad = (
        "Traceback (most recent",
        "Unexpected failure",
        "Finalization of task args",
        "Conditional result",
        "MODULE FAILURE",
    )
    problems += [f"says {word}" for word in bad if word in said]
    undefined = "is undefined" in re.sub("cannot be worked out: ''?nope''? is undefined", "", said)
    return problems + ["says undefined"] * undefined


def test_wrong_variables_are_refused_by_name(inventories):
    """Asked of the controller alone, and so in one run, in which the host stands for each set."""
    sets = wrong_variables()
    assert len(sets) >= 30
    result = play(inventories.make_beside("sets", sets), "preflight")
    assert result.returncode != 0 and "Read the state of the host" not in result.stdout, "no host was asked"
    _, *parts = re.split(r"fatal: \[(set\d+)\]: FAILED!", result.stdout)
    said = dict(zip(parts[::2], parts[1::2], strict=True))
    assert sorted(said) == [f"set{at:02}" for at in range(len(sets))], "accepted"
    found = {at: refusal_problems(said[f"set{at:02}"], variables) for at, variables in enumerate(sets)}
    wrong = [f"{sets[at]}: {problems}\n{said[f'set{at:02}'][:LONGEST]}" for at, problems in found.items() if problems]
    assert not wrong, "\n\n".join(wrong)


def test_inventories_that_are_wrong_as_a_whole_touch_nothing(shell, inventories):
    cases = [(variables, lambda _: None, list(variables)[:1]) for variables in strategies.LATER] + list(wrong_groups())
    assert len(cases) >= 30
    if not os.environ.get("THOROUGH"):
        cases = cases[::10]
    made = [inventories.make(f"{at:02}", *case[:2]) for at, case in enumerate(cases)]
    before = shell(FINGERPRINT)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda path: play(path, "preflight", f"--limit={inventories.host}"), made))
    for case, path, result in zip(cases, made, results, strict=True):
        problems = refusal_problems(result.stdout + result.stderr, case[2])
        told = f"{path.read_text()[:LONGEST]}\n{result.stdout[:LONGEST]}"
        assert result.returncode != 0 and not problems, f"{problems}\n{told}"
    assert shell(FINGERPRINT).splitlines() == before.splitlines()


@pytest.mark.thorough
def test_the_far_end_of_what_is_right_passes(inventories):
    path = inventories.make("most", strategies.MOST)
    result = play(path, "site", f"--limit={inventories.host}", "--check", "--diff")
    assert result.returncode == 0, result.stdout[-LONGEST:]
