"""Whatever a variable is set to, it is refused in a sentence that names it, or it is right."""

import re

import inventory
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

OPTIONS = strategies.OPTIONS
SECRETS = [name for name, option in OPTIONS.items() if option.get("no_log")]
GOOD = {
    "app_name": "shop",
    "app_source": "/srv",
    "app_settings_module": "shop.settings",
    "app_wsgi": "shop.wsgi:application",
    "app_celery": "shop.celery:app",
    "app_url": "https://shop.example.com",
    "celery_queues": {"default": {}},
}
EXAMPLES = 10  # for each variable, beside the fixed values


def problems(**changed):
    return inventory.variable_problems(GOOD | changed, str(strategies.ROOT))


def test_a_good_inventory_has_no_problem():
    assert problems() == []


@pytest.mark.parametrize("values", ["LEAST", "MOST", "PROVIDER"])
def test_the_far_ends_of_what_is_right_have_no_problem(values):
    assert problems(**getattr(strategies, values)) == []


def types(name):
    """The types of Python that a variable may have; some lists may be given as one text on the command line."""
    python = {"str": str, "path": str, "int": int, "bool": bool, "list": list, "dict": dict, "raw": list}[
        OPTIONS[name]["type"]
    ]
    return {python, str} if name.startswith("release_allow_") or OPTIONS[name]["type"] == "raw" else {python}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_value_is_refused_by_name_or_has_the_type(name):
    def refused_or_right(value):
        found = problems(**{name: value})
        assert all(name in problem and "\n" not in problem and "\0" not in problem for problem in found), (value, found)
        if not found:
            assert type(value) in types(name), value
            texts = value if isinstance(value, list) else [value]
            assert all(text.isprintable() for text in texts if isinstance(text, str)), value

    for value in strategies.fixed(name):
        refused_or_right(value)
    settings(max_examples=EXAMPLES)(given(strategies.values(name))(refused_or_right))()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_default_is_right(name):
    default = OPTIONS[name].get("default")
    if default is not None and "{{" not in str(default) and default != "" and default != {}:
        assert problems(**{name: default}) == []


def alike(wrong, said):
    """Whether a name is meant that has one letter more: two names may become the same."""
    meant = re.search(r"Is (\w+) meant\?", said)[1]
    return wrong in [meant[:place] + meant[place + 1 :] for place in range(len(meant))]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_misspelt_name_is_refused_and_the_right_one_told(name):
    @settings(max_examples=3)
    @given(strategies.misspelt(name))
    def refused(wrong):
        said = " ".join(problems(**{wrong: 1}))
        assert f"{wrong} is no variable of the roles" in said and alike(wrong, said), said

    refused()


HIDDEN = "kept to itself"
HOLDING = st.recursive(
    st.sampled_from([HIDDEN, "kept\0to itself"]),
    lambda inner: (
        st.lists(inner | strategies.ANYTHING, max_size=3) | st.dictionaries(strategies.TEXT, inner, max_size=3)
    ),
    max_leaves=3,
)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_not_told(name):
    def hidden(value):
        assert "to itself" not in " ".join(problems(**{name: value}))

    for value in ([1, HIDDEN], {"a b": HIDDEN}, {"a": [HIDDEN]}, "kept\0to itself"):
        hidden(value)
    settings(max_examples=EXAMPLES)(given(HOLDING)(hidden))()


def test_a_password_in_an_address_is_not_told():
    assert "kept" not in " ".join(problems(app_repository="https://me:" + "kept@example.com/x\n"))


class Wrong(dict):
    """Variables of which one cannot be worked out, as Ansible's hostvars raise it."""

    def __getitem__(self, name):
        if name == "app_wsgi":
            raise ValueError("'nope' is undefined")
        return super().__getitem__(name)


def test_a_template_that_cannot_be_worked_out_is_named():
    found = inventory.variable_problems(Wrong(GOOD), str(strategies.ROOT))
    assert found == ["app_wsgi cannot be worked out: 'nope' is undefined."]


@pytest.mark.parametrize("served", [{}, {"app_wsgi": ""}, {"app_asgi": "", "app_wsgi": ""}])
def test_what_gunicorn_serves_is_named(served):
    rest = {name: value for name, value in GOOD.items() if name != "app_wsgi"}
    (said,) = inventory.variable_problems(rest | served, str(strategies.ROOT))
    assert said.startswith("app_wsgi is missing: ") and "app_asgi" in said
    assert inventory.variable_problems(rest | {"app_asgi": "shop.asgi:application"}, str(strategies.ROOT)) == []


class OfOthers(dict):
    """Variables of which one follows from another host's."""

    def __getitem__(self, name):
        if name == "app_url":
            raise ValueError("'hostvars' is undefined")
        return super().__getitem__(name)


def test_what_follows_from_other_hosts_is_checked_too():
    variables = OfOthers(GOOD)
    assert inventory.variables_of_others(variables) == ["app_url"]
    assert inventory.variable_problems(variables, str(strategies.ROOT), {"app_url": GOOD["app_url"]}) == []
    wrong = inventory.variable_problems(variables, str(strategies.ROOT), {"app_url": "http://x"})
    assert "app_url is 'http://x'" in wrong[0]


def test_ports_are_each_alone_and_closed():
    assert "app_cache_port is 6379, which is app_broker_port" in problems(app_cache_port=6379)[0]
    assert "firewall_open_ports holds 6379, which is app_broker_port" in problems(firewall_open_ports=[6379])[0]
    assert "app_web_port is 5432, which is PostgreSQL's" in problems(app_web_port=5432)[0]


def test_names_of_migrations():
    for right in ([], ["blog.0007_title"], "a.0001,b.0002_x"):
        assert problems(release_allow_migrations=right) == []
    for wrong in ("0007_title", "blog", "blog 0007", "blog.0007; rm", 7, ""):
        assert "app_label.migration_name" in " ".join(problems(release_allow_migrations=[wrong])), wrong


class Tagged(int):
    """A number as Ansible hands it on."""


def test_a_number_of_ansibles_is_judged_at_once():
    assert problems(nginx_hsts_seconds=Tagged(2**31 - 1), celery_queues={"default": {}}) == []


def test_a_password_from_before_is_one_of_a_user_or_of_one_that_the_vault_still_has():
    vault = {"app_redis_passwords": {"web": "x" * 20, "exporter": "y" * 20}}
    assert (
        inventory.variable_problems(
            GOOD | vault | {"app_redis_passwords_before": {"exporter": "z" * 20}}, str(strategies.ROOT)
        )
        == []
    )
    wrong = inventory.variable_problems(
        GOOD | vault | {"app_redis_passwords_before": {"nobody": "z" * 20}}, str(strategies.ROOT)
    )
    assert (
        len(wrong) == 1
        and "one of admin, reader, exporter, metrics, web, worker, beat, flower, cache: make rotate-secret" in wrong[0]
    )


BROKER = {
    "app_broker_url": "rediss://ann@redis.example.net",
    "app_broker_password": "8f3k2m9qx7w1",  # pragma: allowlist secret
}  # pragma: allowlist secret


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"app_database_url": "postgres://a@b/c", "app_network": "sealed"}, "app_network is sealed, with which no unit reaches"),
        ({"app_database_url": "postgres://a@b/c", "app_beat": {"network": "sealed"}}, "app_beat.network is sealed, with which no unit"),
        ({"app_database_url": "postgres://a@b:65536/c"}, "its port must be from 1 to 65535"),
        ({"app_database_url": "postgres://a@b/c", "app_database_password_before": "x" * 20}, "change a provider's password as"),
        ({"app_database_pooled": True}, "app_database_pooled is True, and app_database_url is empty"),
        ({"app_cache_url": "rediss://b"}, "app_cache_url is 'rediss://b', and app_broker_url is empty"),
        ({"app_broker_password": "x" * 20}, "app_broker_password is set, and app_broker_url is empty"),
        (BROKER | {"app_cache_password": "x" * 20}, "app_cache_password is set, and app_cache_url is empty"),
        ({"app_database_url": "postgres://ann:hidden@b/c"}, "'postgres://***@b/c'; it must be empty or postgres://USER@HOST"),  # pragma: allowlist secret
        (BROKER | {"app_broker_url": "redis://b"}, "app_broker_url is 'redis://b'; it must be empty or rediss://"),
    ],
)  # fmt: skip
def test_what_a_providers_servers_need_is_refused_in_a_sentence(values, said):
    found = problems(**values)
    assert any(said in problem for problem in found) and "hidden" not in str(found), found


def test_a_providers_servers_have_no_problem():
    assert (
        problems(**BROKER, app_database_url="postgresql://ann@[fd00::1]:5432/blog", app_cache_url="rediss://b:1/3")
        == []
    )


DSN = "https://8f3k2m9qx7w1zz5v@o1.ingest.example.org/7"  # pragma: allowlist secret


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"app_otel_endpoint": "http://collector:65536"}, "app_otel_endpoint is 'http://collector:65536' with the port 65536"),
        ({"app_otel_endpoint": "http://collector", "app_network": "sealed"}, "write the IP address in place of collector"),
        ({"app_otel_endpoint": "http://c:1", "app_beat": {"network": "sealed"}}, "and app_beat.network is sealed, with which no unit"),
        ({"app_secrets": {"sentry_dsn": DSN}, "app_network": "sealed"}, "app_secrets.sentry_dsn leads to o1.ingest.example.org, and"),
        ({"app_secrets": {"sentry_dsn": "https://o1.example.org/7"}}, "app_secrets.sentry_dsn is no address of a project in Sentry"),
    ],
)  # fmt: skip
def test_who_is_reported_to_and_cannot_be_reached_is_refused_in_a_sentence(values, said):
    (problem,) = problems(**values)
    assert said in problem and "8f3k2m9qx7w1zz5v" not in problem


def test_who_is_reported_to_has_no_problem():
    named = {"app_otel_endpoint": "http://collector:4318", "app_secrets": {"sentry_dsn": DSN}}
    assert problems(**named) == problems(**named, app_network=["203.0.113.7"]) == []
    addresses = {
        "app_otel_endpoint": "http://127.0.0.1:4318",
        "app_secrets": {"sentry_dsn": "http://a@[2001:db8::7]:9000/b/1"},
    }
    assert problems(**addresses, app_network="sealed") == []


def test_additional_application_has_sockets_of_its_own_and_no_page_for_everybody():
    assert problems(app_additional=True, app_broker_socket="/run/redis-shop-broker/a.sock") == []
    for wrong in ("/run/redis-broker/a.sock", "/run/redis-shopping-broker/a.sock"):
        (problem,) = problems(app_additional=True, app_broker_socket=wrong)
        assert f"app_broker_socket is {wrong!r}; it must be in /run/redis-shop-broker/" in problem
    (problem,) = problems(app_cache_socket="/run/redis-shop-cache/a.sock")
    assert "it must be in /run/redis-cache/" in problem
    (problem,) = problems(app_additional=True, nginx_health_path="/healthz")
    assert "nginx_health_path is '/healthz' and app_additional is true" in problem
