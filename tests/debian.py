"""Programs of Debian's packages, for tests that run them without installing anything."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def unpacked(*packages: str) -> Path:
    """Return a folder in which packages are unpacked, so that no service starts. Without apt-get the test is skipped.

    :param packages: names of packages; the folder has the first one's.
    """
    folder = ROOT / ".cache" / packages[0]
    if not (folder / "usr").exists():
        if not shutil.which("apt-get"):
            pytest.skip(f"this machine has neither {packages[0]} nor apt-get, which downloads it")
        folder.mkdir(parents=True, exist_ok=True)
        download = ["apt-get", "download", "-qq", *packages]
        if subprocess.run(download, cwd=folder, check=False).returncode:
            subprocess.run(["apt-get", "update", "-qq"], check=True)  # the lists of packages are missing or old
            subprocess.run(download, cwd=folder, check=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    return folder


def program(name: str, package: str) -> str:
    """Return the path of a program: the installed one, else that of the unpacked package."""
    return shutil.which(name) or str(unpacked(package) / "usr/bin" / name)
