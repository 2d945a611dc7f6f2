"""The status page: nginx serves it as the role says, a browser shows it, and Prometheus itself answers its queries."""

import base64
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from alert_rules import alert_rules
from queues import celery_queue_table
from real_nginx import NAME, Edge, Server
from real_prometheus import RELEASES, Prometheus, past

ROOT = Path(__file__).parents[1]
FILES = ROOT / "roles/monitoring/files/status"
PANELS = json.loads((FILES / "panels.json").read_text())
LOGIN = {"Authorization": "Basic " + base64.b64encode(b"ops:secret").decode()}
CHROMIUM = shutil.which("chromium")
OPTIONS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync"""
PATIENCE = 30_000  # milliseconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the role puts into nginx's folder: the login and the page."""
    folder = tmp_path_factory.mktemp("nginx")
    said = subprocess.run(["openssl", "passwd", "-6", "secret"], check=True, capture_output=True, text=True).stdout
    (folder / "site.login").write_text(f"ops:{said}")
    shutil.copytree(FILES, folder / "site.status")
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate and its key."""
    files = [tmp_path_factory.mktemp("tls") / name for name in ("crt", "key")]
    files[1] = files[0].with_name("key")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={NAME}"]
    command = ["openssl", "req", "-x509", *kind, "-out", files[0], "-keyout", files[1]]
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.fixture(scope="module")
def edge(folder, certificate):
    """Make nginx with a monitoring host on the same server, which has Prometheus at a port."""

    def make(port, **variables):
        groups = {group: ["one"] for group in ("edge", "web", "monitoring")}
        own = {"groups": groups, "app_prometheus_port": port, "__nginx_files": str(folder)}
        return Edge(certificate, **own | variables)

    return make


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Prometheus with a day of metrics, and an alert that fires."""
    rules = alert_rules(celery_queue_table({"critical": {}, "default": {}, "bulk": {}}), 1100, 100)
    folder = tmp_path_factory.mktemp("measured")
    with Prometheus(folder, past(time.time() + 300, strange=True), rules) as prometheus:
        deadline = time.monotonic() + 60
        while not {"DeadLetters", "Watchdog"} <= {
            each["labels"]["alertname"] for each in prometheus.ask("alerts")["alerts"]
        }:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield prometheus


@pytest.fixture(scope="module")
def site(edge, measured):
    """The page's address, with that Prometheus."""
    with edge(measured.port) as nginx:
        yield f"https://{NAME}:{nginx.https}/status/"


@pytest.fixture(scope="module")
def chromium():
    """A browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="'make browser' installs what drives a browser")
    if not CHROMIUM:
        pytest.skip("'make browser' installs Chromium")
    with playwright.sync_playwright() as driver:
        rules = f"--host-resolver-rules=MAP {NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=[*OPTIONS.split(), rules])
        yield browser
        browser.close()


@pytest.fixture
def show(chromium, request):
    """Open the page; at the end it had no error. With SCREENSHOTS=folder it is seen there as it was last."""
    faults, opened = [], []

    def run(url, width=1280, height=900, scheme="light", errors=True):
        context = chromium.new_context(
            http_credentials={"username": "ops", "password": "secret"},  # pragma: allowlist secret
            ignore_https_errors=True,
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            timezone_id="Europe/Berlin",
            permissions=["clipboard-read", "clipboard-write"],
        )
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        if errors:
            page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
            # A page's own request is aborted where it is left.
            page.on(
                "requestfailed", lambda r: r.failure != "net::ERR_ABORTED" and faults.append(f"{r.url} {r.failure}")
            )
            page.on("response", lambda got: faults.append(f"{got.status} {got.url}") if got.status >= 400 else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.error('CSP ' + e.violatedDirective), true)"
        )
        page.goto(url)
        opened.append((context, page))
        return page

    yield run
    for number, (context, page) in enumerate(opened):
        if shots := os.environ.get("SCREENSHOTS"):
            name = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
            page.screenshot(path=Path(shots, f"{name}-{number}.png"), full_page=True)
        context.close()
    assert faults == []


def read(page):
    """Wait until the page has read everything."""
    page.locator("#updated", has_text="Read at").wait_for()


# What nginx does


def test_page_is_behind_the_login_of_the_other_pages(edge):
    with edge(1) as nginx:
        realms = set()
        for path in ("/status/", "/status/status.js", "/status/panels.json", "/prometheus/api/v1/alerts"):
            refused = nginx.request(path)
            assert refused.status == 401, path
            realms.add(refused.get("WWW-Authenticate"))
        assert realms == {'Basic realm="monitoring"'}, "a browser sends the login of the page to Prometheus"
        answer = nginx.request("/status/", headers=LOGIN)
        assert answer.status == 200 and "<title>Status</title>" in answer.body
        assert nginx.request("/status/", headers=LOGIN, method="POST", body="").status == 405


def test_page_may_load_from_this_site_alone(edge):
    with edge(1) as nginx:
        for path in ("/status/", "/status/status.js"):
            answer = nginx.request(path, headers=LOGIN)
            policy = dict(part.split(" ", 1) for part in answer.get("Content-Security-Policy").split("; "))
            assert policy.pop("default-src") == "'none'" and "unsafe" not in str(policy)
            assert set(policy.values()) == {"'self'", "'none'"}
            assert policy["frame-ancestors"] == "'none'" and answer.get("X-Frame-Options") == "DENY"
            assert answer.get("Cache-Control") == "no-cache" and answer.get("X-Content-Type-Options") == "nosniff"


def test_page_has_nothing_inline_and_names_no_other_site():
    text = (FILES / "index.html").read_text()
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", text)
    for name in ("index.html", "status.js", "status.css"):
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)[\w.]", (FILES / name).read_text()), name
    for name in re.findall(r'(?:src|href)="([^/"]+)"', text):
        assert (FILES / name).is_file(), name


def test_path_is_the_variables_and_the_rest_is_the_applications(edge):
    with edge(1, nginx_status_path="/ops/now/") as nginx, Server(nginx.socket):
        assert nginx.request("/ops/now/", headers=LOGIN).status == 200
        assert json.loads(nginx.request("/status/").body)["path"] == "/status/"


def test_without_monitoring_all_paths_are_the_applications(edge):
    with edge(1, groups={"edge": ["one"], "web": ["one"]}) as nginx, Server(nginx.socket):
        assert json.loads(nginx.request("/status/").body)["path"] == "/status/"
        assert "site.status" not in nginx.text


# What a browser shows


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_charts_are_drawn(show, site, scheme, width):
    page = show(site, width, scheme=scheme)
    read(page)
    for chart in PANELS["charts"]:
        figure = page.locator(f"figure#{chart['id']}")
        drawn = figure.locator("canvas").evaluate(
            "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
        )
        assert drawn > 20, f"{chart['id']} has {drawn} colours"
        rows = figure.locator("tbody tr")
        assert rows.count() >= len(chart["queries"]), chart["id"]
        assert re.search(r"\d", rows.first.inner_text()), chart["id"]
    for panel in PANELS["tables"]:
        if panel["id"] != "draining":
            assert page.locator(f"#{panel['id']} tbody tr").count() >= 3, panel["id"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the window"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = sum(map(int, re.findall(r"\d+", background))) > 3 * 128
    assert bright == (scheme == "light"), background


def test_figures_are_those_of_prometheus(show, site, measured):
    page = show(site)
    read(page)
    row = page.locator("#queues tbody tr", has_text="bulk").locator("td")
    (sample,) = measured.ask("query", query='coldframe_queue_dead_letters{queue="bulk"}')["result"]
    assert row.last.inner_text() == sample["value"][1] == "3"
    tasks = page.locator("#by-task tbody th").all_inner_texts()
    assert tasks == ["shop.tasks.charge", "shop.tasks.send_mail", "shop.tasks.resize", "shop.tasks.report"]
    p50, p95, p99 = (
        float(re.match(r"[\d.]+", text)[0])
        for text in page.locator("#by-task tbody tr", has_text="report").locator("td").all_inner_texts()[2:]
    )
    assert 30 < p50 < 60 and p95 != p99
    hosts = page.locator("#hosts tbody tr", has_text="web1").inner_text()
    assert "yes" in hosts and RELEASES[-1][0] in hosts
    assert page.locator("#releases tbody tr").count() == 2
    assert RELEASES[-2][0] in page.locator("#releases tbody tr", has_text="before").inner_text()


def test_alerts_are_shown_and_counted(show, site):
    page = show(site)
    read(page)
    firing = page.locator("#alerts li", has=page.locator(".warning"))
    assert "DeadLetters" in firing.first.inner_text() and "runbooks/messages-left.md" in firing.first.inner_text()
    assert "Watchdog" not in page.locator("#alerts").inner_text()
    assert re.match(r"[12] alerts? fires?\.", page.locator("#alerts-state").inner_text())
    assert page.title().startswith("(")


def test_command_for_dead_letters_is_copied_and_names_are_text(show, site):
    page = show(site)
    read(page)
    lines = page.locator("#dead li")
    assert lines.locator("code").all_inner_texts() == [
        r"make queues RETRY='<b>it'\''s</b>'",
        "make queues RETRY=bulk",
    ]
    assert page.locator("#dead b, table b").count() == 0
    page.get_by_role("button", name="queue bulk").click()
    page.get_by_role("button", name="queue bulk").filter(has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "make queues RETRY=bulk"


def test_hours_are_chosen_by_keyboard_and_kept_in_the_address(show, site):
    page = show(site)
    read(page)
    asked = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.get_by_role("radio", name="1 hour").focus()
    with page.expect_response(lambda got: "query_range" in got.url and "step=300" in got.url):
        page.keyboard.press("ArrowLeft")
    assert page.get_by_role("radio", name="24 hours").is_checked() and page.url.endswith("#24h")
    page.locator("#releases tbody tr").nth(2).wait_for()
    page.reload()
    read(page)
    assert page.get_by_role("radio", name="24 hours").is_checked()
    assert page.locator("#releases tbody tr").count() == 3


def test_answers_for_an_earlier_choice_are_left_out(show, site):
    page = show(site)
    read(page)
    held = []
    page.route(re.compile(".*step=300.*"), lambda route: held.append(route))
    with page.expect_request(re.compile(".*step=300.*")):
        page.get_by_text("24 hours").click()
    with page.expect_response(re.compile(".*step=15.*")):
        page.get_by_text("1 hour").click()
    page.locator("#drains thead", has_text="Last").wait_for()
    for route in held:
        with page.expect_response(route.request.url):
            route.continue_()
    page.evaluate("new Promise(requestAnimationFrame)")
    read(page)
    assert page.locator("#releases tbody tr").count() == 2 and page.url.endswith("#1h")
    assert page.locator("#numbers dt").nth(1).inner_text() == "Failed in 1 h"


def test_page_waits_where_the_site_limits_requests(show, edge, measured):
    with edge(measured.port, nginx_requests_per_second=10) as nginx:
        page = show(f"https://{NAME}:{nginx.https}/status/", errors=False)
        read(page)
        assert page.locator("#message").is_hidden() and page.locator("#queues tbody tr").count() == 3


def test_chart_is_read_by_keyboard(show, site):
    page = show(site)
    read(page)
    chart = page.get_by_role("group", name="Wait, chart")
    chart.focus()
    page.keyboard.press("ArrowLeft")
    heading = page.locator("#wait thead th").nth(1)
    first = heading.inner_text()
    assert re.fullmatch(r"at \d\d:\d\d", first)
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    assert heading.inner_text() != first
    assert re.match(rf"{heading.inner_text()}: bulk .*, default .*, critical ", page.locator("#spoken").inner_text())
    assert page.locator("#tasks thead th").nth(1).inner_text() == heading.inner_text(), "all charts are at one time"
    page.keyboard.press("Escape")
    page.locator("#wait thead", has_text="Last").wait_for()


def test_everything_has_a_name_for_a_screen_reader(show, site):
    page = show(site)
    read(page)
    assert page.locator("table:not(.scroll table) caption").count() == len(PANELS["charts"])
    names = page.evaluate(
        "[...document.querySelectorAll('section, figure, [role=region], [role=group], button')]"
        ".map(e => e.getAttribute('aria-label') || document.getElementById(e.getAttribute('aria-labelledby'))?.textContent)"
    )
    assert names and all(names), names
    assert page.locator("canvas:not([aria-hidden=true] canvas)").count() == 0, "a canvas says nothing"
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(e => +e.tagName[1])")
    assert levels[0] == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_page_says_that_prometheus_has_no_data_yet(show, edge, tmp_path):
    with Prometheus(tmp_path / "empty") as prometheus, edge(prometheus.port) as nginx:
        page = show(f"https://{NAME}:{nginx.https}/status/")
        read(page)
        assert page.locator("#message").is_hidden() and page.locator("canvas").count() == 0
        assert "has not evaluated its rules yet" in page.locator("#alerts-state").inner_text()
        assert "no host is in the group flower" in page.locator("#tasks").inner_text()
        assert "The broker was not read yet" in page.locator("#dead").inner_text()
        assert page.locator("#queues").get_by_text("The broker was not read yet.").is_visible()
        assert page.locator("#drains").get_by_text("No unit was draining in this time.").is_visible()
        assert "NaN" not in page.locator("body").inner_text() and "undefined" not in page.locator("body").inner_text()


def test_page_says_that_prometheus_does_not_answer_and_keeps_what_it_had(show, edge, tmp_path):
    with Prometheus(tmp_path / "ends", past(time.time())) as prometheus, edge(prometheus.port) as nginx:
        url = f"https://{NAME}:{nginx.https}/status/"
        page = show(url, errors=False)
        read(page)
        prometheus.__exit__()
        page.get_by_text("6 hours").click()
        message = page.get_by_role("alert")
        message.filter(has_text="Prometheus does not answer (HTTP 502)").wait_for()
        assert "The figures below are those of" in message.inner_text()
        assert page.locator("#queues tbody tr").count() == 3
        other = show(url, errors=False)
        other.get_by_role("alert").filter(has_text="make logs UNIT=prometheus").wait_for()
        assert "figures below" not in other.get_by_role("alert").inner_text()


# What is of others


def test_files_of_others_are_as_they_were_published():
    for package in yaml.safe_load((ROOT / "requirements/vendored.yml").read_text()):
        for path, file in package["files"].items():
            assert hashlib.sha256((ROOT / path).read_bytes()).hexdigest() == file["sha256"], path
        assert package["license"] in (ROOT / package["licence_text"]).read_text()
        assert any(f"v{package['version']})" in (ROOT / path).read_text()[:100] for path in package["files"])
    named = {
        path
        for package in yaml.safe_load((ROOT / "requirements/vendored.yml").read_text())
        for path in package["files"]
    }
    assert {str(path.relative_to(ROOT)) for path in FILES.iterdir() if path.name.startswith("uPlot")} == named
