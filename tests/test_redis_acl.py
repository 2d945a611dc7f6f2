"""The access lists that Redis reads, and what redis-cli is given to read."""

import base64
import hashlib
import re
import string
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from hypothesis import example, given
from redis_acl import redis_acl_commands, redis_login
from strategies import PASSWORD

ROOT = Path(__file__).parents[1]
ROLE = ROOT / "roles/redis"
TABLE = DataLoader().load_from_file(str(ROLE / "vars/main.yml"), trusted_as_template=True)
USERS = TABLE["redis_users"]
SENDERS = ("web", "worker", "beat")


def split(line):
    """Split a line into words as redis-cli does: within double quotes a backslash makes the next character plain."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"(?=\s|$)|([^\s"]\S*)', line)
    return [re.sub(r"\\(.)", r"\1", quoted) or plain for quoted, plain in words]


@given(PASSWORD)
@example("Zx9\"kQ'v7-Lm2pRt8w")
@example('-"\\\\"x9$(id)`%n#;;\\')
@example(string.punctuation)
def test_any_password_that_the_checks_accept_is_read_as_it_is(password):
    login = redis_login({"admin": password})
    assert login.endswith("\n") and split(login.rstrip("\n")) == ["AUTH", "admin", password]


def test_who_is_gone_from_the_access_list_is_deleted():
    before = "user default off\nuser exporter on #00 +ping\nuser web on #00 +ping\n"
    said = redis_acl_commands("user default off\nuser web on #00 +get\n", {"admin": "a"}, before)
    assert said.splitlines()[1:] == [
        "ACL SETUSER default reset off",
        "ACL SETUSER web reset on #00 +get",
        "ACL DELUSER exporter",
    ]


def test_access_list_becomes_commands_after_the_login():
    said = redis_acl_commands("# managed\nuser web on #00 ~a +ping\nuser default off\n", {"admin": 'a"b', "web": "x"})
    assert said.splitlines() == [
        r'AUTH admin "a\"b"',
        "ACL SETUSER web reset on #00 ~a +ping",
        "ACL SETUSER default reset off",
    ]


def access_list(instance, debian="13", control=True, before="", old=None, passwords=None, asgi="shop.asgi:application"):
    """An instance's access list, user to sets of rules: the user's own, and then one for each selector."""
    given = {
        "ansible_facts": {"distribution_major_version": debian},
        "app_asgi": asgi,
        "app_broker_index": 0,
        "app_managed": {},
        "app_name": "shop",
        "app_redis_names": {user: user for user in USERS[instance] | USERS["broker"]},
        "app_redis_passwords": {user: f"of {user}" for user in USERS[instance]} if passwords is None else passwords,
        "app_redis_passwords_before": old or {},
        "celery_default_queue": "default",
        "celery_queues": {"default": {}, "mail": {}},
        "item": instance,
        "redis_acl_before": {"results": [{"item": "broker", "content": base64.b64encode(before.encode()).decode()}]},
        "redis_web_control": control,
    }
    templar = Templar(DataLoader(), variables=TABLE | given)
    text = templar.template(trust_as_template((ROLE / "templates/users.acl.j2").read_text()))
    assert text.endswith("\n") and "\n\n" not in text.rstrip() + "\n" and "  " not in text
    users = dict(re.fullmatch(r"user (\S+) (.+)", line).groups() for line in text.splitlines() if line)
    return {user: [part.split() for part in re.split(r" \(|\) \(|\)$", rules) if part] for user, rules in users.items()}


def test_who_is_named_elsewhere_is_in_the_table():
    named = {"app_redis_logins\\.": 0, "app_redis_names\\.": 0, "redis_user = '": 0, "secrets/redis_": 0}
    everyone = {user: rules for users in USERS.values() for user, rules in users.items()}
    for path in (path for folder in ("roles", "systemd", "playbooks") for path in (ROOT / folder).rglob("*")):
        if path.is_file() and path.suffix in (".yml", ".j2"):
            for before in named:
                for user in re.findall(rf"{before}(?!values)([a-z]+)", path.read_text()):
                    named[before] += 1
                    assert user in everyone, path
    assert all(named.values()), "each way to name one is found somewhere"
    units = "".join(path.read_text() for path in (ROOT / "systemd").glob("*@.service.j2"))
    of_units = {user for user, rules in everyone.items() if "group" in rules}
    assert set(re.findall(r"redis_user = '(\w+)'", units)) == of_units


def hashed(password):
    return "#" + hashlib.sha256(password.encode()).hexdigest()


@pytest.mark.parametrize("instance", USERS)
def test_access_list_has_the_tables_users_who_may_do_what_is_said_once(instance):
    found = access_list(instance)
    assert list(found) == ["default", *USERS[instance]]
    assert found.pop("default") == [["off", "resetpass", "~*", "&*", "+@all"]], "Redis reads its log as this one"
    assert found["admin"] == [["on", hashed("of admin"), "resetchannels", "~*", "&*", "-@all", "+@all"]]
    for user, sets in found.items():
        assert sets[0][:3] == ["on", hashed(f"of {user}"), "resetchannels"]
        for rules in sets:
            assert len(set(rules)) == len(rules), user
            assert all(
                re.fullmatch(r"(~|%R~|&)\S+|[+-]@?[a-z_]+(\|[a-z]+)?", rule)
                for rule in rules
                if rule not in sets[0][:3]
            )
            first = next(place for place, rule in enumerate(rules) if rule[0] in "+-")
            assert rules[first] == "-@all" and all(rule[0] in "+-" for rule in rules[first:])


def test_nobody_but_admin_may_use_more_of_the_broker_than_single_commands():
    for user, sets in access_list("broker").items():
        if user not in ("default", "admin", "reader"):
            rules = [rule for rules in sets for rule in rules]
            assert not {"~*", "&*", "+keys", "+scan", "+flushdb"} & set(rules)
            evaluates = [[rule for rule in rules if rule[0] in "~%&"] for rules in sets if "+eval" in rules]
            assert evaluates in ([], [["~channels.*", "&channels.*"]]), "scripts are for channel layers alone"
            assert not [rule for rule in rules if rule.startswith(("+@", "+acl", "+config"))]


def test_reader_reads_and_changes_nothing():
    writes = {"set", "del", "lpush", "publish", "eval", "evalsha", "keys", "flushdb", "acl", "config", "multi"}
    for instance in USERS:
        ((_, _, channels, keys, nothing, *commands),) = access_list(instance)["reader"]
        assert (channels, keys, nothing) == ("resetchannels", "%R~*", "-@all")
        assert {"+llen", "+lrange", "+scan", "+info"} <= set(commands)
        assert not {f"+{command}" for command in writes} & set(commands) and "@" not in "".join(commands)


def test_channel_layers_are_for_asgi_applications_alone():
    for user in ("web", "worker"):
        assert [rules for rules in access_list("broker")[user] if "~channels.*" in rules]
        rules = access_list("broker", asgi="")[user]
        assert not {"~channels.*", "+eval"} & {rule for each in rules for rule in each}


def test_cache_loses_what_is_dangerous_before_it_gets_back_what_caches_use():
    (rules,) = access_list("cache")["cache"]
    assert rules.index("+@all") < rules.index("-@dangerous") < rules.index("+flushdb")
    assert "+acl" not in rules and "-@admin" in rules


def test_queues_are_for_who_sends_and_flower_counts_them():
    found = access_list("broker")
    for user in SENDERS:
        assert {"~default", "~mail"} <= set(found[user][0])
        assert "~_kombu.binding.default" in found[user][0] or user == "worker"
    assert not {"~default", "~mail"} & {rule for rules in found["flower"] for rule in rules}
    assert found["flower"][1:] == [["%R~default", "%R~mail", "-@all", "+llen"]]


def test_applications_may_ask_how_long_any_queue_is_and_no_more():
    found = access_list("broker")
    for user in SENDERS:
        any_key = [rules for rules in found[user] if "%R~*" in rules]
        assert any_key == ([] if user == "beat" else [["%R~*", "-@all", "+llen"]])


def test_queue_that_was_removed_stays_for_its_last_workers():
    before = (
        "user web on ~webs -@all\nuser beat on #00 resetchannels ~default ~old ~_kombu.binding.default &x -@all +ping\n"
    )
    found = access_list("broker", before=before)
    assert all({"~mail", "~old"} <= set(found[user][0]) and "~webs" not in found[user][0] for user in SENDERS)


def test_what_a_variable_or_the_release_of_debian_decides():
    assert all("+client|setinfo" in access_list("broker")[user][0] for user in (*SENDERS, "flower"))
    assert "setinfo" not in str(access_list("broker", debian="12"))
    asks = [
        len([rules for rules in access_list("broker", control=on)["web"] if "&/0.celery.pidbox" in rules])
        for on in (True, False)
    ]
    assert asks == [1, 0]


def test_beat_has_no_lock_but_its_lease_and_only_reads_what_workers_note():
    _, lease, probe = access_list("broker")["beat"]
    assert [rule for rule in lease if rule[0] == "~"] == ["~lock:beat"]
    assert probe[:2] == ["~probe:sent:*", "%R~probe:done:*"]


def test_password_from_before_is_accepted_beside_the_new_one_and_a_missing_one_is_an_error():
    found = access_list("broker", old={"web": "older", "exporter": "of a user that is gone"})
    assert found["web"][0][1:4] == [hashed("of web"), hashed("older"), "resetchannels"]
    assert hashed("older") not in str({user: found[user] for user in found if user != "web"})
    with pytest.raises(AnsibleError):
        access_list("cache", passwords={"admin": "a"})
