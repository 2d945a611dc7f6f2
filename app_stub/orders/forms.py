"""What an order must look like when it arrives as JSON."""

from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator, validate_email

from shop import outgoing


class TextField(forms.CharField):
    """A JSON string as it stands: 7 is not "7", and no blank is trimmed away."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strip=False, **kwargs)

    def to_python(self, value: Any) -> str:
        if value is not None and not isinstance(value, str):
            raise ValidationError("Enter a string.", code="invalid")
        try:
            (value or "").encode()
        except UnicodeEncodeError:  # half a character, which JSON can write but no database store
            raise ValidationError("Enter valid Unicode.", code="invalid") from None
        return super().to_python(value)


class WholeNumberField(forms.IntegerField):
    """A JSON integer, which 7.0 is too: neither "7" nor true, which Python counts as 1."""

    def to_python(self, value: Any) -> int | None:
        if type(value) is float and value.is_integer():
            value = int(value)
        if value is not None and type(value) is not int:
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return value


class IdField(forms.UUIDField):
    """A UUID as JSON has it: a string."""

    def to_python(self, value: Any) -> UUID | None:
        if value is not None and not isinstance(value, str):
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return super().to_python(value)


class OrderForm(forms.Form):
    sku = TextField(
        validators=[
            RegexValidator(
                r"\A[A-Za-z0-9._-]{1,64}\Z",
                "Enter 1 to 64 letters, digits, dots, dashes or underscores.",
            )
        ]
    )
    quantity = WholeNumberField(min_value=1, max_value=1000)
    email = TextField(max_length=254, validators=[validate_email])
    idempotency_key = TextField(
        validators=[
            RegexValidator(
                r"\A[!-~]{8,64}\Z", "Enter 8 to 64 printable ASCII characters without spaces."
            )
        ]
    )

    callback_url = TextField(required=False)

    def clean_callback_url(self) -> str:
        """Refuse what could never be called. Where its name leads to is checked at each call."""
        url = self.cleaned_data["callback_url"]
        if url and not settings.CALLBACK_PORTS:
            raise ValidationError("No results are sent from here.", code="invalid")
        try:
            if url:
                outgoing.read(url)
        except outgoing.Refused as error:
            raise ValidationError(f"Enter another address: {error}.", code="invalid") from None
        return url


class PaymentEventForm(forms.Form):
    id = TextField(
        validators=[RegexValidator(r"\A[!-~]{1,64}\Z", "Enter 1 to 64 printable ASCII characters.")]
    )
    order_id = IdField()
