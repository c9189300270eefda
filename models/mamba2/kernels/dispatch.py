"""The one contract of all backends of the selective scan, and the choice between them."""

from typing import Protocol

from torch import Tensor

from models.mamba2.kernels import reference


class SelectiveScan(Protocol):
    """A backend; shapes, formulas and results are those of `models.mamba2.kernels.reference`."""

    @property
    def name(self) -> str:
        """The backend's name, as `graphtide doctor` prints it."""
        ...

    def prefill(
        self,
        x_BLHP: Tensor,
        dt_BLH: Tensor,
        A_H: Tensor,
        B_BLGN: Tensor,
        C_BLGN: Tensor,
        state_BHPN: Tensor,
        *,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor]:
        """Return y_BLHP and the final state of a sequence of any length, from the given state."""
        ...

    def step(
        self, x_BHP: Tensor, dt_BH: Tensor, A_H: Tensor, B_BGN: Tensor, C_BGN: Tensor, state_BHPN: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return y_BHP and the new state after one step."""
        ...


class ReferenceScan:
    """Plain torch on any device."""

    name = "reference"

    def prefill(
        self,
        x_BLHP: Tensor,
        dt_BLH: Tensor,
        A_H: Tensor,
        B_BLGN: Tensor,
        C_BLGN: Tensor,
        state_BHPN: Tensor,
        *,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor]:
        """See `reference.selective_scan`."""
        return reference.selective_scan(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, state_BHPN, chunk_size=chunk_size)

    def step(
        self, x_BHP: Tensor, dt_BH: Tensor, A_H: Tensor, B_BGN: Tensor, C_BGN: Tensor, state_BHPN: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `reference.selective_state_step`."""
        return reference.selective_state_step(x_BHP, dt_BH, A_H, B_BGN, C_BGN, state_BHPN)
