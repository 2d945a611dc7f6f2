"""The application sees its clients, and what it reads its database's address with is no matter."""

import sys
from pathlib import Path
from types import ModuleType

import dj_database_url
import environ
import jinja2
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def seen(monkeypatch):
    """Ask an application that answers with the address of its client."""
    gunicorn = ModuleType("gunicorn.util")
    gunicorn.import_app = lambda path: lambda environ, start: [environ]
    monkeypatch.setitem(sys.modules, "gunicorn", ModuleType("gunicorn"))
    monkeypatch.setitem(sys.modules, "gunicorn.util", gunicorn)
    monkeypatch.syspath_prepend(ROOT / "runtime")
    monkeypatch.delitem(sys.modules, "coldframe.web.client", raising=False)
    from coldframe.web.client import application

    def seen(peer, forwarded=None, edges="*"):
        asked = {"REMOTE_ADDR": peer, "REMOTE_PORT": "1"}
        if forwarded is not None:
            asked["HTTP_X_FORWARDED_FOR"] = forwarded
        return application("shop.wsgi:application", edges)(asked, None)[0]["REMOTE_ADDR"]

    return seen


def test_client_is_whom_the_edge_names(seen):
    assert seen("", "203.0.113.7") == "203.0.113.7"
    assert seen("", "2001:db8::1") == "2001:db8::1"
    assert seen("", "198.51.100.1, 203.0.113.7") == "203.0.113.7"
    assert seen("10.0.0.2", "203.0.113.7", edges="10.0.0.1,10.0.0.2") == "203.0.113.7"


def test_client_is_never_nobody_and_a_stranger_is_not_believed(seen):
    assert seen("") == seen("", "") == "127.0.0.1"
    assert seen("10.0.0.9", "203.0.113.7", edges="10.0.0.1,10.0.0.2") == "10.0.0.9"
    assert seen("10.0.0.1", edges="10.0.0.1,10.0.0.2") == "10.0.0.1"


@pytest.mark.parametrize("folder", ["/run/postgresql", "/var/run/my sockets"])
def test_address_of_the_database_is_read_alike_by_all(folder):
    template = jinja2.Environment(autoescape=False).from_string(  # noqa: S701
        next(
            line
            for line in (ROOT / "roles/release/templates/environment.j2").read_text().splitlines()
            if line.startswith("DATABASE_URL") and "app_database_socket" in line
        )
    )
    url = template.render(app_database_user="shop_a", app_name="shop", app_database_socket=folder).partition("=")[2]
    for read in (environ.Env.db_url_config, dj_database_url.parse):
        found = read(url)
        assert (found["NAME"], found["USER"], found["HOST"] or found["OPTIONS"]["host"]) == ("shop", "shop_a", folder)
