"""What the application reads its database's address with does not matter."""

from pathlib import Path

import dj_database_url
import environ
import jinja2
import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("folder", ["/run/postgresql", "/var/run/my sockets"])
def test_address_of_the_database_is_read_alike_by_all(folder):
    variables = yaml.safe_load((ROOT / "roles/release/vars/main.yml").read_text())["__release_environment"]
    template = jinja2.Environment(autoescape=False).from_string(variables["DATABASE_URL"])  # noqa: S701
    url = template.render(
        app_database_user="shop_a", app_name="shop", app_database_socket=folder, app_addresses={}, app_managed={}
    )
    for read in (environ.Env.db_url_config, dj_database_url.parse):
        found = read(url)
        assert (found["NAME"], found["USER"], found["HOST"] or found["OPTIONS"]["host"]) == ("shop", "shop_a", folder)
