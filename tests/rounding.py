"""Torch in bf16 as the `cpu` kernels compute it."""

from models.mamba2.kernels.contract import StackWeights
from models.mamba2.kernels.torch_backend import ReferenceBackend, ReferenceStack


class RoundingReference(ReferenceBackend):
    """The reference; in bf16 its activations are rounded to bfloat16, too, before the projections of a layer."""

    def pack(self, weights: StackWeights, precision: str = "fp32") -> ReferenceStack:
        """See `contract.Backend.pack`."""
        stack = super().pack(weights, precision)
        if precision == "bf16":
            for name, module in stack._core.named_modules():
                if name.endswith(("in_proj", "out_proj")):
                    module.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16().float(),))
        return stack
