"""The kinds of targets: what each needs, and what sends to it."""

from collections.abc import Callable, Mapping

from forecasting.reports.deliveries import DeliveryError
from forecasting.reports.targets import folder, guard, mail, s3, webhook
from forecasting.reports.targets.parcel import Parcel
from infra.errors import UsageError
from infra.settings import TargetSettings

_SEND: Mapping[str, Callable[[Parcel, TargetSettings, float], None]] = {
    "folder": folder.send,
    "s3": s3.send,
    "webhook": webhook.send,
    "email": mail.send,
}
_NEEDED = {
    "folder": ("path",),
    "s3": ("url", "bucket", "access_key", "secret_file"),
    "webhook": ("url", "secret_file"),
    "email": ("smtp_host", "sender", "to"),
}


def check_targets(targets: Mapping[str, TargetSettings]) -> None:
    """Refuse targets that lack what their kind needs, or whose address no request can be sent to.

    Raises:
        UsageError: naming the target and the key.
    """
    for name, target in targets.items():
        needed = (*_NEEDED[target.kind], *(("secret_file",) if target.kind == "email" and target.smtp_user else ()))
        for key in needed:
            if not getattr(target, key):
                raise UsageError(
                    f"the target {name!r} of kind {target.kind} has no {key}",
                    place=f"[reports.targets.{name}]",
                    fix=f"give {', '.join(needed)}; docs/reports.md has an example of each kind",
                )
        if "url" in needed:
            try:
                guard.check_address(target.url, allow_private=target.allow_private)
            except DeliveryError as error:
                raise UsageError(
                    f"the url of the target {name!r}: {error}",
                    place=f"[reports.targets.{name}]",
                    fix="give https://HOST/…, or http://… with allow_private = true for a host of your own",
                ) from None


def send(parcel: Parcel, targets: Mapping[str, TargetSettings], name: str, timeout_s: float) -> None:
    """Deliver a report or an alert to a target.

    Raises:
        DeliveryError: it was not taken, or there is no such target any more.
    """
    target = targets.get(name)
    if target is None:
        raise DeliveryError(f"the settings have no target {name!r} any more", is_final=True)
    _SEND[target.kind](parcel, target, timeout_s)
