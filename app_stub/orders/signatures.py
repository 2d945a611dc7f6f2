"""Keys to sign what goes to or comes from another server, and the signatures."""

import hmac

from django.conf import settings
from django.utils.crypto import salted_hmac


def derive_key(use: str, partner: str, secret: str = "") -> str:
    """A key for one use with one partner: derived, so that no further secret is to be kept.

    It changes with SECRET_KEY. Until the old one is removed from SECRET_KEY_FALLBACKS, both count.
    """
    secret = secret or settings.SECRET_KEY
    return salted_hmac(use, partner, secret, algorithm="sha256").hexdigest()


def sign(body: bytes, key: str) -> str:
    return hmac.new(key.encode(), body, "sha256").hexdigest()
