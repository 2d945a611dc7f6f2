"""Checks of the certificates of Redis and PostgreSQL before anything is touched, as in preflight.py."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError


def tls_problems(tls: str, authority: Any, given: Any, address: str, serves: bool) -> list[str]:
    """Refuse certificates and keys that are missing, unreadable or do not fit together. A key is never shown.

    :param tls: `app_tls`; none where no host is reached over TCP.
    :param authority: `app_tls_authority`, which signs what the hosts show when `tls` is own.
    :param given: `app_tls_given`, what the host shows, and who signed it, when `tls` is given.
    :param address: the host's private address.
    :param serves: whether the host has a service that other hosts reach with TLS.
    """
    if tls == "own":
        problems, parts = _load("app_tls_authority", authority, ("certificate", "key"))
        return problems or _authority_problems(*parts)
    if tls == "given" and serves:
        problems, parts = _load("app_tls_given", given, ("ca", "certificate", "key"))
        return problems or _given_problems(parts[0], parts[1], parts[2], address)
    return _load("app_tls_given", given, ("ca",))[0] if tls == "given" else []


def _load(variable: str, value: Any, names: tuple[str, ...]) -> tuple[list[str], list[Any]]:
    """Parse the parts of a variable: lists of certificates, and one key."""
    problems, parts = [], []
    for name in names:
        text = str((value if isinstance(value, dict) else {}).get(name) or "").encode()
        try:
            parts.append(load_pem_private_key(text, None) if name == "key" else x509.load_pem_x509_certificates(text))
        except (ValueError, TypeError, UnsupportedAlgorithm):
            kind = "key without a passphrase" if name == "key" else "certificate"
            remedy = "make secrets makes one" if variable == "app_tls_authority" else f"set it to a {kind} in PEM"
            wrong = f"no {kind} in PEM" if text else "missing"
            problems.append(f"{variable}.{name} is {wrong}: {remedy}, or choose another app_tls.")
    return problems, parts


def _authority_problems(certificates: list[x509.Certificate], key: Any) -> list[str]:
    authority = certificates[0]
    if authority.public_key() != key.public_key():
        return [
            "app_tls_authority.key is not the key of app_tls_authority.certificate: set the two that belong together."
        ]
    if not any(getattr(extension.value, "ca", False) for extension in authority.extensions):
        return ["app_tls_authority.certificate is not a CA certificate: set one that may sign others."]
    begin, end = authority.not_valid_before_utc, authority.not_valid_after_utc
    if not begin <= datetime.now(UTC) < end:
        return [
            f"app_tls_authority.certificate is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}, not now: make a new one."
        ]
    return []


def _given_problems(
    authorities: list[x509.Certificate], chain: list[x509.Certificate], key: Any, address: str
) -> list[str]:
    problems = []
    if chain[0].public_key() != key.public_key():
        problems.append(
            "app_tls_given.key is not the key of app_tls_given.certificate: set the two that belong together."
        )
    try:
        subject = x509.IPAddress(ip_address(address))
        PolicyBuilder().store(Store(authorities)).build_server_verifier(subject).verify(chain[0], chain[1:])
    except VerificationError as error:
        problems.append(
            f"app_tls_given.certificate will not do for clients that trust app_tls_given.ca and connect to {address} "
            f"({error}): set one that this CA signed, that is valid now, for this IP address."
        )
    except ValueError:
        pass  # of the address, and said elsewhere
    return problems


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Name the filter for Ansible."""
        return {"tls_problems": tls_problems}
