"""What a unit of the application may do besides: switches of its sandbox, destinations, data folders."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from inventory import schemas, specs
from real_nginx import evaluate
from support.sandbox import COSTS, OPENS, SWITCHES

ROOT = Path(__file__).parents[1]
QUEUES = {"default": {}, "pdf": {}}
SERVICES = {"bot": {"command": "run bot"}}
TIMERS = {"report": {"command": "report", "calendar": "daily"}}
TABLES = {"worker": "app_queue_table", "service": "app_service_table", "timer": "app_timer_table"}
SEVERAL = {"one": "10.0.0.1", "two": "fd00::2"}


def unit(kind, name="default", **variables):
    """Render the unit of a service, or of a queue's worker, a further process or a timer, as a release has it."""
    given = {
        "app_celery": "site.celery:app",
        "celery_queues": QUEUES,
        "app_services": SERVICES,
        "app_timers": TIMERS,
        "app_addresses": {},
        "app_shared_credentials": {},
    } | variables
    more = {}
    if kind in TABLES:
        options = evaluate(f"{{{{ {TABLES[kind]}[name] }}}}", name=name, **given)
        more = {"queue": name, "process": name, "options": options}
    text = (
        f"{{{{ lookup('ansible.builtin.template', app_project ~ '/systemd/{kind}@.service.j2', template_vars=more) }}}}"
    )
    return evaluate(text, more=more, **given)


def values(text, directive):
    """The values of a directive, in the order in which systemd reads them."""
    return re.findall(rf"^{directive}=(.*)$", text, re.M)


def units(**variables):
    """Web, Beat, the workers of two queues, a further process and a timer's command."""
    found = {kind: unit(kind, **variables) for kind in ("web", "beat")}
    found |= {queue: unit("worker", queue, **variables) for queue in QUEUES}
    return found | {"bot": unit("service", "bot", **variables), "report": unit("timer", "report", **variables)}


def with_option(**option):
    """Each unit that may have an option of its own, with the variables that give it that option."""
    return {
        "web": {"app_web": option},
        "beat": {"app_beat": option},
        "pdf": {"celery_queues": QUEUES | {"pdf": option}},
        "bot": {"app_services": {"bot": SERVICES["bot"] | option}},
        "report": {"app_timers": {"report": TIMERS["report"] | option}},
    }


def test_every_list_of_switches_is_the_table():
    options, valid = specs(str(ROOT)), schemas(str(ROOT))
    lists = [options["app_sandbox"]["choices"]]
    lists += [options[name]["options"]["sandbox"]["choices"] for name in ("app_web", "app_beat")]
    for name in ("celery_queues", "app_services", "app_timers"):
        lists += [valid[name]["additionalProperties"]["properties"]["sandbox"]["items"]["enum"]]
    assert lists == [list(SWITCHES)] * 6


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_is_turned_off_where_it_is_asked_for_and_nowhere_else(switch):
    lines = "\n".join(SWITCHES[switch])
    plain = units()
    assert [name for name, text in plain.items() if lines in text] == []
    assert [name for name, text in units(app_sandbox=[switch]).items() if lines in text] == list(plain)
    for one, variables in with_option(sandbox=[switch]).items():
        for name, text in units(**variables).items():
            assert (lines in text) == (name == one)
            assert text.replace(f"# Turned off by {switch}:\n{lines}\n", "") == plain[name], "and nothing else"
            after = text.partition("SystemCallErrorNumber")[2]
            assert name != one or lines in after, "systemd takes the last one"


def test_a_switch_that_is_named_twice_is_there_once():
    text = unit("web", app_sandbox=["process_priorities"], app_web={"sandbox": ["process_priorities"]})
    assert text.count("SystemCallFilter=@resources") == 1


@pytest.fixture(scope="module")
def exposure(tmp_path_factory):
    """Return the exposure of a unit that is rendered with given variables, by systemd-analyze security."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("this machine has no systemd-analyze")
    folder = tmp_path_factory.mktemp("units")

    def measure(kind="web", **variables):
        text = unit(kind, **variables).replace("@RELEASE@", "r1")
        text = re.sub(r"(?m)^(ExecStart|EnvironmentFile|LoadCredential|WorkingDirectory)=.*(\\\n.*)*$", "", text)
        path = folder / "site-web.service"
        path.write_text(text.replace("[Service]", "[Service]\nExecStart=/bin/true"))
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
        assert found and done.stderr == "", done.stdout + done.stderr
        return float(found[1])

    return measure


@pytest.fixture(scope="module")
def costs():
    """Return what docs/security.md says that each switch adds to the exposure."""
    text = (ROOT / "docs/security.md").read_text().partition("## Switches of the sandbox")[2].partition("\n## ")[0]
    return {name: float(cost) for name, cost in re.findall(r"^\| `(\w+)` \|.*\| \+([\d.]+) \|$", text, re.M)}


def test_page_has_each_switch_with_its_directives(costs):
    assert costs == COSTS and list(costs) == list(OPENS) == list(SWITCHES)
    page = (ROOT / "docs/security.md").read_text()
    for switch, lines in SWITCHES.items():
        (row,) = re.findall(rf"^\| `{switch}` \|.*$", page, re.M)
        assert [line for line in lines if f"`{line}`" not in row] == []


@pytest.mark.parametrize("network", ["sealed", "egress"])
def test_page_says_what_each_switch_costs(exposure, costs, network):
    """The scores and the costs are rounded to tenths, the costs upwards."""
    without = exposure(app_network=network)
    for switch, cost in costs.items():
        less = cost - (exposure(app_network=network, app_sandbox=[switch]) - without)
        assert -0.01 < less < 0.11, switch
    assert exposure(app_network=network, app_sandbox=list(costs)) - without <= sum(costs.values()) + 0.01


def test_destinations_cost_less_than_any_connection(exposure):
    scores = [exposure(app_network=network) for network in ("sealed", ["203.0.113.0/24"], "egress")]
    assert scores == sorted(set(scores))


def network_of(text):
    """The directives of a unit about its network."""
    names = ("PrivateNetwork", "RestrictAddressFamilies", "IPAddressDeny", "IPAddressAllow")
    return {name: values(text, name) for name in names if values(text, name)}


INTERNET = {"RestrictAddressFamilies": ["AF_UNIX AF_INET AF_INET6"]}
SEALED = {"PrivateNetwork": ["yes"], "RestrictAddressFamilies": ["AF_UNIX"], "IPAddressDeny": ["any"]}


def limited(*destinations):
    """What a unit has that reaches these destinations alone."""
    return INTERNET | {"IPAddressDeny": ["any"], "IPAddressAllow": [" ".join(destinations)]}


@pytest.mark.parametrize(
    "network, hosts, expected",
    [
        ("egress", {}, INTERNET),
        ("egress", SEVERAL, INTERNET),
        ("sealed", {}, SEALED),
        ("sealed", SEVERAL, limited("10.0.0.1", "fd00::2")),
        (["203.0.113.0/24", "2001:db8::7"], {}, limited("203.0.113.0/24", "2001:db8::7")),
        (["203.0.113.0/24"], SEVERAL, limited("10.0.0.1", "fd00::2", "203.0.113.0/24")),
    ],
)
def test_network_of_all_services_and_of_one(network, hosts, expected):
    for name, text in units(app_network=network, app_addresses=hosts).items():
        assert network_of(text) == expected, name
    other = "egress" if network == "sealed" else "sealed"
    given = {"app_network": other, "app_addresses": hosts}
    for one, variables in with_option(network=network).items():
        for name, text in units(**given | variables).items():
            assert (network_of(text) == expected) == (name == one), (one, name)


@pytest.mark.parametrize(
    "network, hosts, expected",
    [
        ("egress", {}, INTERNET),
        ("sealed", {}, limited("192.0.2.7", "2001:db8::7")),
        ("sealed", SEVERAL, limited("10.0.0.1", "fd00::2", "192.0.2.7", "2001:db8::7")),
        (["192.0.2.7", "203.0.113.0/24"], {}, limited("192.0.2.7", "203.0.113.0/24", "2001:db8::7")),
    ],
)
def test_a_sealed_unit_reaches_who_it_reports_to(network, hosts, expected):
    reports = {
        "app_otel_endpoint": "http://192.0.2.7:4318",
        "app_secrets": {"sentry_dsn": "https://a1@[2001:DB8:0::7]/3"},
    }
    for name, text in units(app_network=network, app_addresses=hosts, **reports).items():
        assert network_of(text) == expected, name
        assert "a1@" not in text and "4318" not in text
    named = {"app_otel_endpoint": "http://collector.example.org:4318"}
    assert network_of(unit("web", app_network=["203.0.113.7"], **named)) == limited("203.0.113.7")
    flower = "{{ lookup('ansible.builtin.template', app_project ~ '/systemd/flower.service.j2') }}"
    paths = {"__flower_venv": "/opt/flower", "__flower_config_dir": "/etc/site-flower", "app_addresses": {}}
    assert network_of(evaluate(flower, app_network="sealed", **paths, **reports)) == SEALED


@pytest.mark.parametrize("network, own", [("egress", INTERNET), ("sealed", SEALED), (["203.0.113.7"], SEALED)])
def test_flower_reaches_no_destination_of_the_application(network, own):
    text = "{{ lookup('ansible.builtin.template', app_project ~ '/systemd/flower.service.j2') }}"
    paths = {"__flower_venv": "/opt/flower", "__flower_config_dir": "/etc/site-flower"}
    assert network_of(evaluate(text, app_network=network, app_addresses={}, **paths)) == own


def test_flower_reaches_the_broker_of_a_provider():
    text = "{{ lookup('ansible.builtin.template', app_project ~ '/systemd/flower.service.j2') }}"
    given = {"__flower_venv": "/opt/flower", "__flower_config_dir": "/etc/site-flower", "app_addresses": {}}
    given |= {"app_network": ["203.0.113.7"], "app_broker_url": "rediss://broker.example.net"}
    given |= {"app_managed_users": [], "app_broker_password": "x" * 20}
    assert network_of(evaluate(text, **given)) == limited("203.0.113.7")


def hidden(text):
    """The folders of shared/ that a unit does not see."""
    return [path.rpartition("/")[2] for path in values(text, "InaccessiblePaths")]


def test_data_folders_are_for_all_services_or_for_one():
    given = {
        "app_writable": ["data"],
        "app_web": {"writable": ["exports"]},
        "celery_queues": {"default": {}, "pdf": {"writable": ["fonts", "data"]}},
        "app_services": {"bot": SERVICES["bot"] | {"writable": ["models"]}},
        "app_timers": {"report": TIMERS["report"] | {"writable": ["exports"]}},
    }
    found = units(**given)
    assert {name: hidden(text) for name, text in found.items()} == {
        "web": ["fonts", "models"],
        "beat": ["exports", "fonts", "models"],
        "default": ["exports", "fonts", "models"],
        "pdf": ["exports", "models"],
        "bot": ["exports", "fonts"],
        "report": ["fonts", "models"],
    }
    assert {path for text in found.values() for path in values(text, "ReadWritePaths")} == {"/srv/site/shared"}
    assert evaluate("{{ app_folders }}", **given) == ["data", "exports", "fonts", "models"]
    assert all(path.startswith("-/srv/site/shared/") for path in values(found["beat"], "InaccessiblePaths"))


def test_a_folder_is_open_to_nginx_if_the_site_has_a_path_for_it():
    served = yaml.safe_load((ROOT / "roles/release/vars/main.yml").read_text())["__release_served"]
    entries = [
        {"path": "/a/", "shared": "exports/2026"},
        {"path": "/b", "shared": "data"},
        {"path": "/c/", "allow": []},
    ]
    assert evaluate(served, nginx_locations=entries) == ["exports", "data"]
    assert evaluate(served) == []


def test_hidden_folders_have_an_order():
    """A unit is a part of the release, whose id is a digest."""
    names = [f"folder{number}" for number in range(20)]
    assert hidden(unit("web", app_beat={"writable": names[::-1]})) == sorted(names)


def test_folders_whose_names_differ_in_case_are_two():
    assert evaluate("{{ app_folders }}", celery_queues=QUEUES, app_writable=["data", "Data"]) == ["data", "Data"]


def test_without_data_folders_nothing_is_hidden():
    assert [hidden(text) for text in units(app_writable=["data"]).values()] == [[]] * 6


def test_program_that_the_release_has_is_started_by_its_path():
    """Systemd takes an absolute path or a name, and no path that is relative to WorkingDirectory."""
    root = "/srv/bakery/releases/@RELEASE@"
    services, timers = {"bot": {"command": "./bot.sh -v"}}, {"report": TIMERS["report"] | {"command": "bin/report"}}
    given = {"app_root": "/srv/bakery", "app_services": services, "app_timers": timers}
    assert values(unit("service", "bot", **given), "ExecStart") == [f'"{root}/bot.sh" "-v"']
    (timer,) = values(unit("timer", "report", **given), "ExecStart")
    assert timer.endswith(f'/lock "{root}/bin/report"')


def test_what_a_unit_logs_names_its_part_and_its_release():
    parts = {"web": "web", "beat": "beat", "default": "worker-default", "pdf": "worker-pdf"}
    parts |= {"bot": "service-bot", "report": "timer-report"}
    for name, text in units().items():
        assert values(text, "SyslogIdentifier") == [f"site-{parts[name]}"]
        assert f"SYSLOG_IDENTIFIER=site-{parts[name]}" in values(text, "Environment"), (
            "what the runtime sends has it too"
        )
        queue = [f"QUEUE={name}"] if name in QUEUES else []
        assert values(text, "LogExtraFields") == ["RELEASE=@RELEASE@", *queue]


@pytest.mark.parametrize("single", [False, True])
def test_processes_have_a_user_each_or_all_of_them_one(single):
    kinds = {"web": "web", "beat": "beat", "default": "worker", "pdf": "worker", "bot": "service", "report": "service"}
    for name, text in units(app_name="bakery", app_single_user=single).items():
        assert values(text, "User") == [f"bakery-{'web' if single else kinds[name]}"]


def test_no_unit_is_given_up_because_it_was_started_often():
    assert {name for name, text in units().items() if values(text, "StartLimitIntervalSec") != ["0"]} == set()
