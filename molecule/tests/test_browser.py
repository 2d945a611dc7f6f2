"""Flower's pages and the status page as a browser shows them: what is in them, no error in the console, no request that failed."""

import os
import shutil
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from waits import wait_for

playwright = pytest.importorskip("playwright.sync_api", reason="'make browser' installs what drives a browser")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.one_host,
    pytest.mark.group("flower"),
    pytest.mark.changes,
    pytest.mark.skipif(not CHROMIUM, reason="'make browser' installs Chromium"),
]
OPTIONS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync"""


@pytest.fixture(scope="module")
def browser(deployment, tmp_path_factory):
    """A browser that is logged in to Flower and reaches no other host than the application's."""
    host = urlsplit(deployment.app_url).hostname
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("chromium"),
            executable_path=CHROMIUM,
            args=[*OPTIONS.split(), f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {host}"],
            http_credentials={"username": "ops", "password": deployment.app_flower_password},
            ignore_https_errors=True,
            viewport={"width": 1400, "height": 900},
        )
        yield context
        context.close()


@pytest.fixture
def page(browser, deployment, request):
    """A page; at the end it had no error. With SCREENSHOTS=folder it is seen there as it was last."""
    faults = []
    page = browser.new_page()
    page.set_default_timeout(20_000)
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    # A page's own request is aborted where the page itself asks anew or is left.
    page.on("requestfailed", lambda r: r.failure != "net::ERR_ABORTED" and faults.append(f"{r.url} {r.failure}"))
    page.on("response", lambda got: faults.append(f"{got.status} {got.url}") if got.status >= 400 else None)
    page.show = lambda path: page.goto(f"{deployment.app_url}/flower/{path}", wait_until="load")
    yield page
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder, request.node.originalname + ".png"))
    page.close()
    assert faults == []


WORKER = "browser@test"


@pytest.fixture
def task(send_events, flower):
    """The name of a task that was done twice; the second time it failed."""
    name = f"browser.{uuid.uuid4().hex[:8]}"
    events = []
    for end in ({"result": "'done'", "runtime": 0.5}, {"exception": "E()", "traceback": "in x"}):
        fields = {"uuid": str(uuid.uuid4()), "name": name, "args": "('<b>x</b>',)", "kwargs": "{}"}
        events += [("task-received", fields), ("task-started", fields)]
        events += [("task-failed" if "exception" in end else "task-succeeded", fields | end)]
    send_events(WORKER, events)
    wait_for(lambda: len(flower(f"api/tasks?taskname={name}").json) == 2, 10, "Flower has the tasks")
    yield name
    send_events(WORKER, [("worker-offline", {})])


def test_workers(page, deployment):
    page.show("")
    for queue in deployment.celery_queues:
        row = page.locator("#workers-table tbody tr", has_text=f"{queue}-").filter(has_text="Online").first
        row.wait_for()
        assert row.locator(".load-average-value").count() == 3
    assert int(page.locator("#workers-online").inner_text()) >= len(deployment.celery_queues)
    page.locator("#workers-refresh-status", has_text="Updated").wait_for()


def test_a_worker_and_its_tabs(page, deployment):
    page.show("workers")
    queue = next(iter(deployment.celery_queues))
    page.locator("#workers-table tbody tr", has_text="Online").locator(f"a[title^={queue}-]").first.click()
    page.locator("h1#workername", has_text=f"{queue}-").wait_for()
    tabs = page.locator(".worker-tabs-nav a").all()
    assert len(tabs) >= 7
    for tab in tabs:
        tab.click()
        pane = page.locator(tab.get_attribute("data-bs-target"))
        pane.locator("table").first.wait_for()
        assert pane.inner_text().strip(), tab.inner_text()
    page.locator("#worker-tab-queues").click()
    assert page.locator("#worker-queues tr td").first.inner_text() == queue
    assert page.locator("#worker-shutdown, #worker-pool-grow").count() == 0, "nothing is offered that is refused"


def test_tasks_are_found_sorted_and_opened(page, task):
    page.show("tasks")
    rows = page.locator("#tasks-table tbody tr")
    rows.filter(has_text=task).first.wait_for()
    search = page.locator("#tasks-table_filter input")
    search.fill(f"name:{task}")
    page.locator("#tasks-table_info", has_text="1 to 2 of 2").wait_for()
    for order in ("FAILURE", "SUCCESS"):  # up, then down
        page.locator(".dataTables_scrollHead th", has_text="State").click()
        rows.first.filter(has_text=order).wait_for()
    page.locator(".task-state-filter", has_text="Failed").click()
    rows.filter(has_text=task).first.wait_for()
    page.wait_for_function(
        "[...document.querySelectorAll('#tasks-table tbody .badge')].every(badge => badge.innerText == 'FAILURE')"
    )
    search.fill(f"name:{task} state:FAILURE")
    page.locator("#tasks-table_info", has_text="1 to 1 of 1").wait_for()
    assert rows.locator(f"a[title='{WORKER}']").count() == 1
    rows.locator("a[href*='/task/']").click()
    page.locator("#task-page").wait_for()
    shown = page.locator("#task-page").inner_text()
    assert all(word in shown for word in (task, "FAILURE", "('<b>x</b>',)", "in x", WORKER))
    assert page.locator("#task-page b").count() == 0, "what a task is given is shown as text"


def test_broker(page, deployment):
    page.show("broker")
    rows = page.locator("table tbody tr")
    rows.first.wait_for()
    cells = {row.locator("td").nth(0).inner_text(): row.locator("td").nth(1).inner_text() for row in rows.all()}
    assert cells.keys() == set(deployment.celery_queues)
    assert all(messages.isdigit() for messages in cells.values())


def test_documentation_is_elsewhere(page):
    """A link to Flower's own; the browser is not to leave this deployment."""
    page.show("broker")
    link = page.locator("a", has_text="Documentation")
    assert link.get_attribute("href") == "https://flower.readthedocs.io/"


def test_status_page(page, deployment):
    if not deployment.groups.get("monitoring"):
        pytest.skip("no host is in the group monitoring")
    page.goto(deployment.app_url + (deployment.nginx_status_path or "/status/"))
    page.locator("#updated", has_text="Read at").wait_for()
    assert page.locator("#message").is_hidden()
    for queue in deployment.celery_queues:
        assert page.locator("#queues tbody th", has_text=queue).count() >= 1
    for chart in ("wait", "waiting", "memory", "processors"):
        assert page.locator(f"#{chart} canvas").count() == 1, page.locator(f"#{chart}").inner_text()
    assert page.locator("#releases tbody tr").count() >= 1
    assert page.locator("#hosts tbody tr", has_text="yes").count() == len(deployment.hosts)
