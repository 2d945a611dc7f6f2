"""What is refused of the certificates of Redis and PostgreSQL."""

import inspect
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from certificates import tls_problems
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

ADDRESS = "10.0.0.1"
USAGE = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False)


def name(text):
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


def signed(of, by=None, days=30, ca=False, addresses=(ADDRESS,)):
    """A certificate and its key, signed by another such pair, or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate, signer = by or (None, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(certificate.subject if by else name(of), name(of), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.KeyUsage(**USAGE | {"key_cert_sign" if ca else "digital_signature": True}), critical=True)
    )
    if not ca:
        names = [x509.IPAddress(ip_address(address)) for address in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, SHA256()), key


def text(*certificates):
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


AUTHORITY, OTHER = signed("authority", ca=True), signed("other", ca=True)
HOST = signed("host", AUTHORITY)
OWN = {"certificate": text(AUTHORITY[0]), "key": pem(AUTHORITY[1])}
GIVEN = {"ca": text(AUTHORITY[0]), "certificate": text(HOST[0]), "key": pem(HOST[1])}


def own(**changes):
    return tls_problems("own", OWN | changes, {}, ADDRESS, serves=True)


def given(serves=True, address=ADDRESS, **changes):
    return tls_problems("given", {}, GIVEN | changes, address, serves=serves)


def test_what_fits_together_has_no_problem():
    assert own() == given() == []
    assert tls_problems("none", {}, {}, "", serves=True) == []
    between = signed("between", AUTHORITY, ca=True)
    host = signed("host", between, addresses=["fd00::1"])
    assert given(certificate=text(host[0], between[0]), key=pem(host[1]), address="fd00::1") == []
    assert given(ca=text(OTHER[0], AUTHORITY[0])) == []


def test_half_is_refused():
    assert tls_problems("own", {}, {}, ADDRESS, serves=False) == [
        f"app_tls_authority.{part} is missing: make secrets makes one, or choose another app_tls."
        for part in ("certificate", "key")
    ]
    assert tls_problems("given", {}, {}, ADDRESS, serves=True) == [
        f"app_tls_given.{part} is missing: set it to {kind} in PEM, or choose another app_tls."
        for part, kind in [
            ("ca", "a certificate"),
            ("certificate", "a certificate"),
            ("key", "a key without a passphrase"),
        ]
    ]
    assert [problem[:28] for problem in given(key="")] == ["app_tls_given.key is missing"]


def test_host_that_serves_nothing_needs_the_authority_alone():
    assert given(serves=False, certificate="", key="") == []
    assert "app_tls_given.ca is missing" in given(serves=False, ca="")[0]


def test_what_cannot_be_read_is_refused_and_not_shown():
    locked = pem(HOST[1], BestAvailableEncryption(b"secret"))
    for key in ("no key, but secret", locked, text(HOST[0])):
        (problem,) = given(key=key)
        assert problem.startswith("app_tls_given.key is no key without a passphrase in PEM") and "secret" not in problem
    assert "app_tls_given.ca is no certificate in PEM" in given(ca="x")[0]


def test_key_of_another_certificate_is_refused():
    assert "app_tls_authority.key is not the key of" in own(key=pem(OTHER[1]))[0]
    assert "app_tls_given.key is not the key of" in given(key=pem(OTHER[1]))[0]


def test_authority_that_may_not_sign_or_is_over_is_refused():
    assert "is not a CA certificate" in own(certificate=text(HOST[0]), key=pem(HOST[1]))[0]
    over = signed("over", days=-1, ca=True)
    assert "not now: make a new one" in own(certificate=text(over[0]), key=pem(over[1]))[0]


@pytest.mark.parametrize(
    "certificate, key",
    [
        signed("of another authority", OTHER),
        signed("expired", AUTHORITY, days=-1),
        signed("of another host", AUTHORITY, addresses=["10.0.0.2"]),
        signed("of itself"),
    ],
    ids=lambda part: part.subject.rfc4514_string() if isinstance(part, x509.Certificate) else "",
)
def test_certificate_that_clients_would_refuse_is_refused(certificate, key):
    (problem,) = given(certificate=text(certificate), key=pem(key))
    assert problem.startswith(
        "app_tls_given.certificate will not do for clients that trust app_tls_given.ca and connect"
    )
