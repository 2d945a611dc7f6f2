"""Every path of the application, asked for what its description (openapi.yaml) allows, and for what it does not."""

import json
import random
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.one_host, pytest.mark.changes, pytest.mark.group("edge")]

HERE = Path(__file__).parent
PATHS = yaml.safe_load((HERE / "openapi.yaml").read_text())["paths"]
OPERATIONS = [(method.upper(), path) for path, methods in PATHS.items() for method in methods]
LIST_PATHS = """
import json
from django.contrib.admindocs.views import extract_views_from_urlpatterns
from django.urls import get_resolver
views = extract_views_from_urlpatterns(get_resolver().url_patterns)
print(json.dumps(sorted({"admin/<page>" if space == ["admin"] else path for _, path, space, _ in views})))
"""


def test_every_path_of_the_application_is_described(manage):
    paths = ["/" + re.sub("<.*?>", "{}", path) for path in json.loads(manage(LIST_PATHS))]
    assert paths == sorted(re.sub("{.*?}", "{}", path) for path in PATHS)


def test_the_application_keeps_to_its_description(deployment, tmp_path):
    """Examples, limits, random and wrong values, other methods, and orders that are then asked for."""
    report = tmp_path / "answers.har"
    result = subprocess.run(
        [
            "schemathesis",
            "run",
            "openapi.yaml",
            f"--url={deployment.app_url}",
            "--no-color",
            "--report=har",
            f"--report-har-path={report}",
        ],
        cwd=HERE,  # where schemathesis.toml is found
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    seen = defaultdict(set)
    for entry in json.loads(report.read_text())["log"]["entries"]:
        assert "Traceback" not in entry["response"]["content"].get("text", ""), entry
        path = entry["request"]["url"].removeprefix(deployment.app_url)
        seen[entry["request"]["method"], path.split("/")[1]].add(entry["response"]["status"])
    assert 429 not in set().union(*seen.values()), "faster than nginx lets one client ask"
    assert seen["POST", "orders"] >= {201, 400, 415} and 409 not in seen["POST", "orders"], seen
    assert seen["GET", "orders"] >= {200, 404}, "an order is asked for after it was placed"


# What no JSON, no UTF-8 or no character of a database is.
NOISE = [b"\0", b"\\u0000", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\xef\xbb\xbf", "☃\u202e💩".encode()]
NOISE += [b"[", b"}", b'"', b"\\", b",", b"NaN", b"1e999", b"9" * 5000, b"[" * 9000, b""]


@pytest.mark.parametrize("method, path", OPERATIONS)
def test_malformed_json_is_answered_as_described(deployment, method, path):
    draw = random.Random(path)  # noqa: S311
    order = b'{"sku": "tulip-7", "quantity": 3, "email": "a@example.org", "idempotency_key": "malformed"}'
    described = {int(status) for status in PATHS[path][method.lower()]["responses"]} - {503}
    path = path.format(id="00000000-0000-4000-8000-000000000000", page="login/")
    for noise in NOISE:
        at = draw.randrange(len(order))
        body = order[:at] + noise + order[at + draw.randrange(1, 9) :]
        answer = deployment.request(path, body, method=method)
        assert answer.status in described and "Traceback" not in answer.body, (body[:200], answer)
    if method == "POST":
        assert answer.status == (403 if path.startswith("/webhooks/") else 400)  # unsigned, it is not even read
