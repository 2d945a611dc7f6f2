"""Signatures of releases, reports and lists of signers, made and checked by OpenSSH's ssh-keygen (SSHSIG)."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

# What a signature is for; one for another purpose does not count.
RELEASE, SIGNERS, REPORT = "coldframe-release", "coldframe-signers", "coldframe-report"
PRINCIPAL = "coldframe"  # as whom each of the keys signs
PUBLIC = re.compile(r"((?:ssh-|ecdsa-|sk-)[\w@.-]+ [A-Za-z0-9+/]+=*)( [ -~]*)?")
GOOD = re.compile(r"Good \"[^\"]*\" signature .*with \S+ key (SHA256:\S+)")


def _run(*arguments: str | Path, given: bytes | Path = b"") -> subprocess.CompletedProcess[bytes]:
    """Run ssh-keygen without a terminal, so that it never waits for a passphrase.

    :param given: its standard input, or the file that is.

    Raises ValueError when the program is not there.
    """
    command = ["ssh-keygen", *map(str, arguments)]
    try:
        if isinstance(given, Path):
            with given.open("rb") as file:
                return subprocess.run(command, stdin=file, capture_output=True, check=False, start_new_session=True)
        return subprocess.run(command, input=given, capture_output=True, check=False, start_new_session=True)
    except FileNotFoundError as error:
        raise ValueError("ssh-keygen is not here: install OpenSSH's client (Debian: openssh-client).") from error


def _private(folder: str, key: str) -> Path:
    """Write a private key where only this user can read it."""
    path = Path(folder, "key")
    path.touch(0o600)
    path.write_text(key.rstrip("\n") + "\n")
    return path


def public_key(key: str) -> str:
    """Return the public key of a private one.

    Raises ValueError when ssh-keygen cannot read it, also because it has a passphrase. Nothing of the key is in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = _run("-y", "-P", "", "-f", _private(folder, key))
    found = PUBLIC.fullmatch(done.stdout.decode(errors="replace").strip())
    if done.returncode or not found:
        cause = "it has a passphrase" if b"passphrase" in done.stderr else "it is no private key, or is cut off"
        raise ValueError(f"ssh-keygen cannot read it: {cause}")
    return found[1]


def checked_public(text: str) -> str:
    """Return a public key as it is written in a file of signers, with its comment.

    Raises ValueError when it is none.
    """
    line = text.strip()
    if not PUBLIC.fullmatch(line) or _run("-l", "-f", "-", given=line.encode() + b"\n").returncode:
        raise ValueError("it is no public key of OpenSSH, one line such as 'ssh-ed25519 AAAA... ben@desk'")
    return line


def fingerprint(public: str) -> str:
    """Return the fingerprint of a public key, such as SHA256:L+HE9..."""
    return _run("-l", "-f", "-", given=public.encode() + b"\n").stdout.decode(errors="replace").split(" ")[1]


def allowed_signers(keys: list[str]) -> str:
    """Write the file of signers (ssh-keygen(1), ALLOWED SIGNERS) for public keys, in a fixed order."""
    names = ",".join((RELEASE, SIGNERS, REPORT))
    return "".join(f'{PRINCIPAL} namespaces="{names}" {key}\n' for key in sorted(set(keys)))


def keys_of(signers: str) -> list[str]:
    """Return the public keys of a file of signers."""
    return [found[0] for line in signers.splitlines() if (found := PUBLIC.search(line))]


def sign(message: bytes | Path, key: str, purpose: str) -> str:
    """Sign a text or a file, and return the signature.

    Raises ValueError when the key cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = _run("-Y", "sign", "-f", _private(folder, key), "-n", purpose, given=message)
    if done.returncode:
        public_key(key)  # which says why
        raise ValueError(f"ssh-keygen does not sign with it: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()


def signer(message: bytes | Path, signature: str, purpose: str) -> str:
    """Return the fingerprint of the key that signed a text or a file, whoever's it is.

    Raises ValueError when there is no signature or it is not one of this text.
    """
    if not signature.strip():
        raise ValueError("has no signature")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "signature")
        file.write_text(signature)
        done = _run("-Y", "check-novalidate", "-n", purpose, "-s", file, given=message)
    good = GOOD.search(done.stdout.decode(errors="replace"))
    if done.returncode or not good:
        raise ValueError("or its signature was changed after it was signed")
    return good[1]


def verify(message: bytes | Path, signature: str, signers: str, purpose: str) -> str:
    """Check that one of the signers signed a text or a file, and return the fingerprint of that key.

    :param signers: as `allowed_signers` writes them.

    Raises ValueError, with what follows the name of the text in a sentence.
    """
    by = signer(message, signature, purpose)
    with tempfile.TemporaryDirectory() as folder:
        file, known = Path(folder, "signature"), Path(folder, "signers")
        file.write_text(signature)
        known.write_text(signers)
        done = _run("-Y", "verify", "-f", known, "-I", PRINCIPAL, "-n", purpose, "-s", file, given=message)
    if done.returncode:
        names = ", ".join(map(fingerprint, keys_of(signers))) or "none"
        raise ValueError(f"is signed by the key {by}, which is none of those that are known ({names})")
    return by


def check_signers(known: str, wanted: str, signatures: list[str]) -> None:
    """Check that a host may take other signers: its first ones, or those that one of the known ones has signed.

    :param known: those that the host has.

    Raises ValueError when it may not.
    """
    if not known or wanted == known:
        return
    if not wanted:
        raise ValueError("is not signed, for release_signing_key is not set")
    error = ValueError("has no signature")
    for signature in signatures:
        try:
            verify(wanted.encode(), signature, known, SIGNERS)
        except ValueError as own:
            error = own
        else:
            return
    raise error
