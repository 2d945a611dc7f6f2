"""What a bug in a unit's process would give a stranger: nothing beyond the unit."""

import json
import re
from pathlib import Path

import pytest
from test_units import instances

# Highest score of systemd-analyze security, which counts directives: the attempts below show what they enforce.
SEALED, SOCKETS = 0.5, 1.3
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
PROBE = (Path(__file__).parent / "probe.py").read_text()


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
        analysis = host.check_output(f"systemd-analyze security --no-pager {unit}")
        score = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", analysis)[1])
        limit = ROOTS.get(kind, SEALED if alone else SOCKETS)
        left = [line for line in analysis.splitlines() if line.startswith("✗")]
        assert score <= limit, f"{unit}: {score}\n" + "\n".join(left)


@pytest.fixture
def probe(host):
    """Run the probe in a unit's sandbox: the unit as it is, with another program and none of its actions."""
    path = "/run/coldframe-probe.py"
    host.check_output(f"cat >{path} <<'END'\n{PROBE}\nEND\nchmod 0644 {path}")
    router = host.check_output("ip route show default").split()[2]

    def run(unit):
        name = "coldframe-probe@" + unit.partition("@")[2] if "@" in unit else "coldframe-probe.service"
        text = host.check_output(f"systemctl cat {unit}")
        actions = "Exec|Type|Restart|PIDFile|Sockets|Requires|PartOf|Watchdog|NotifyAccess|KillMode|Standard"
        text = re.sub(rf"(?m)^(?:{actions})\w*=.*(?:\\\n.*)*$", "", text)
        text += (
            "\n[Service]\nType=oneshot\nRuntimeDirectoryPreserve=yes\nStandardOutput=truncate:/run/coldframe-probe.out\n"
            f"ExecStart=/usr/bin/python3 {path} {router}\n"
        )
        if "\nNoExecPaths=" in text:
            text += "ExecPaths=/usr\n"
        host.check_output(f"cat >/run/systemd/system/{name} <<'END'\n{text}\nEND\nsystemctl daemon-reload")
        result = host.run(f"systemctl start {name}")
        assert result.rc == 0, result.stderr + host.run(f"journalctl --no-pager -n 20 -u {name}").stdout
        return json.loads(host.file("/run/coldframe-probe.out").content_string)

    yield run
    host.run(f"rm -f {path} /run/coldframe-probe.out /run/systemd/system/coldframe-probe*; systemctl daemon-reload")


@pytest.mark.changes
@pytest.mark.parametrize("kind", [kind for kinds in GROUPS.values() for kind in kinds])
def test_no_way_out_of_the_unit(host, deployment, probe, kind):
    unit = units(host, deployment).get(kind)
    if not unit:
        pytest.skip(f"no {kind} on this host")
    results = probe(unit)
    ways = {attempt for attempt, result in results.items() if result == "done"}
    allowed = set()
    if deployment.app_network == "egress" and kind in ("web", "worker", "beat", "flower"):
        allowed = {"connect out"}
    if kind == "nginx":  # its master is root, who reads the keys
        allowed = {"connect out", "processes of others"}
    assert ways <= allowed, {attempt: results[attempt] for attempt in ways - allowed}
