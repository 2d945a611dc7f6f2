"""What is said of a unit that does not start: its own lines, systemd's reason, and what helps."""

import pytest
from ansible.module_utils.coldframe_failures import CHECKS, SANDBOX, check_remedies, own_lines, reason, remedies
from failures import own_lines as own_lines_of_smoke
from strategies import OPTIONS

JOURNAL = """\
Starting blog-web@a1.service - blog web (Gunicorn), release a1...
[ERROR] Exception in worker process
Traceback (most recent call last):
  File "/srv/blog/releases/a1/.venv/lib/python3.13/site-packages/gunicorn/arbiter.py", line 700, in spawn_worker
    worker.init_process()
    ~~~~~~~~~~~~~~~~~~~^^
  File "/srv/blog/releases/a1/blog/posts.py", line 7, in newest
    return client.get("newest")
  File "/srv/blog/releases/a1/.venv/lib/python3.13/site-packages/redis/connection.py", line 400, in connect
    raise error
  File "/srv/blog/releases/a1/.venv/lib/python3.13/site-packages/redis/connection.py", line 500, in on_connect
    raise AuthenticationError("Authentication required.")
redis.exceptions.AuthenticationError: Authentication required.
blog-web@a1.service: Main process exited, code=exited, status=3/NOTIMPLEMENTED
blog-web@a1.service: Failed with result 'exit-code'.
"""


def test_of_a_traceback_the_applications_lines_and_the_last_one_are_shown():
    shown = own_lines(JOURNAL, "/srv/blog/releases/")
    assert 'blog/posts.py", line 7, in newest\n    return client.get("newest")\n' in shown
    assert "line 500" in shown and "AuthenticationError: Authentication required." in shown
    assert "gunicorn/arbiter.py" not in shown and "line 400" not in shown and "^^" not in shown
    assert shown.startswith("Starting blog-web") and shown.endswith("Failed with result 'exit-code'.")


def test_traceback_that_is_one_entry_is_cut_short_too():
    first, *rest = JOURNAL.splitlines()[1:-2]
    entry = "\n".join([f"2026-01-02T03:04:05+0000 web1 blog-web[7]: {first}", *(f"{' ' * 42}{line}" for line in rest)])
    shown = own_lines(entry, "/srv/blog/releases/")
    assert (
        "line 7, in newest" in shown and "line 500" in shown and "arbiter.py" not in shown and "line 400" not in shown
    )
    assert shown.endswith(f"{' ' * 42}redis.exceptions.AuthenticationError: Authentication required.")
    chained = own_lines(f"{entry}\n{' ' * 42}During handling of the above\n{' ' * 42}{rest[1]}", "/srv/blog/releases/")
    assert "Authentication required.\n" in chained and "During handling" in chained


def test_traceback_without_a_line_of_the_applications_is_shown_whole():
    other = JOURNAL.replace("a1/blog/posts.py", "a1/.venv/lib/posts.py")
    assert own_lines(other, "/srv/blog/releases/") == other.rstrip("\n")


def test_traceback_without_one_beside_another_with_one_is_cut_short():
    other = JOURNAL.replace("a1/blog/posts.py", "a1/.venv/lib/posts.py").replace("Authentication", "Other")
    shown = own_lines(JOURNAL + other, "/srv/blog/releases/")
    assert shown.count("line 500") == 2 and "arbiter.py" not in shown and "OtherError: Other required." in shown


def test_own_runtime_is_not_the_applications():
    ours = JOURNAL.replace("a1/blog/posts.py", "a1/.release/runtime/coldframe/web/hooks.py")
    assert "gunicorn/arbiter.py" in own_lines(ours, "/srv/blog/releases/")


def test_smoke_shows_the_same_with_what_helps():
    journal = JOURNAL + "ModuleNotFoundError: No module named 'maps'\n"
    assert "There is no module maps" in own_lines_of_smoke(journal, "/srv/blog")


REASONS = {
    "status=203/EXEC\nx.service: Failed with result 'exit-code'.": "exit status 203: its program is missing",
    "status=200/CHDIR\nx.service: Failed with result 'exit-code'.": "exit status 200: the release's folder",
    "status=226/NAMESPACE\nx.service: Failed with result 'exit-code'.": "exit status 226: a path of its sandbox",
    "status=243/CREDENTIALS\nx.service: Failed with result 'exit-code'.": "exit status 243: a credential is missing",
    "status=1/FAILURE\nx.service: Failed with result 'exit-code'.": "exit status 1",
}


@pytest.mark.parametrize("said", REASONS)
def test_exit_status_of_systemds_own_is_said_in_words(said):
    assert reason(f"x.service: Main process exited, code=exited, {said}").startswith(REASONS[said])


def test_other_results_are_said_in_words():
    killed = "x.service: Main process exited, code=killed, status=9/KILL\nx.service: Failed with result 'oom-kill'."
    assert reason(killed) == "oom-kill by KILL: the host or app_memory_max had no memory left for it"
    dumped = "x.service: Main process exited, code=dumped, status=11/SEGV\nx.service: Failed with result 'core-dump'."
    assert reason(dumped) == "core-dump by SEGV: it crashed"
    assert "app_start_timeout" in reason(
        "x.service: start operation timed out. Terminating.\nFailed with result 'timeout'."
    )
    assert reason("nothing of it") == ""


@pytest.mark.parametrize(
    ("text", "helps"),
    {
        "OSError: [Errno 30] Read-only file system: '/srv/b/releases/a1/media/x.jpg'": "MEDIA_ROOT = ",
        "django.core.exceptions.ImproperlyConfigured: Set the MAPS_KEY environment variable": "MAPS_KEY is not in the",
        "KeyError: 'DJANGO_SECRET_KEY'\nImproperlyConfigured: Set the DJANGO_SECRET_KEY environment variable": '"secret_key").read',
        "OperationalError: connection failed: fe_sendauth: no password supplied": '"database_password").read_text()',
        "KeyError: 'DJANGO_SECRET_KEY'": "only while the settings are imported",  # pragma: allowlist secret
        "Traceback\n  os.environ['MAPS_SECRET_KEY']\nKeyError: 'MAPS_SECRET_KEY'": "by 'make secrets ENV=... SET=MAPS_SECRET_KEY'",
        "ImproperlyConfigured: Set the AWS_SECRET_KEY environment variable": "AWS_SECRET_KEY is not in the environment of the app",
        "FileNotFoundError: [Errno 2] No such file or directory: '/run/credentials/x.service/maps_key'": "no credential maps_key",
        "psycopg.OperationalError: failed to resolve host 'db.internal': [Errno -2]": "host db.internal has no address",
        'could not translate host name "%2Frun%2Fpostgresql" to address': "still percent-encoded",
        "FileNotFoundError: [Errno 2] No such file or directory: 'pandoc'": "pandoc is no part of the servers",
        "redis.exceptions.ConnectionError: Error 111 connecting to 127.0.0.1:6379. Refused": "at its usual port",
        "django-configurations settings importer wasn't correctly installed.": "DJANGO_CONFIGURATION: Production}.",
        "RuntimeError: Settings already configured.": "calls settings.configure()",
        "RuntimeError: Model class maps.models.Place doesn't declare an explicit app_label": "Add 'maps' to INSTALLED_APPS",
        "OSError: [Errno 30] Read-only file system: '/srv/b/releases/a1/index'": "in a folder of app_writable",
        "PermissionError: [Errno 13] Permission denied: '/srv/index'": "in a folder of app_writable",
        "PermissionError: [Errno 13] cannot allocate executable memory. This may be due to": "with writable_executable_memory in",
        "MemoryError: Cannot allocate write+execute memory for ffi.callback().": "with writable_executable_memory in app_sandbox",
        "Failed to mark memory page as executable - check if grsecurity/PaX is enabled": "with writable_executable_memory in",
        "V8 process OOM (Failed to reserve virtual memory for CodeRange).": "with writable_executable_memory in app_sandbox",
        "FATAL:zygote_host_impl_linux.cc:130] No usable sandbox! If this is a Debian": "with user_namespaces in app_sandbox",
        "FileNotFoundError: [Errno 2] No such file or directory: '/proc/meminfo'": "with machine_information in app_sandbox",
        "grep: /proc/cpuinfo: No such file or directory": "with machine_information in app_sandbox",
        "A system error occurred: uv_interface_addresses returned Unknown system error 97": "with network_interfaces in app_sandbox",
        "ionice: ioprio_set failed: Operation not permitted": "with process_priorities in app_sandbox",
    }.items(),
)
def test_known_errors_have_a_remedy(text, helps):
    (said,) = remedies(f"Traceback (most recent call last):\n{text}")
    assert helps in said and said.endswith("See docs/releases.md, 'When a release is refused'.")


def test_switches_that_are_named_are_those_of_the_sandbox():
    switches = OPTIONS["app_sandbox"]["choices"]
    assert [switch for switch, _, _ in SANDBOX] == switches


def test_unknown_error_has_none():
    assert remedies("ValueError: invalid literal for int() with base 10: 'x'") == []


def test_findings_of_security_have_a_line_to_write():
    said = check_remedies(["security.W012: SESSION_COOKIE_SECURE is not set", "    a hint", "maps.W001: no maps"])
    assert said == [f"security.W012: {CHECKS['security.W012']}"]


def test_journal_is_shown_without_control_characters():
    journal = JOURNAL.replace('return client.get("newest")', 'return client.get("\x1b[31mnewest\x1b]0;title\x07")')
    shown = own_lines_of_smoke(journal, "/srv/blog")
    assert 'return client.get("newest")\n' in shown and "\x1b" not in shown
