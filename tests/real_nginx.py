"""nginx itself, with the configuration that the role renders, on ports of its own and with a small application behind it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import socketserver
import ssl
import subprocess
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from debian import unpacked

ROOT = Path(__file__).parents[1]
NAME = "www.example.com"
BALANCER = "127.0.0.2"  # requests from this address of the machine are a load balancer's
PACKAGES = ("nginx", "nginx-common", "libnginx-mod-http-brotli-filter", "libnginx-mod-http-brotli-static", "libbrotli1")


@cache
def nginx():
    """Return the folder that has Debian's nginx: / if it is installed, else one where its packages are unpacked."""
    if Path("/usr/sbin/nginx").exists() and Path("/usr/lib/nginx/modules/ngx_http_brotli_filter_module.so").exists():
        return Path("/")
    folder = unpacked(*PACKAGES)
    os.environ["LD_LIBRARY_PATH"] = ":".join(str(path) for path in (folder / "usr/lib").glob("*-linux-gnu*"))
    return folder


def trusted(value):
    """Make templates of all texts in a value."""
    if isinstance(value, dict):
        return {key: trusted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [trusted(each) for each in value]
    return trust_as_template(value) if isinstance(value, str) else value


@cache
def of_roles(*roles):
    """Return the variables of roles, whose templates Ansible evaluates; `*` stands for all of them."""
    init_plugin_loader()
    filter_loader.add_directory(str(ROOT / "plugins/filter"))
    names = [f"roles/{role}/{kind}/main.yml" for kind in ("defaults", "vars") for role in roles]
    files = [file for name in names for file in sorted(ROOT.glob(name))]
    found = [trusted(yaml.safe_load(file.read_text()) or {}) for file in files]
    return {name: value for values in found for name, value in values.items()}


def evaluate(text, **variables):
    """Evaluate a template as a task of the role nginx does."""
    loader = DataLoader()
    loader.set_basedir(str(ROOT / "playbooks"))
    role = str(ROOT / "roles/nginx")
    host = {"inventory_hostname": "one", "hostvars": {"one": {}}, "group_names": ["edge", "web"]}
    host |= {"groups": {"edge": ["one"], "web": ["one"]}, "nginx_ipv6": {"stat": {"exists": False}}}
    host |= {"app_state": {"others": {}}}
    host |= {"app_name": "site", "app_url": f"https://{NAME}", "ansible_managed": "by Ansible"}
    host |= {"role_path": role, "playbook_dir": f"{ROOT}/playbooks", "ansible_search_path": [role]}
    return Templar(loader, variables=of_roles("app", "nginx") | host | variables).template(trust_as_template(text))


def configuration(**variables):
    """Render nginx.conf as the role does."""
    return evaluate("{{ __nginx_configuration }}", **variables)


def keep_files_in(folder, text):
    """Change a configuration so that what nginx receives and sends is kept in a folder, and not in that of an installed nginx."""
    kept = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return text.replace("http {", f"http {{ {kept}", 1)


def free_port():
    """Find a port that nobody listens on, and that Linux gives to no client in the meantime: below 32768 (ip(7), ip_local_port_range)."""
    while True:
        port = 10_000 + secrets.randbelow(22_768)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("", port))
            return port


@dataclass
class Answer:
    """What a client is answered."""

    status: int
    headers: list[tuple[str, str]]
    body: str

    def all(self, name):
        """Return the values of a header, one for each line of it."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name):
        """Return the value of a header that is there at most once, or None."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None


class Edge:
    """nginx as an ordinary process."""

    def __init__(self, certificate, **variables):
        """Render the configuration, with a certificate and key, and write it where this process may."""
        self.folder = Path(tempfile.mkdtemp(prefix="edge-"))  # its path is short enough for a socket's
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.app, self.socket = self.folder / "app", self.folder / "web.sock"
        for folder in ("app/shared/media", "app/assets", "app/releases/r1/.release/static"):
            (self.folder / folder).mkdir(parents=True)
        (self.app / "current").symlink_to("releases/r1")
        self.static = self.app / "current/.release/static"
        self.http, self.https = free_port(), free_port()
        self.text = configuration(
            **{"app_root": str(self.app), "app_web_socket": str(self.socket)}
            | {"nginx_tls_certificate": str(certificate[0]), "nginx_tls_key": str(certificate[1])}
            | variables
        )
        self.log, self.access = self.folder / "log", self.folder / "access"
        self.process = None

    def command(self, *more):
        """Return nginx's command line, with the configuration where only files and ports are others."""
        root = nginx()
        own = self.text.replace("user www-data;", "user root;" if os.geteuid() == 0 else "")
        own = own.replace("worker_processes auto;", "worker_processes 1;")
        own = re.sub(r"error_log [^;]+;", "", own)
        own = own.replace("/etc/nginx/mime.types", str(root / "etc/nginx/mime.types"))
        own = own.replace("/etc/nginx/error_pages", str(self.folder / "error_pages"))
        own = own.replace("/usr/lib/nginx/modules", str(root / "usr/lib/nginx/modules"))
        own = re.sub(r"listen 80\b", f"listen {self.http}", re.sub(r"listen 443\b", f"listen {self.https}", own))
        own = re.sub(r"access_log \S+ (\w+);", rf"access_log {self.folder}/access \1;", own)
        (self.folder / "nginx.conf").write_text(keep_files_in(self.folder, own))
        general = f"daemon off; pid {self.folder}/pid; error_log {self.log};"
        where = ["-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-e", str(self.log), "-g", general]
        return [str(root / "usr/sbin/nginx"), *where, *more]

    def test(self):
        """Return what `nginx -t` says, nothing if all is well."""
        done = subprocess.run(self.command("-t", "-q"), capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (done.stderr == ""), done.stderr
        return done.stderr.strip()

    def __enter__(self):
        """Start nginx."""
        self.process = subprocess.Popen(self.command())
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.https), timeout=1).close()
                return self
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def __exit__(self, *_):
        """Stop nginx."""
        self.process.terminate()
        self.process.wait(timeout=10)

    def connect(self, tls=True, name=NAME, source="127.0.0.1", first=b"", timeout=10.0):
        """Open a connection; `name` is said in TLS, and `first` is sent before that."""
        port = self.https if tls else self.http
        raw = socket.create_connection(("127.0.0.1", port), timeout=timeout, source_address=(source, 0))
        raw.sendall(first)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(raw, server_hostname=name or None) if tls else raw

    def request(self, path="/", host=NAME, method="GET", body=None, headers=None, **connection):
        """Send a request; redirects are not followed. `host` is the Host header, and the name in TLS if none is given."""
        client = http.client.HTTPConnection(host or NAME)
        client.sock = self.connect(**{"name": host} | connection)
        try:
            client.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            sent = {"Host": host} if host else {}
            sent |= {"Content-Length": str(len(body))} if body is not None else {}
            for name, value in (sent | (headers or {})).items():
                client.putheader(name, value)
            client.endheaders(body.encode() if body else None)
            answer = client.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read().decode(errors="replace"))
        finally:
            client.close()


class Application(BaseHTTPRequestHandler):
    """Answers what it was asked, and sends whatever headers and status the query names."""

    protocol_version = "HTTP/1.1"
    server_version = "test"
    timeout = 20

    def setup(self):
        """Read from a Unix socket, which has no address."""
        self.client_address = ("", 0)
        super().setup()

    def log_message(self, *_):
        """Say nothing."""

    def answer(self):
        """Answer the request."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode(errors="replace")
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.server.seen.append(f"{self.command} {self.path}")
        if self.headers.get("Upgrade") == "websocket":
            return self.switch()
        if url.path.startswith("/events"):
            return self.stream(query)
        time.sleep(float(query.pop("sleep", 0)))
        status = int(query.pop("status", 200))
        names = {name.lower(): value for name, value in self.headers.items()}
        content = json.dumps({"method": self.command, "path": self.path, "headers": names, "body": body}).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | query).items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.command != "HEAD" else b"")

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = answer

    def stream(self, query):
        """Send three events, a while apart, of which the last is awaited by nobody."""
        self.send_response(200)
        for name, value in ({"Content-Type": "text/event-stream"} | query).items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(3):
            self.wfile.write(f"data: {number}\n\n".encode())
            self.wfile.flush()
            self.server.stop.wait(1)
        self.close_connection = True

    def switch(self):
        """Speak another protocol: send back what comes."""
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.wfile.flush()
        while data := self.connection.recv(1024):
            self.connection.sendall(data.upper())
        self.close_connection = True


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves `Application` on a Unix socket while it is a context."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, path):
        """Listen."""
        super().__init__(str(path), Application)
        self.seen, self.stop = [], threading.Event()

    def __enter__(self):
        """Serve in a thread."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        """Stop, so that nobody answers any more."""
        self.stop.set()
        self.shutdown()
        self.server_close()
        Path(self.server_address).unlink(missing_ok=True)

    def handle_error(self, *_):
        """Leave out tracebacks of clients that went away."""
