"""The `mamba_ssm` backend: the torch modules, with the scan run by the Triton kernels of the package `mamba_ssm`.

Used only where GRAPHTIDE_BACKEND names it: its matrix products run in TF32, so results agree with the reference to
1e-3. No GPU has run this file yet ("not measured"); how it calls the kernels is tested against stand-ins of the same
signatures.
"""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from models.mamba2.kernels.contract import BackendUnavailableError, StackWeights, check_precision
from models.mamba2.kernels.torch_backend import ReferenceStack

_INSTALL = "install it with `pip install mamba-ssm --no-build-isolation`, which needs nvcc"


class MambaSsmScan:
    """The selective scan by `mamba_ssm`; see `dispatch.SelectiveScan`.

    Args:
        chunk_scan: `mamba_ssm.ops.triton.ssd_combined.mamba_chunk_scan_combined`.
        state_update: `mamba_ssm.ops.triton.selective_state_update.selective_state_update`.
    """

    name = "mamba_ssm"

    def __init__(self, chunk_scan: Callable[..., tuple[Tensor, Tensor]], state_update: Callable[..., Tensor]) -> None:
        self._chunk_scan = chunk_scan
        self._state_update = state_update

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
        """See `reference.selective_scan`; the chunk is the next power of two, as the kernels need it."""
        y_BLHP, after_BHPN = self._chunk_scan(
            x_BLHP.contiguous(),
            dt_BLH.contiguous(),
            A_H,
            B_BLGN.contiguous(),
            C_BLGN.contiguous(),
            chunk_size=min(max(16, 1 << (chunk_size - 1).bit_length()), 256),
            initial_states=state_BHPN.contiguous(),
            return_final_states=True,
        )
        return y_BLHP, after_BHPN.to(state_BHPN.dtype)

    def step(
        self, x_BHP: Tensor, dt_BH: Tensor, A_H: Tensor, B_BGN: Tensor, C_BGN: Tensor, state_BHPN: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `reference.selective_state_step`."""
        width, size = state_BHPN.shape[2:]
        # The kernel updates the state in place; states are values here.
        after_BHPN = state_BHPN.clone()
        # One rate and one step size a head, spread by strides of zero: the kernel then takes its fast path.
        y_BHP = self._state_update(
            after_BHPN,
            x_BHP.contiguous(),
            dt_BH[..., None].expand(-1, -1, width),
            A_H[:, None, None].expand(-1, width, size),
            B_BGN.contiguous(),
            C_BGN.contiguous(),
        )
        return y_BHP, after_BHPN


class MambaSsmBackend:
    """Where `mamba_ssm` is installed and torch sees an NVIDIA GPU."""

    name = "mamba_ssm"

    def unavailable(self) -> str | None:
        """Return why it cannot be used here and what would help, or None if it can."""
        if not torch.cuda.is_available():
            return "it needs an NVIDIA GPU that torch can use"
        try:
            _load_scan()
        # Its compiled parts fail with errors of the loader, of torch and of Triton.
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            return f"mamba_ssm cannot be imported ({error}); {_INSTALL}"
        return None

    def wrong_setting(self) -> str | None:
        """Return None: it has no variable."""
        return None

    def pack(self, weights: StackWeights, precision: str = "fp32") -> ReferenceStack:
        """See `contract.Backend.pack`."""
        if (reason := self.unavailable()) is not None:
            raise BackendUnavailableError(f"backend mamba_ssm cannot run here: {reason}")
        check_precision(precision)
        weights.validate()
        return ReferenceStack(weights, precision, device="cuda", scan=_load_scan())


def _load_scan() -> MambaSsmScan:
    return MambaSsmScan(
        importlib.import_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined,
        importlib.import_module("mamba_ssm.ops.triton.selective_state_update").selective_state_update,
    )
