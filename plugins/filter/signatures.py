"""Checks of the keys that sign releases, before a host is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

# Ansible brings module_utils to the hosts, and not to its own plugins.
ansible.module_utils.__path__.append(str(Path(__file__).parents[1] / "module_utils"))
from ansible.module_utils import coldframe_signatures as signatures  # noqa: E402


def signing_problems(key: str, before: str, signers: list[str], known: list[str], first: bool = True) -> list[str]:
    """Say which keys cannot be used, and whether a host would refuse a release that the key signs.

    :param key: release_signing_key; empty if nothing is signed.
    :param before: release_signing_key_before.
    :param signers: release_signers.
    :param known: public keys that the host takes releases from; empty before the first.
    :param first: whether to say what is wrong with the keys themselves, which one host does for all.
    """
    problems, own = [], []
    for name, each in (("release_signing_key", key), ("release_signing_key_before", before)):
        try:
            own += [signatures.public_key(each)] if each else []
        except ValueError as error:
            problems.append(f"{name} cannot be used: {error}.")
    for each in signers:
        try:
            signatures.checked_public(each)
        except ValueError as error:
            problems.append(f"release_signers has {each[:80]!r}, which cannot be used: {error}.")
    if signers and not key:
        problems.append(
            "release_signers is set, and release_signing_key is not: run 'make secrets', which creates it, or remove the former."
        )
    if problems:
        return problems if first else []
    if known and not key:
        return [
            f"release_signing_key is not set, and this host takes only releases that are signed by {_names(known)}. Use the vault that has it."
        ]
    if known and not set(own) & {" ".join(each.split()[:2]) for each in known}:
        return [
            f"release_signing_key is the key {signatures.fingerprint(own[0])}, and this host takes only releases that are signed by "
            f"{_names(known)}. Use the vault that has it, or have its owner name your public key in release_signers and deploy "
            "(docs/security.md, Signatures)."
        ]
    return []


def _names(keys: list[str]) -> str:
    """Name keys as people compare them."""
    return ", ".join(" ".join([signatures.fingerprint(key), *key.split()[2:]]) for key in keys)


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"signing_problems": signing_problems}
