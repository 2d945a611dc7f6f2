"""A provider's PostgreSQL and Redis, played by the host of the data: servers of their own there, with TLS and another login."""

import json
import re
import shutil

import pytest
import yaml
from support.deployment import deployed
from support.hosts import root_shell
from support.playbooks import ROOT, changed, output, play
from support.units import current
from testinfra import get_host
from waits import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.changes, pytest.mark.example, pytest.mark.group("postgresql")]

POSTGRESQL, REDIS = 25060, 25061
PASSWORD = "provider8f3k2m9qx7w1"  # noqa: S105  # pragma: allowlist secret
FOLDER = "/var/lib/provider"
# A CA, a certificate for the address, a cluster of PostgreSQL and an instance of Redis; what an earlier run left is removed.
START = """
set -eu
exec 2>&1
systemctl stop provider-redis 2>/dev/null || true
version=$(ls /etc/postgresql | sort -n | tail -n 1)
pg_dropcluster --stop $version provider 2>/dev/null || true
rm -rf {folder}; mkdir -m 755 {folder}; cd {folder}
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=provider -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout redis.key -out server.csr
printf '%s\\n' subjectAltName=IP:{address} authorityKeyIdentifier=keyid basicConstraints=CA:FALSE >names
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt
install -o postgres -m 600 redis.key postgresql.key
chown redis redis.key
pg_createcluster --port={postgresql} --locale=C.UTF-8 $version provider
cat >>/etc/postgresql/$version/provider/postgresql.conf <<END
listen_addresses = '{address}'
ssl_cert_file = '{folder}/server.crt'
ssl_key_file = '{folder}/postgresql.key'
END
echo 'hostssl all all all scram-sha-256' >>/etc/postgresql/$version/provider/pg_hba.conf
pg_ctlcluster $version provider start
runuser -u postgres -- psql -qX -p {postgresql} -c "CREATE ROLE ann LOGIN PASSWORD '{password}'" -c "CREATE DATABASE blog"
echo 'user default on >{password} ~* &* +@all' >users.acl
cat >redis.conf <<END
bind {address}
port 0
tls-port {redis}
tls-cert-file {folder}/server.crt
tls-key-file {folder}/redis.key
tls-auth-clients no
dir {folder}
appendonly yes
maxmemory 64mb
maxmemory-policy allkeys-lru
{users}
END
chown -R redis redis.conf users.acl; chown redis .
systemd-run --quiet --collect --unit=provider-redis --property=User=redis redis-server {folder}/redis.conf
nft insert rule inet coldframe input tcp dport '{{' {postgresql}, {redis} '}}' accept
"""
STOP = f"""
systemctl stop provider-redis
pg_dropcluster --stop $(ls /etc/postgresql | sort -n | tail -n 1) provider
rm -rf {FOLDER}
"""


class Provider:
    """The servers, and an inventory that names them."""

    def __init__(self, inventory, shell, address):
        """Make the folder of the inventory; it is as deep in the project as the scenario's, whose variables name it from there."""
        self.shell, self.address, self.changed = shell, address, False
        self.scenario = yaml.safe_load((ROOT / inventory).read_text())["all"]
        self.folder = ROOT / ".cache/managed"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / "group_vars").symlink_to((ROOT / inventory).parent / "group_vars")

    def start(self, users=f"aclfile {FOLDER}/users.acl"):
        """Start them; `users` is Redis' directive for them."""
        values = {"folder": FOLDER, "address": self.address, "postgresql": POSTGRESQL, "redis": REDIS}
        said = self.shell(START.format(**values, password=PASSWORD, users=users))
        wait_for(lambda: self.redis("PING") == "PONG", 15, lambda: f"Redis answers: {said}")
        (self.folder / "ca.pem").write_text(self.shell(f"cat {FOLDER}/ca.crt"))

    def redis(self, command):
        """Send a command to its Redis; return the answer."""
        login = f"--tls --cacert {FOLDER}/ca.crt -h {self.address} -p {REDIS} --no-auth-warning"
        return self.shell(f"REDISCLI_AUTH={PASSWORD} redis-cli {login} {command} 2>&1").strip()

    def sql(self, query, database="blog"):
        """Send a query to its PostgreSQL as the superuser; return what psql prints."""
        return self.shell(
            f"runuser -u postgres -- psql -qXAt -p {POSTGRESQL} {database} 2>&1 <<'END'\n{query}\nEND\n"
        ).strip()

    def take(self, database):
        """Copy a database of the deployment's PostgreSQL, and let the application's login own it."""
        self.sql("ALTER DATABASE blog OWNER TO ann")
        dump = f"(echo 'SET ROLE ann;'; pg_dump --no-owner --no-acl {database})"
        self.shell(f'runuser -u postgres -- sh -c "{dump} | psql -qX -p {POSTGRESQL} blog"')

    def run(self, playbook, **variables):
        """Run a playbook with the inventory of the scenario, without the hosts of its data, and with further variables."""
        children = {
            name: group for name, group in self.scenario["children"].items() if name not in ("redis", "postgresql")
        }
        given = {
            "app_network": "egress",
            "app_database_url": f"postgres://ann@{self.address}:{POSTGRESQL}/blog",
            "app_database_ca_file": str(self.folder / "ca.pem"),
            "app_database_password": PASSWORD,
            "app_broker_url": f"rediss://{self.address}:{REDIS}/2",
            "app_broker_password": PASSWORD,
            "app_redis_ca_file": str(self.folder / "ca.pem"),
            "firewall_open_ports": [POSTGRESQL, REDIS],
        }
        path = self.folder / "hosts.yml"
        path.write_text(yaml.safe_dump({"all": self.scenario | {"children": children}}))
        result = play(path, playbook, "-e", json.dumps(given | variables))
        self.changed |= changed(result) > 0
        return result


@pytest.fixture(scope="module")
def provider(host, inventory, deployment):
    shell = root_shell(host)
    made = Provider(inventory, shell, deployment.app_private_address)
    made.start()
    yield made
    if made.changed:
        result = play(inventory, "deploy")
        assert result.returncode == 0, result.stdout
    shell(STOP)
    shutil.rmtree(made.folder)


@pytest.fixture
def web(inventory, deployment):
    """The first host with web."""
    name = deployment.groups["web"][0]
    config = ROOT / deployed(inventory, name).sandbox_state / "ssh_config"
    return get_host(f"ssh://{name}", ssh_config=str(config), sudo=True)


ORDER = {"sku": "one-left", "quantity": 1, "email": "a@example.com"}


def served(deployment, key):
    """Place an order, and wait until its task is done by the workers."""
    answer = deployment.request("/orders/", ORDER | {"idempotency_key": key})
    assert answer.status == 201, answer.body
    where = answer.json["status_url"]
    wait_for(lambda: deployment.request(where).json["state"] == "SUCCESS", 60, "the order is charged")


def test_application_runs_with_a_providers_servers(provider, deployment, web):
    result = provider.run("deploy")
    said = output(result)
    assert result.returncode != 0 and changed(result) == 0, "all that is wrong, before anything is changed"
    assert "ann may not create tables in the schema 'public'" in said
    assert "the server's maxmemory-policy is allkeys-lru, by which it deletes queued tasks" in said
    assert PASSWORD not in result.stdout + result.stderr

    assert provider.redis("CONFIG SET maxmemory-policy noeviction") == "OK"
    provider.take(deployment.app_name)
    result = provider.run("deploy")
    assert result.returncode == 0, result.stdout
    assert "each kind of process has a Redis user of its own" in output(result)
    assert PASSWORD not in result.stdout + result.stderr
    served(deployment, "managed-1")
    sessions = provider.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'ann'")
    assert int(sessions) > 0, "its processes are connected there"
    app = deployment.app_name
    clients = provider.redis("CLIENT LIST")
    assert {f"{app}-web", f"{app}-worker", f"{app}-beat"} <= set(re.findall(r" user=(\S+)", clients))
    assert set(re.findall(r"^user (\S+)", provider.redis("ACL LIST"), re.M)) == {
        "default",
        *(f"{app}-{user}" for user in ("web", "worker", "beat", "flower", "metrics", "cache")),
    }
    assert "no permissions" in provider.redis(f"ACL DRYRUN {app}-web FLUSHALL")
    unit = web.check_output(f"systemctl cat '{app}-web@{current(web, app)}*'")
    assert PASSWORD not in unit and f"REDIS_USERNAME={app}-web" in unit

    result = provider.run("deploy")
    assert result.returncode == 0 and changed(result) == 0, result.stdout
    result = provider.run("status")
    assert result.returncode == 0 and f"broker {provider.address}:{REDIS}: Redis" in output(result), result.stdout


@pytest.mark.parametrize(
    "variables, said",
    [
        (
            {"app_database_password": "wrong8f3k2m9qx7w1"},  # pragma: allowlist secret
            "the server refuses the login 'ann'",
        ),
        (
            {"app_broker_password": "wrong8f3k2m9qx7w1"},  # pragma: allowlist secret
            "the server refuses the login 'default'",
        ),
        # Their texts are tested without a host too.
        *(
            pytest.param(variables, said, marks=pytest.mark.thorough)
            for variables, said in (
                ({"app_redis_ca_file": "", "app_database_ca_file": ""}, "is not to be trusted"),
                ({"app_broker_url": "rediss://provider.invalid"}, "does not find provider.invalid"),
                ({"app_web": {"workers": 512, "threads": 100}}, "connections at the same time"),
            )
        ),
    ],
)
def test_what_the_servers_refuse_is_refused_before_anything_is_changed(provider, web, deployment, variables, said):
    before = current(web, deployment.app_name)
    result = provider.run("deploy", **variables)
    assert result.returncode != 0 and changed(result) == 0 and said in output(result), result.stdout
    assert PASSWORD not in result.stdout + result.stderr
    assert current(web, deployment.app_name) == before


@pytest.mark.thorough  # the steps of the first test, with another login
def test_one_login_for_all_processes_where_it_can_make_no_users(provider, deployment, web):
    provider.start(users=f"requirepass {PASSWORD}")
    provider.redis("CONFIG SET maxmemory-policy noeviction")
    provider.take(deployment.app_name)
    result = provider.run("deploy", app_database_pooled=True)
    assert result.returncode == 0, result.stdout
    assert "all processes log in as default, because it can make no Redis users that stay" in output(result)
    served(deployment, "managed-2")
    assert set(re.findall(r" user=(\S+)", provider.redis("CLIENT LIST"))) == {"default"}
    laid = web.check_output(f"{deployment.app_name}-manage --module coldframe.settings")
    assert "without server-side cursors" in laid and PASSWORD not in laid
