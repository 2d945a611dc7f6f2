"""What is known of failures of a release: what an error, a finding, an exit code means, and what to write instead."""

from __future__ import annotations

import re

DOC = "docs/releases.md, 'When a release is refused'"
# What to write into the settings, by the id of Django's finding.
CHECKS = {
    "security.W001": "add 'django.middleware.security.SecurityMiddleware' to MIDDLEWARE",
    "security.W002": "add 'django.middleware.clickjacking.XFrameOptionsMiddleware' to MIDDLEWARE",
    "security.W003": "add 'django.middleware.csrf.CsrfViewMiddleware' to MIDDLEWARE",
    "security.W004": "SECURE_HSTS_SECONDS = 31536000",
    "security.W005": "SECURE_HSTS_INCLUDE_SUBDOMAINS = True, if it may bind every subdomain for years; else ignore it",
    "security.W006": "SECURE_CONTENT_TYPE_NOSNIFF = True",
    "security.W008": 'SECURE_SSL_REDIRECT = True and SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")',
    "security.W009": 'SECRET_KEY = Path(os.environ["CREDENTIALS_DIRECTORY"], "secret_key").read_text().strip()',  # pragma: allowlist secret
    "security.W010": "SESSION_COOKIE_SECURE = True",
    "security.W011": "SESSION_COOKIE_SECURE = True",
    "security.W012": "SESSION_COOKIE_SECURE = True",
    "security.W013": "SESSION_COOKIE_HTTPONLY = True",
    "security.W014": "SESSION_COOKIE_HTTPONLY = True",
    "security.W015": "SESSION_COOKIE_HTTPONLY = True",
    "security.W016": "CSRF_COOKIE_SECURE = True",
    "security.W018": "DEBUG = False",
    "security.W019": 'X_FRAME_OPTIONS = "DENY"',
    "security.W020": 'ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")',
    "security.W021": "SECURE_HSTS_PRELOAD = True, if the domain is to be in the browsers' list; else ignore it",
    "security.W022": 'SECURE_REFERRER_POLICY = "same-origin"',
    "security.W025": "each key of SECRET_KEY_FALLBACKS as long and as random as SECRET_KEY",
    "security.E023": 'SECURE_REFERRER_POLICY = "same-origin"',
    "security.E024": 'SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"',
}
# What needs a switch of the sandbox: the switch, what is forbidden, and a pattern of the error's text.
SANDBOX = (
    (
        "writable_executable_memory",
        "memory that is written and executed",
        r"cannot allocate executable memory|Cannot allocate write\+execute memory|mark memory page as executable"
        r"|reserve virtual memory for CodeRange",
    ),
    ("user_namespaces", "the browser's own sandbox", r"No usable sandbox!|Zygote could not fork"),
    (
        "machine_information",
        "to read what the machine is",
        r"No such file or directory: '/proc/(?!self)|/proc/cpuinfo: No such file",
    ),
    ("network_interfaces", "to list the network's interfaces", r"uv_interface_addresses returned"),
    (
        "process_priorities",
        "other priorities",
        r"cannot set niceness|ioprio_set failed: Operation not permitted|failed to set pid \d+'s affinity",
    ),
)
# What to do, by a pattern that the error's text is searched for.
ERRORS = (
    (
        r"Read-only file system: '[^']*\bstatic[^']*'",
        'Static files are written to another folder: STATIC_ROOT = os.environ["STATIC_ROOT"].',
    ),
    (
        r"Read-only file system: '[^']*\b(?:media|uploads?)\b[^']*'",
        'Uploads are written to another folder: MEDIA_ROOT = os.environ["MEDIA_ROOT"].',
    ),
    (
        r"Read-only file system: '([^']*)'",
        "{0} cannot be written: a release's folder is read-only. Log to stderr, which the journal keeps; uploads belong "
        'in os.environ["MEDIA_ROOT"], other files that stay in a folder of app_writable, the rest in /tmp.',
    ),
    (
        r"KeyError: '((?:DJANGO_)?SECRET_KEY)'|Set the ((?:DJANGO_)?SECRET_KEY) environment variable",
        "{0} is in the environment only while the settings are imported, and not with app_own_settings: [environment]. Code that "
        'needs it elsewhere reads settings.SECRET_KEY, or the file Path(os.environ["CREDENTIALS_DIRECTORY"], "secret_key").read_text().',
    ),
    (
        r"os\.environ\b[^\n]*\n(?:[^\n]*\n)*?KeyError: '(\w+)'|Set the (\w+) environment variable"
        r"|environment variable (\w+) is not set",
        "{0} is not in the environment of the application: add it to app_environment; a secret, to app_secrets, by "
        "'make secrets ENV=... SET={0}'.",
    ),
    (
        r"No such file or directory: '/run/credentials/[^']*/([^'/]+)'",
        "There is no credential {0}: add it to app_secrets, by 'make secrets ENV=... SET={0}'.",
    ),
    (
        r"no password supplied|password authentication failed for user",
        'The database\'s password is a file: DATABASES["default"]["PASSWORD"] = Path(os.environ["CREDENTIALS_DIRECTORY"], '
        '"database_password").read_text().strip().',
    ),
    (
        r"(?:failed to resolve host|could not translate host name) ['\"](%2F[^'\"]+)",
        "The folder of PostgreSQL's socket in DATABASE_URL is still percent-encoded ({0}): read it with dj_database_url, "
        "or use urllib.parse.unquote.",
    ),
    (
        r"(?:failed to resolve host|could not translate host name) ['\"]([^'\"]+)",
        "The database's host {0} has no address here: take DATABASE_URL from the environment, or add the name to the DNS.",
    ),
    (
        r"Invalid cache schema (\w+)",
        "django-environ's env.cache() does not know the scheme {0} of CACHE_URL: write the cache without it, "
        '"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": os.environ["CACHE_URL"], and "OPTIONS".',
    ),
    (
        r"(?:127\.0\.0\.1|localhost|::1)\W+(?:port )?(?:5432|6379)\b",
        "The database or Redis is looked for at its usual port: take DATABASE_URL, CACHE_URL and the settings in "
        "CELERY_SETTINGS_FILE from the environment.",
    ),
    (
        r"django-configurations settings importer wasn't correctly installed",
        "Name the class of django-configurations: app_environment: {{DJANGO_CONFIGURATION: Production}}.",
    ),
    (
        r"RuntimeError: Settings already configured",
        "The application calls settings.configure(): take that out, and name its settings module in app_settings_module.",
    ),
    (
        r"No module named '([\w.]+)'",
        "There is no module {0}: a package belongs in the file that app_lock_file names; a module of the application's own "
        "lies beside manage.py, at the top of the application's folder.",
    ),
    (
        r"Model class (\w+)\.[\w.]+ doesn't declare an explicit app_label",
        "Add '{0}' to INSTALLED_APPS.",
    ),
    (
        r"Error loading psycopg2? or psycopg module",
        "Add psycopg[binary] to the requirements, and lock them again.",
    ),
    (
        r"No such file or directory: '([\w.-]+)'\s*$|(\w+): (?:command )?not found|failed to find (libmagic)"
        r"|(\w+) executable must be",
        "{0} is no part of the servers: name the Debian package that brings it in base_packages.",
    ),
    (
        r"cannot open shared object file|OSError: (lib[\w.-]+\.so[\w.]*)",
        "A library is missing on the servers: name the Debian package that brings it in base_packages.",
    ),
    *(
        (
            pattern,
            f"The sandbox forbids {what}: turn that part off with {switch} in app_sandbox, or for one queue or service.",
        )
        for switch, what, pattern in SANDBOX
    ),
    (
        r"PermissionError: \[Errno 13\] Permission denied: '(/[^']+)'",
        '{0} cannot be written: uploads belong in os.environ["MEDIA_ROOT"], other files that stay in a folder of '
        "app_writable, the rest in /tmp.",
    ),
)
# systemd.exec(5), "Process Exit Codes": what a service's start may fail of before its program runs.
EXITS = {
    200: "the release's folder is missing or closed to the unit's user (CHDIR): deploy again with 'make site'",
    203: "its program is missing, or its interpreter is (EXEC): the virtual environment was made for another Python, or "
    "is incomplete; 'make site' makes it again",
    216: "its group is missing (GROUP): 'make site' makes it again",
    217: "its user is missing (USER): 'make site' makes it again",
    226: "a path of its sandbox is missing or cannot be mounted (NAMESPACE), such as one of ReadWritePaths",
    228: "its system call filter cannot be set (SECCOMP)",
    243: "a credential is missing (CREDENTIALS): a secret's file is gone from /etc/credstore; 'make site' writes it again",
}
RESULTS = {
    "timeout": "it was not ready within app_start_timeout",
    "oom-kill": "the host or app_memory_max had no memory left for it",
    "watchdog": "it no longer sent watchdog notifications",
    "core-dump": "it crashed",
    "signal": "it was killed",
    "protocol": "it ended without an error and before it was ready",
    "resources": "systemd could not start it",
    "start-limit-hit": "it was started too often",
}
FRAME = re.compile(r'^(?P<indent>\s*)File "(?P<file>[^"]+)", line \d+')
NOTED = 30  # lines of a journal that are shown


def check_remedies(findings: list[str]) -> list[str]:
    """Say what to write for findings of Django's, each beginning with its id."""
    ids = list(dict.fromkeys(line.partition(":")[0] for line in findings))
    return [f"{each}: {CHECKS[each]}" for each in ids if each in CHECKS]


def remedies(text: str) -> list[str]:
    """Say what helps against the errors in a text, a sentence each; empty when none is known."""
    found = []
    for pattern, sentence in ERRORS:
        if match := re.search(pattern, text, re.MULTILINE):
            found.append(sentence.format(next((group for group in match.groups() if group), "")))
            break  # the patterns go from the particular to the general
    return [f"{sentence} See {DOC}." for sentence in found]


def own_lines(text: str, folder: str) -> str:
    """Leave out of tracebacks the lines of code that is not the application's, if any of them has one that is.

    :param text: lines of a journal.
    :param folder: where releases are; what is in .venv and .release there is not the application's.
    """

    def is_its(file: str) -> bool:
        """Whether a source file is the application's."""
        return file.startswith(folder) and "/.venv/" not in file and "/.release/" not in file

    has_own = any((match := FRAME.match(line)) and is_its(match["file"]) for line in text.splitlines())
    kept: list[str] = []
    frames: list[tuple[bool, list[str]]] = []
    indent = ""

    def close() -> None:
        """Keep the application's frames and the last one, if there is one of the application's."""
        if frames:
            own = [lines for is_own, lines in frames if is_own]
            chosen = own if frames[-1][0] else [*own, frames[-1][1]]
            for lines in chosen if has_own else [lines for _, lines in frames]:
                kept.extend(lines)
            frames.clear()

    for line in text.splitlines():
        if match := FRAME.match(line):
            frames.append((is_its(match["file"]), [line]))
            indent = match["indent"]
        # What is further in; journalctl indents all lines of an entry but the first.
        elif frames and line.startswith(f"{indent} "):
            frames[-1][1].append(line)
        else:
            close()
            kept.append(line)
    close()
    return "\n".join(kept[-NOTED:])


def reason(journal: str) -> str:
    """Say in a sentence how systemd saw a unit fail, from its journal; empty when it says nothing."""
    if status := re.findall(r"Main process exited, code=exited, status=(\d+)", journal):
        code = int(status[-1])
        if code in EXITS:
            return f"exit status {code}: {EXITS[code]}"
    if "start operation timed out" in journal:
        return f"timeout: {RESULTS['timeout']}"
    results = re.findall(r"Failed with result '([\w-]+)'", journal)
    if results and results[-1] in RESULTS:
        signals = re.findall(r"Main process exited, code=(?:killed|dumped), status=\d+/(\w+)", journal)
        return f"{results[-1]}{' by ' + signals[-1] if signals else ''}: {RESULTS[results[-1]]}"
    return f"exit status {status[-1]}" if status else ""
