"""Which backends of ours can be measured here."""

from forecasting.bench.processes import PeerError
from models.mamba2.kernels.registry import explain


def usable_backends() -> set[str]:
    """Return the names of the backends that can run.

    Raises:
        PeerError: a variable is set to what a backend cannot use: another one in its place would be a figure of
            something that nobody asked for. GRAPHTIDE_BACKEND has no part in what is measured.
    """
    lines = explain()
    for line in lines:
        if line.is_set_wrongly:
            raise PeerError(f"the backend {line.name} cannot be measured: {line.reason.removeprefix('unavailable: ')}")
    return {line.name for line in lines if not line.reason.startswith("unavailable")}
