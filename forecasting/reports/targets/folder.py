"""Delivery to a folder: each file written whole. Sent again, a file replaces itself."""

from forecasting.reports.deliveries import DeliveryError
from forecasting.reports.targets.parcel import Parcel
from infra.errors import GraphtideError
from infra.settings import TargetSettings
from infra.whole_file import whole_file


def send(parcel: Parcel, target: TargetSettings, _timeout_s: float) -> None:
    """Write the files.

    Raises:
        DeliveryError: the folder cannot be written.
    """
    assert target.path is not None
    try:
        for one in parcel.files:
            with whole_file(target.path / f"{parcel.stem}{one.suffix}") as temporary:
                temporary.write_bytes(one.body)
    except GraphtideError as error:
        raise DeliveryError(error.message) from error
