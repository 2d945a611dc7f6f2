"""The mail that confirms an order, by SMTP (EMAIL_HOST; without one nothing is mailed).

SMTP cannot be asked whether it has a mail already. So the task that sends it holds the order's
row until the mark is stored: a second delivery waits, and finds it. A second mail comes only where
the server has taken the first one and the mark was not stored: its answer came after EMAIL_TIMEOUT
or never, or the process or the commit failed. It has the same Message-ID, by which a mailbox may
know it.
"""

from smtplib import SMTPAuthenticationError, SMTPRecipientsRefused, SMTPResponseException

from django.conf import settings
from django.core.mail import EmailMessage

from orders.models import Order


class NotSent(Exception):
    """The server is not reached, or cannot take it now: it is tried again."""


class NotAccepted(Exception):
    """The server takes no such mail, however often it is asked: a dead letter at once."""


def confirm(order: Order) -> None:
    """Send the mail once. Its address is not in an error: those are kept, and logged.

    :raises NotSent: also for a login that fails, which the operator can mend.
    :raises NotAccepted: for an answer of 5xx.
    """
    domain = settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].rstrip(">")
    mail = EmailMessage(
        subject="Your order",
        body=f"We have received your order: {order}.\n",
        to=[order.email],
        headers={"Message-ID": f"<order-{order.pk}@{domain}>"},
    )
    try:
        mail.send()
    except SMTPRecipientsRefused as error:
        code = max(code for code, _ in error.recipients.values())
    except SMTPResponseException as error:
        code = 0 if isinstance(error, SMTPAuthenticationError) else error.smtp_code
    except OSError as error:  # no connection, none any more, or no answer in time
        raise NotSent(f"the mail server is not reached: {type(error).__name__}") from None
    else:
        return
    if 500 <= code < 600:
        raise NotAccepted(f"the mail server answered {code}")
    raise NotSent(f"the mail server answered {code}" if code else "the login failed")
