"""Runs in a unit's sandbox, in place of its program, and tries what an attacker could do through a bug in that program.

Prints a JSON object: each attempt, and the error that stopped it, or "done" if nothing did.
"""

import contextlib
import ctypes
import errno
import json
import mmap
import os
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, PTRACE_SEIZE, CLOCK_REALTIME = 0x10000000, 0x4206, 0
ROUTER = sys.argv[1]
DOMAIN = Path("/proc/sys/kernel/domainname")


def call(function: Callable[..., int], *arguments: object) -> None:
    """Call a function of the C library. Raises OSError when it fails."""
    if function(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "")


def connect() -> None:
    """Open a connection to the host's router; that it is refused there is an answer too."""
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection((ROUTER, 22), timeout=2).close()


def write(path: Path) -> None:
    """Write a file."""
    path.write_text("")
    path.unlink()


def mount() -> None:
    """Mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        call(libc.mount, b"none", folder.encode(), b"tmpfs", 0, None)
        call(libc.umount, folder.encode())


def make_device() -> None:
    """Make a device of one's own: /dev/mem by another name."""
    with tempfile.TemporaryDirectory() as folder:
        os.mknod(Path(folder, "memory"), stat.S_IFCHR | 0o600, os.makedev(1, 1))


def make_namespace() -> None:
    """Become root in a user namespace, in a process of its own: the other attempts do not run in it."""
    child = os.fork()
    if not child:
        os._exit(0 if libc.unshare(CLONE_NEWUSER) == 0 else ctypes.get_errno())
    if error := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(error, "")


def set_user_bit() -> None:
    """Make a program that runs as its owner."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).chmod(stat.S_ISUID | 0o700)


def read_credentials() -> None:
    """Read a secret that this unit was not given. Raises OSError when none can be read."""
    own = os.environ.get("CREDENTIALS_DIRECTORY", "")
    reasons: list[OSError] = [FileNotFoundError(errno.ENOENT, "")]
    folders = [folder for folder in Path("/run/credentials").glob("*") if str(folder) != own]
    for path in [*folders, Path("/etc/credstore"), Path("/etc/shadow")]:
        try:
            for file in [path] if path.is_file() else path.rglob("*"):
                if file.is_file():
                    file.read_bytes()
                    return
        except OSError as error:
            reasons.append(error)
    raise reasons[-1]


def be_root() -> None:
    """Become root, and do what only root may."""
    os.setuid(0)
    os.stat("/root/.ssh")


def make_control_group() -> None:
    """Make a control group, and remove it."""
    group = Path("/sys/fs/cgroup/taken")
    group.mkdir()
    group.rmdir()


# Each leaves the host as it was if it succeeds.
ATTEMPTS: dict[str, Callable[[], object]] = {
    "connect out": connect,
    "raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "namespace": make_namespace,
    "mount": mount,
    "device": make_device,
    "memory of the machine": lambda: Path("/dev/mem").open("rb").close(),
    "kernel settings": lambda: DOMAIN.write_text(DOMAIN.read_text()),
    "what the machine is": lambda: Path("/proc/cpuinfo").read_text(),
    "kernel log": lambda: call(libc.klogctl, 3, ctypes.create_string_buffer(64), 64),
    "control groups": make_control_group,
    "clock": lambda: time.clock_settime(CLOCK_REALTIME, time.time()),
    "host name": lambda: socket.sethostname(socket.gethostname()),
    "trace a process": lambda: call(libc.ptrace, PTRACE_SEIZE, 1, None, None),
    "set-user-id program": set_user_bit,
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0)),
    "real-time priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "root": be_root,
    "processes of others": lambda: os.stat("/proc/1"),
    "secrets of others": read_credentials,
    "write settings": lambda: write(Path("/etc/taken")),
    "write programs": lambda: write(Path("/usr/local/bin/taken")),
    "write homes": lambda: write(Path("/root/taken")),
    "write units": lambda: write(Path("/run/systemd/system/taken.service")),
}

results = {}
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
        results[name] = "done"
    except OSError as error:
        results[name] = errno.errorcode.get(error.errno or 0, type(error).__name__)
print(json.dumps(results))
