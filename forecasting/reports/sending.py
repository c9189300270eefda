"""Sending what is due: one try of one delivery, and what is noted of it."""

import logging
from collections.abc import Callable
from traceback import format_tb

from forecasting.reports.deliveries import Deliveries, Delivery, DeliveryError
from forecasting.reports.targets import kinds
from forecasting.reports.targets.parcel import Parcel
from infra.errors import StoreError
from infra.settings import ReportSettings

# A delivery is left to another process after so many of its timeouts: several requests fit into that.
LEASE_TIMEOUTS = 10
_log = logging.getLogger(__name__)


def lease_s(settings: ReportSettings, least_s: float) -> float:
    """Return the seconds after which a delivery is left to another process, at least `least_s`."""
    return max(least_s, LEASE_TIMEOUTS * settings.timeout_s)


def send_next(deliveries: Deliveries, parcel_of: Callable[[Delivery], Parcel], settings: ReportSettings) -> bool:
    """Try the next delivery that is due, once; False where there is none.

    Args:
        deliveries: which.
        parcel_of: returns what is delivered; raises DeliveryError where it is there no more.
        settings: targets and timeouts.

    Raises:
        StoreError: the service's file cannot be used.
    """
    delivery = deliveries.claim()
    if delivery is None:
        return False
    try:
        kinds.send(parcel_of(delivery), settings.targets, delivery.target, settings.timeout_s)
    except DeliveryError as error:
        _log.warning("%s to %s: %s", delivery.subject, delivery.target, error.message)
        deliveries.failed(delivery, error)
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - one delivery must not hold up the others
        # Without what it says itself: that may be an address with a secret in it.
        where = "".join(format_tb(error.__traceback__))
        _log.error("%s to %s: %s at\n%s", delivery.subject, delivery.target, type(error).__name__, where)
        deliveries.failed(delivery, DeliveryError("something went wrong that should not; the log has it"))
    else:
        deliveries.done(delivery)
    return True
