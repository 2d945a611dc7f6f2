"""Makes plugins/module_utils importable as Ansible's modules import it; pyproject.toml does so for the rest.

Fixtures of several files are here too.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import ansible.module_utils
import package_index
import pytest

ROOT = Path(__file__).parents[1]
ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))
# A shell that starts the tests in the background has them ignore Ctrl-C, and so would each program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# `make check` gives its own options to each make that a test starts: that one would take them for its own, or warn.
for variable in ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL"):
    os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def package_configuration(tmp_path_factory):
    """Return uv's configuration with an index of packages that a test made."""
    return package_index.write(tmp_path_factory.mktemp("index"))


@pytest.fixture
def own_packages(package_configuration, monkeypatch):
    """Have uv know no other packages than those of the index."""
    monkeypatch.setenv("UV_CONFIG_FILE", str(package_configuration))


@pytest.fixture
def certificate(tmp_path):
    """Make a certificate for these names."""

    def make(*names):
        files = tmp_path / "crt", tmp_path / "key"
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={names[0]}"]
        more = ["-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)]
        command = ["openssl", "req", "-x509", *kind, *more, "-out", files[0], "-keyout", files[1]]
        subprocess.run(command, check=True, capture_output=True)
        return files

    return make


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory):
    """Start a Redis of this machine, without an access list; return the path of its socket."""
    # In Debian's redis-tools the server has another name.
    program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if not program:
        pytest.skip("this machine has no Redis")
    folder = tmp_path_factory.mktemp("redis")
    options = ["--port", "0", "--unixsocket", str(folder / "socket"), "--dir", str(folder), "--save", ""]
    server = subprocess.Popen(["redis-server", *options], executable=program, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not (folder / "socket").exists():
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.02)
        yield str(folder / "socket")
    finally:
        server.terminate()
        server.wait()
