"""What a release has to lay over an application's settings, and where its sections are listed."""

import json
import re
from pathlib import Path

import pytest
import release_secrets
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from coldframe import overlay
from coldframe.overlay.deployment import Deployment
from managed import managed_servers
from real_nginx import trusted

ROOT = Path(__file__).parents[1]
ADDRESSES = {"data": "10.0.0.41", "app": "10.0.0.42"}


def load(path):
    return yaml.safe_load((ROOT / path).read_text())


def test_sections_are_listed_alike():
    choices = load("roles/app/meta/argument_specs.yml")["argument_specs"]["main"]["options"]["app_own_settings"][
        "choices"
    ]
    rows = re.findall(
        r"^\| `(\w+)` \|", (ROOT / "docs/settings.md").read_text().partition("## How to keep")[0], re.MULTILINE
    )
    assert choices == rows == list(overlay.SECTIONS)


def rendered(name, **variables):
    """Return a variable of the role as Ansible evaluates it."""
    init_plugin_loader()
    filter_loader.add_directory(str(ROOT / "plugins/filter"))
    known = {
        **trusted(
            {name: load("roles/app/vars/main.yml")[name] for name in ("app_email_server", "__app_email", "app_port")}
        ),
        **trusted(load("roles/release/vars/main.yml")),
        "app_name": "shop",
        "app_root": "/srv/shop",
        "app_url": "https://shop.example.org:8443",
        "app_celery": "shop.celery:app",
        "app_database_user": "shop_a",
        "app_database_socket": "/run/postgresql",
        "app_cache_socket": "/run/redis-cache/redis-server.sock",
        "app_broker_socket": "/run/redis-broker/redis-server.sock",
        "app_aliases": [],
        "app_own_settings": [],
        "app_environment": {"CHANGED": "1"},
        "app_email": {},
        "app_addresses": {},
        "app_managed": {},
        "app_redis_names": {"cache": "cache"},
        "app_database_pooled": False,
        "app_log_redact": ["token=[^&]+"],
        "app_stored_tasks": "shop.outbox:stored",
        "app_reports": ["app_secrets.sentry_dsn"],
        "app_otel_endpoint": "http://192.0.2.7:4318",
        "app_inventory": "../ops/inventories/desk",
    }
    return Templar(DataLoader(), variables=known | variables).template(trust_as_template("{{ " + name + " }}"))


@pytest.mark.parametrize("port", ["", ":8443"])
def test_aliases_are_hosts_and_origins(port):
    given = rendered(
        "__release_environment", app_url=f"https://shop.example.org{port}", app_aliases=["a.example", "*.b.example"]
    )
    assert given["ALLOWED_HOSTS"] == "shop.example.org,a.example,.b.example"
    origins = ["https://shop.example.org", "https://a.example", "https://*.b.example"]
    assert given["CSRF_TRUSTED_ORIGINS"].split(",") == [origin + port for origin in origins]


def test_mail_is_logged_on_sandbox_hosts_alone():
    assert rendered("__release_overlay")["email_logged"] is False
    assert rendered("__release_overlay", sandbox_name="coldframe-desk")["email_logged"] is True


def read(folder, monkeypatch, variables):
    """Return what the runtime reads of a release with these variables."""
    (folder / "overlay.json").write_text(json.dumps(rendered("__release_overlay", **variables)))
    (folder / "database_password").write_text("secret1")
    (folder / "cache_password").write_text("p@ss/word")
    monkeypatch.setenv("OVERLAY_FILE", str(folder / "overlay.json"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return Deployment.read()


@pytest.mark.parametrize("several", [False, True])
def test_runtime_reads_what_a_release_has(several, tmp_path, monkeypatch):
    variables = {"app_email": {"host": "mx.example.org"}}
    if several:
        variables |= {
            "app_addresses": ADDRESSES,
            "groups": {"postgresql": ["data"], "redis": ["data"]},
            "app_tls_mode": "own",
        }
        variables |= {
            "app_redis_scheme": "rediss",
            "app_cache_port": 6380,
            "app_broker_port": 6379,
            "app_tls_ca_file": "/ca.pem",
        }
    deployment = read(tmp_path, monkeypatch, variables)
    assert deployment.given == {"CHANGED"} and deployment.own == set() and deployment.celery == "shop.celery:app"
    assert deployment.hosts == ["shop.example.org"] and deployment.origins == ["https://shop.example.org:8443"]
    assert (deployment.media_url, deployment.private_url) == ("/media/", "/protected/")
    assert (deployment.email["encryption"], deployment.email["port"]) == ("starttls", 587)
    assert deployment.log_redact == ("token=[^&]+",) and deployment.stored_tasks == "shop.outbox:stored"
    wanted = {"name": "shop", "environment": "desk", "sentry": True, "otel_endpoint": "http://192.0.2.7:4318"}
    assert deployment.tracing == wanted
    assert deployment.development == {}
    database, login = deployment.database, "cache:p%40ss%2Fword"
    assert (database["NAME"], database["USER"], database["PASSWORD"]) == ("shop", "shop_a", "secret1")
    if several:
        assert (database["HOST"], database["PORT"]) == ("10.0.0.41", "5432")
        assert database["OPTIONS"] == {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}
        tls = "ssl_cert_reqs=required&ssl_check_hostname=true&ssl_ca_certs=/ca.pem"
        assert deployment.cache_url(3) == f"rediss://10.0.0.41:6380/3?{tls}"
        assert deployment.redis_url == f"rediss://{login}@10.0.0.41:6380/0?{tls}"
    else:
        assert (database["HOST"], database["PORT"], database["OPTIONS"]) == ("/run/postgresql", "", {})
        assert deployment.cache_url(3) == "unix:///run/redis-cache/redis-server.sock?db=3"
        assert deployment.redis_url == f"unix://{login}@/run/redis-cache/redis-server.sock?db=0"


def test_runtime_reads_the_servers_of_a_provider(tmp_path, monkeypatch):
    urls = {"database": "postgres://ann@db.example.net:25060/blog", "broker": "rediss://me@redis.example.net/4"}
    variables = {"app_managed": managed_servers(urls), "app_redis_names": {"cache": "me"}, "app_database_pooled": True}
    variables |= {"app_database_ca_path": "/etc/ssl/db.pem", "app_redis_ca_path": "/etc/ssl/redis.pem"}
    given = rendered("__release_environment", **variables)
    tls = "ssl_cert_reqs=required&ssl_check_hostname=true&ssl_ca_certs=/etc/ssl/redis.pem"
    assert given["LOCKS_URL"] == f"rediss://redis.example.net:6379/4?{tls}"
    deployment = read(tmp_path, monkeypatch, variables)
    assert deployment.database_pooled and deployment.cache_databases == 1
    assert deployment.cache_login == {"username": "me", "password": "p@ss/word"}  # pragma: allowlist secret
    assert deployment.cache_url(0) == f"rediss://redis.example.net:6379/5?{tls}"
    database = deployment.database
    assert (database["NAME"], database["USER"], database["HOST"], database["PORT"]) == (
        "blog",
        "ann",
        "db.example.net",
        "25060",
    )
    assert database["OPTIONS"] == {"sslmode": "verify-full", "sslrootcert": "/etc/ssl/db.pem"}


def test_passwords_are_given_to_releases_of_the_same_servers(tmp_path):
    """An earlier release, of other servers or of another login, keeps those that it has."""
    servers = managed_servers(
        {"database": "postgres://ann@db.example.net/blog", "broker": "rediss://redis.example.net"}
    )
    known = {"app_redis_credentials": ["redis_web"], "app_database_ca_path": "/a", "app_redis_ca_path": "/b"}
    before = rendered("__release_environment", **known)
    now = rendered("__release_environment", app_managed=servers, **known)
    for text, own, managed in (("", False, False), (before, True, False), (now, False, True)):
        release = tmp_path / f"{len(str(text))}"
        if text:
            (release / ".release").mkdir(parents=True)
            lines = "".join(f"{name}={value}\n" for name, value in text.items())
            (release / ".release/environment").write_text(lines)
        for variables, fits in (({}, own), ({"app_managed": servers}, managed)):
            wanted = rendered("__release_servers", **known, **variables)
            assert set(wanted) == {"database_password", "cache_password", "redis_web"}
            assert {release_secrets.fits(release, each) for each in wanted.values()} == {fits}
    other_login = rendered("__release_servers", app_database_user="shop_b", **known)["database_password"]
    assert other_login in f"DATABASE_URL={before['DATABASE_URL']}", "both logins have the same password in the end"


def test_environment_of_a_unit_has_no_secret_and_each_variable_once():
    init_plugin_loader()
    variables = {**trusted(load("roles/release/vars/main.yml")), "app_settings_module": "shop.settings"}
    template = (ROOT / "roles/release/templates/environment.j2").read_text()
    environment = rendered("__release_environment")
    variables |= {"__release_environment": environment, "app_environment": {"DATABASE_URL": "sqlite:///a b.db"}}
    text = Templar(DataLoader(), variables=variables).template(trust_as_template(template))
    lines = dict(line.split("=", 1) for line in text.splitlines())
    assert lines["DJANGO_SETTINGS_MODULE"] == "coldframe.settings" and lines["APP_SETTINGS_MODULE"] == "shop.settings"
    assert lines["DATABASE_URL"] == "'sqlite:///a b.db'", "the last one counts"
    assert set(lines) == {*environment, "DJANGO_SETTINGS_MODULE", "APP_SETTINGS_MODULE", "PYTHONUNBUFFERED"}


def test_many_applied_migrations_are_counted_by_app():
    applied = ["admin.0001_initial", "auth.0001_initial", "admin.0002_log.entry"]
    assert rendered("__release_migration_counts", release_prepared={"applied": applied}) == {"admin": 2, "auth": 1}
