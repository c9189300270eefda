"""Torch in bf16 as the `cpu` kernels compute it."""

from models.mamba2.kernels.contract import StackWeights
from models.mamba2.kernels.cpu.shortcuts import find_opening
from models.mamba2.kernels.precision import round_weights
from models.mamba2.kernels.torch_backend import ReferenceBackend, ReferenceStack

_BF16_BYTES = 2


class RoundingReference(ReferenceBackend):
    """The reference; in bf16 its activations are rounded to bfloat16, too, before the projections of a layer.

    But for the first one of a stack with an opening, which takes what it is multiplied by as it is.
    """

    def pack(self, weights: StackWeights, precision: str = "fp32") -> ReferenceStack:
        """See `contract.Backend.pack`."""
        stack = super().pack(weights, precision)
        if precision == "bf16":
            opened = find_opening(round_weights(weights.detached(), precision), _BF16_BYTES) is not None
            for name, module in stack._core.named_modules():
                if name.endswith(("in_proj", "out_proj")) and not (opened and name == "layers.0.mixer.in_proj"):
                    module.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16().float(),))
        return stack
