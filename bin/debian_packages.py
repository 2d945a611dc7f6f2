"""Which packages of Debian 12 and 13 Python packages need to run, and to be built."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

PYTHON = {"12": "3.11.2", "13": "3.13.5"}  # Debian release to the version of its Python
GLIBC = {
    "12": "2_36",
    "13": "2_40",
}  # and of its C library; uv knows none newer than 2.40, and wheels for that run on 13
SUITE = {"12": "bookworm", "13": "trixie"}


class Needs(NamedTuple):
    """What a Python package needs of Debian; a name with a / is the one of Debian 12 and the one of Debian 13."""

    run: str = ""
    build: str = ""


# What wheels do not bring themselves.
PACKAGES = {
    "borgbackup": Needs("libacl1 libxxhash0", "libacl1-dev libxxhash-dev liblz4-dev libzstd-dev libssl-dev"),
    "cairocffi": Needs("libcairo2"),
    "dlib": Needs(build="cmake"),
    "ffmpeg-python": Needs("ffmpeg"),
    "gdal": Needs("gdal-bin", "libgdal-dev"),
    "ghostscript": Needs("ghostscript"),
    "gitpython": Needs("git"),
    "graphviz": Needs("graphviz"),
    "mysqlclient": Needs("libmariadb3", "default-libmysqlclient-dev"),
    "ocrmypdf": Needs("tesseract-ocr ghostscript"),
    "opencv-python": Needs("libgl1 libglib2.0-0/libglib2.0-0t64"),
    "pdf2image": Needs("poppler-utils"),
    "psycopg2": Needs("libpq5", "libpq-dev"),
    "psycopg-c": Needs("libpq5", "libpq-dev"),
    "pycairo": Needs("libcairo2", "libcairo2-dev"),
    "pydub": Needs("ffmpeg"),
    "pyenchant": Needs("libenchant-2-2"),
    "pygraphviz": Needs("graphviz", "libgraphviz-dev"),
    "pyodbc": Needs("unixodbc", "unixodbc-dev"),
    "pypandoc": Needs("pandoc"),
    "pytesseract": Needs("tesseract-ocr"),
    "python-gnupg": Needs("gnupg"),
    "python-ldap": Needs("libldap-2.5-0/libldap2 libsasl2-2", "libldap-dev libsasl2-dev"),
    "python-magic": Needs("libmagic1/libmagic1t64"),
    "pyvips": Needs("libvips42/libvips42t64"),
    "pyzbar": Needs("libzbar0/libzbar0t64"),
    "uwsgi": Needs(build="libpcre2-dev"),
    "wand": Needs("libmagickwand-6.q16-6/libmagickwand-7.q16-10"),
    "weasyprint": Needs("libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0"),
    "weblate": Needs("gettext git gnupg openssh-client"),
    "xmlsec": Needs("libxmlsec1-openssl/libxmlsec1t64-openssl", "libxmlsec1-dev"),
}
# Their wheels bring the libraries; what is built on a machine needs Debian's.
BUILT = {
    "pillow": Needs(
        "libjpeg62-turbo libopenjp2-7 libtiff6 libwebp7 libfreetype6", "libjpeg-dev zlib1g-dev libfreetype-dev"
    ),
    "lxml": Needs("libxml2 libxslt1.1", "libxml2-dev libxslt1-dev"),
    "cffi": Needs(build="libffi-dev"),
    "cryptography": Needs(build="libssl-dev cargo"),
}
GEODJANGO = "gdal-bin"  # for django.contrib.gis


def _words(names: str, debian: str) -> list[str]:
    return [name.split("/")[-1 if debian == "13" else 0] for name in names.split()]


def to_run(packages: Iterable[str], debian: str, built: Iterable[str] = ()) -> dict[str, list[str]]:
    """Map the Python packages that need something of Debian to what they need.

    :param packages: normalized names.
    :param debian: the release, `12` or `13`.
    :param built: those of the packages that were built from source.
    """
    table = PACKAGES | {name: needs for name, needs in BUILT.items() if name in set(built)}
    found = {name: _words(table[name].run, debian) for name in sorted(set(packages)) if name in table}
    return {name: needs for name, needs in found.items() if needs}


def to_build(packages: Iterable[str], debian: str) -> list[str]:
    """List the Debian packages with which these Python packages are built, beside a compiler."""
    table = PACKAGES | BUILT
    return sorted({word for name in packages if name in table for word in _words(table[name].build, debian)})
