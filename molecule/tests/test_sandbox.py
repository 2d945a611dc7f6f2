"""What a bug in a unit's process would give a stranger: nothing beyond the unit."""

import pytest
from support.sandbox import COSTS, OPENS, SEALED, SOCKETS, SWITCHES, exposure
from support.units import instances

ROOTS = {"nginx": 2.5}
GROUPS = {
    "redis": ["redis-server@broker", "redis-server@cache"],
    "postgresql": ["postgresql"],
    "edge": ["nginx"],
    "flower": ["flower"],
    "web": ["web"],
    "workers": ["worker"],
    "beat": ["beat"],
    "monitoring": ["prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter"],
}
# Prometheus asks by HTTP: these listen on loopback.
MONITORING = {
    *GROUPS["monitoring"],
    "metrics",
    "node exporter",
    "redis exporter",
    "postgres exporter",
    "nginx exporter",
}
# What monitoring brings to a host of these groups, or to every host.
EXPORTERS = {"redis": "redis", "postgresql": "postgres", "edge": "nginx", "": "node"}


def units(host, deployment):
    """Each of this host's units once: what it is, to the unit's name."""
    app, found = deployment.app_name, {}
    for kind in (kind for group in deployment.group_names for kind in GROUPS.get(group, [])):
        if kind.startswith("redis-server@"):
            found[kind] = f"{kind.replace('@', f'@{deployment.prefix}')}.service"
        elif kind == "flower":
            found[kind] = f"{app}-flower.service"
        elif kind == "postgresql":
            found[kind] = host.check_output("systemctl list-units --plain --no-legend 'postgresql@*'").split()[0]
        elif kind in ("web", "worker", "beat"):
            found[kind] = sorted(instances(host, app, f"{kind}*", "active"))[0]
        else:
            found[kind] = f"{kind}.service"
    if deployment.groups.get("monitoring"):
        found["metrics"] = f"{app}-metrics.service"
        for group, name in EXPORTERS.items():
            if group in ("", *deployment.group_names):
                found[f"{name} exporter"] = f"prometheus-{name}-exporter.service"
    return found


def options(deployment, kind, unit):
    """The network and the switches that the inventory has for a unit."""
    queue = unit.partition("@")[0].removeprefix(f"{deployment.app_name}-worker-")
    own = {"web": deployment.app_web, "beat": deployment.app_beat, "worker": deployment.celery_queues.get(queue)}
    mine = own.get(kind) or {}
    switches = {*(deployment.app_sandbox or []), *mine.get("sandbox", [])} if kind in own else set()
    return mine.get("network") or deployment.app_network or "egress", switches


def test_score_of_every_unit(host, deployment):
    for kind, unit in units(host, deployment).items():
        network, switches = options(deployment, kind, unit)
        alone = network == "sealed" and len(deployment.hosts) == 1 and kind not in MONITORING
        score, analysis = exposure(host, unit)
        limit = ROOTS.get(kind, SEALED if alone else SOCKETS) + sum(COSTS[switch] for switch in switches)
        left = [line for line in analysis.splitlines() if line.startswith("✗")]
        assert score <= limit, f"{unit}: {score}\n" + "\n".join(left)


@pytest.mark.changes
@pytest.mark.parametrize(
    "kind",
    [
        *(kind for kinds in GROUPS.values() for kind in kinds),
        "metrics",
        *(f"{name} exporter" for name in EXPORTERS.values()),
    ],
)
def test_no_way_out_of_the_unit(host, deployment, attempts, kind):
    unit = units(host, deployment).get(kind)
    if not unit:
        pytest.skip(f"no {kind} on this host")
    results = attempts(unit)
    ways = {attempt for attempt, result in results.items() if result == "done"}
    network, switches = options(deployment, kind, unit)
    allowed = {OPENS[switch] for switch in switches}
    if network == "egress" and kind in ("web", "worker", "beat", "flower"):
        allowed = {"connect out"}
    if kind == "prometheus-alertmanager":  # it sends to wherever alerts are to go
        allowed = {"connect out"}
    if kind == "node exporter":  # its metrics are of the whole machine
        allowed = {"what the machine is"}
    if kind == "nginx":  # its master is root, who reads the keys
        allowed = {"connect out", "processes of others"}
    assert ways <= allowed, {attempt: results[attempt] for attempt in ways - allowed}


def done(results):
    """The attempts that succeeded."""
    return {attempt for attempt, result in results.items() if result == "done"}


@pytest.mark.changes
@pytest.mark.one_host
@pytest.mark.group("web")
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_opens_what_it_names_and_costs_what_the_page_says(host, deployment, attempts, switch):
    unit = units(host, deployment)["web"]
    closed, opened = done(attempts(unit)), done(attempts(unit, *SWITCHES[switch]))
    assert opened - closed == {OPENS[switch]}
    before, after = (exposure(host, unit, *lines)[0] for lines in ([], SWITCHES[switch]))
    assert -0.01 < COSTS[switch] - (after - before) < 0.11, "scores are rounded to tenths"


@pytest.mark.changes
@pytest.mark.one_host
@pytest.mark.group("web")
def test_only_destinations_that_are_listed_are_reached(host, deployment, attempts):
    unit = units(host, deployment)["web"]
    router = host.check_output("ip route show default").split()[2]
    network = ["PrivateNetwork=no", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "IPAddressDeny=any"]
    reached = {
        allowed: attempts(unit, *network, f"IPAddressAllow={allowed}")["connect out"]
        for allowed in (router, f"{router}/32", "203.0.113.0/24")
    }
    assert reached == {router: "done", f"{router}/32": "done", "203.0.113.0/24": "TimeoutError"}
