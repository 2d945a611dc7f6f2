"""Wrong inventories by the dozen: each is refused by the variable's name and leaves the host as it was; strange ones are right."""

import copy
import os
import random
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest
import yaml
from conftest import ROOT, ansible

sys.path += [str(ROOT / "tests"), str(ROOT / "plugins/filter")]
fuzz, checks = import_module("fuzz"), import_module("inventory")

pytestmark = [pytest.mark.changes, pytest.mark.group("web")]
WRONG, EACH = 27, 6  # so many inventories of so many wrong variables; with what else is wrong there are more than 60
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


@pytest.fixture(scope="module")
def inventories(inventory, host):
    made = Inventories(inventory, host.backend.get_hostname())
    yield made
    shutil.rmtree(made.folder)


def in_process(name, value):
    """What the check of variables says of one."""
    return checks.variable_problems({name: value}, str(ROOT))


def wrong_variables():
    """Sets of wrong variables: each public one is in a set at least once."""
    chance, names = random.Random(fuzz.SEED), list(fuzz.options())  # noqa: S311
    chance.shuffle(names)
    sets = [{} for _ in range(WRONG)]
    for at in range(WRONG * EACH):
        name = names[at % len(names)]
        values = [v for v in fuzz.mutations(name) if any(name in p for p in in_process(name, v)) or v == "{{ nope }}"]
        values = [v for v in values if v != "{{ 7 * 7 }}"]  # a number, when it is worked out
        values.append("{{ nope }}")
        sets[at % WRONG][name] = chance.choice(values)
    return [*({fuzz.misspelt(n, chance): 1} for n in chance.sample(names, 3)), *sets]


def without(group):
    return lambda children: children.pop(group)


def renamed(group, other):
    return lambda children: children.update({other: children.pop(group)})


def doubled(group):
    """Another host in the group, with no address and with the same name for the connection."""
    return lambda children: children[group]["hosts"].update({"another": {"ansible_host": "192.0.2.1"}})


def wrong_groups():
    """Each change of the groups, with the words by which it is refused."""
    yield from (({}, without(group), [f"group '{group}' has no host"]) for group in fuzz.GROUPS)
    yield {}, renamed("workers", "worker"), ["group 'workers' has no host"]
    yield {}, doubled("beat"), ["'beat' has 2 hosts", "app_private_address of another is ''"]
    yield {}, doubled("web"), ["app_private_address of another is ''"]


def play(path, host, name, *arguments):
    return ansible("ansible-playbook", "-i", str(path), f"--limit={host}", f"playbooks/{name}.yml", *arguments)


def refusal_problems(path, host, words):
    """What is not as a refusal should be."""
    result = play(path, host, "preflight")
    said = re.sub(r"\s+", " ", result.stdout + result.stderr)
    problems = [f"does not say {word}" for word in words if re.sub(r"\s+", " ", word) not in said]
    problems += ["succeeds"] if result.returncode == 0 else []
    problems += ["changes something"] if re.search(r"changed=[1-9]", said) else []
    bad = (
        "Traceback (most recent",
        "Unexpected failure",
        "Finalization of task args",
        "Conditional result",
        "MODULE FAILURE",
    )
    problems += [f"says {word}" for word in bad if word in said]
    problems += (
        ["says undefined"] if "is undefined" in said.replace("cannot be worked out: 'nope' is undefined", "") else []
    )
    return (
        f"{path.stem}: {', '.join(problems)}\n{path.read_text()[:LONGEST]}\n{result.stdout[:LONGEST]}"
        if problems
        else ""
    )


def test_wrong_inventories_are_refused_by_name_and_touch_nothing(host, shell, inventories):
    print(f"FUZZ_SEED={fuzz.SEED}")
    name = inventories.host
    cases = [(variables, lambda _: None, list(variables)) for variables in wrong_variables()]
    cases += [(variables, lambda _: None, list(variables)[:1]) for variables in fuzz.LATER]
    cases += wrong_groups()
    made = [(inventories.make(f"{at:02}", *case[:2]), name, case[2]) for at, case in enumerate(cases)]
    assert len(made) >= 60
    before = shell(FINGERPRINT)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda case: refusal_problems(*case), made))
    if any(found):
        pytest.fail("\n\n".join(filter(None, found)), pytrace=False)
    assert shell(FINGERPRINT).splitlines() == before.splitlines()


@pytest.mark.parametrize("values", ["LEAST", "MOST"])
def test_the_far_ends_of_what_is_right_pass(inventories, values):
    path = inventories.make(values, getattr(fuzz, values))
    result = play(path, inventories.host, "site", "--check", "--diff")
    assert result.returncode == 0, result.stdout[-LONGEST:]
