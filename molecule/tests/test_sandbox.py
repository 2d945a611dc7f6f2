"""What a bug in a unit's process would give a stranger: nothing beyond the unit."""

import pytest
from support.sandbox import SEALED, SOCKETS, exposure
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
}


def units(host, deployment):
    """Each of this host's units once: what it is, to the unit's name."""
    app, found = deployment.app_name, {}
    for kind in (kind for group in deployment.group_names for kind in GROUPS.get(group, [])):
        if kind == "flower":
            found[kind] = f"{app}-flower.service"
        elif kind == "postgresql":
            found[kind] = host.check_output("systemctl list-units --plain --no-legend 'postgresql@*'").split()[0]
        elif kind in ("web", "worker", "beat"):
            found[kind] = sorted(instances(host, app, f"{kind}*", "active"))[0]
        else:
            found[kind] = f"{kind}.service"
    return found


def test_score_of_every_unit(host, deployment):
    alone = deployment.app_network == "sealed" and len(deployment.hosts) == 1
    for kind, unit in units(host, deployment).items():
        score, analysis = exposure(host, unit)
        limit = ROOTS.get(kind, SEALED if alone else SOCKETS)
        left = [line for line in analysis.splitlines() if line.startswith("✗")]
        assert score <= limit, f"{unit}: {score}\n" + "\n".join(left)


@pytest.mark.changes
@pytest.mark.parametrize("kind", [kind for kinds in GROUPS.values() for kind in kinds])
def test_no_way_out_of_the_unit(host, deployment, attempts, kind):
    unit = units(host, deployment).get(kind)
    if not unit:
        pytest.skip(f"no {kind} on this host")
    results = attempts(unit)
    ways = {attempt for attempt, result in results.items() if result == "done"}
    allowed = set()
    if deployment.app_network == "egress" and kind in ("web", "worker", "beat", "flower"):
        allowed = {"connect out"}
    if kind == "nginx":  # its master is root, who reads the keys
        allowed = {"connect out", "processes of others"}
    assert ways <= allowed, {attempt: results[attempt] for attempt in ways - allowed}
