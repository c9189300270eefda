"""Delivery by e-mail: the message as text, files attached. The message's id holds the idempotency key."""

import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import formatdate

from forecasting.reports.deliveries import DeliveryError
from forecasting.reports.targets.parcel import Parcel
from forecasting.reports.targets.secret import read_secret
from infra.settings import TargetSettings


def message(parcel: Parcel, target: TargetSettings) -> EmailMessage:
    """Return the message: two tries of one delivery have the same id, by which a mail server can drop the second."""
    found = EmailMessage()
    found["Subject"] = parcel.subject
    found["From"] = target.sender
    found["To"] = ", ".join(target.to)
    found["Date"] = formatdate()
    found["Message-ID"] = f"<{parcel.key}@{target.sender.rpartition('@')[2]}>"
    found["X-Idempotency-Key"] = parcel.key
    found.set_content(f"{parcel.text}\n")
    for one in parcel.files:
        if one.is_attached:
            kind, _, below = one.media_type.partition(";")[0].partition("/")
            found.add_attachment(one.body, maintype=kind, subtype=below, filename=f"{parcel.stem}{one.suffix}")
    return found


def send(parcel: Parcel, target: TargetSettings, timeout_s: float) -> None:
    """Hand the message to the mail server.

    Raises:
        DeliveryError: it was not taken, or not for every recipient. Those who have it get it again with the next try,
            under the same id.
    """
    context = ssl.create_default_context()
    try:
        client: smtplib.SMTP
        if target.smtp_tls == "tls":
            client = smtplib.SMTP_SSL(target.smtp_host, target.smtp_port, timeout=timeout_s, context=context)
        else:
            client = smtplib.SMTP(target.smtp_host, target.smtp_port, timeout=timeout_s)
        with client:
            if target.smtp_tls == "starttls":
                client.starttls(context=context)
            if target.smtp_user:
                client.login(target.smtp_user, read_secret(target.secret_file))
            try:
                refused: Mapping[str, tuple[int, bytes]] = client.send_message(message(parcel, target))
            except smtplib.SMTPRecipientsRefused as error:
                refused = error.recipients
    except (smtplib.SMTPException, OSError) as error:
        # The text of an answer may repeat what was sent, the password included.
        raise DeliveryError(f"{target.smtp_host} did not take the message: {type(error).__name__}") from error
    if refused:
        # 4xx is a refusal for now: a full mailbox, or a server that wants to see a second try (greylisting).
        is_final = all(code >= 500 for code, _ in refused.values())
        told = f"the mail server refused {len(refused)} of {len(target.to)} recipients: {', '.join(sorted(refused))}"
        raise DeliveryError(told, is_final=is_final)
