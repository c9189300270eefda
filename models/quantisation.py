"""Weights in fewer bits: how a checkpoint stores them, and the numbers that they are when it is read.

    fp32   the weights as they are
    bf16   every tensor rounded to bfloat16, to nearest even
    int8   every matrix in whole steps of max|row| / 127, the size of a step rounded to bfloat16; the rest as in bf16

Symmetric, a step size for each row: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient
inference" (arXiv:1806.08342), section 3.1. Norm weights are folded into the matrix behind them first, as kernels do it
(`models.mamba2.kernels.precision`), so that a matrix is rounded once. dt_bias, A_log and D stay float32: three numbers
a head, and how long a state is kept hangs on them.

As the size of a step has eight significant bits, the largest weight of a row is exactly 127 of them: storing what was
read gives the same bytes again, and kernels find the same steps.

Shape suffixes: O rows, K columns.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.forecaster import ForecasterNet
from models.mamba2.kernels.contract import StackWeights, check_precision
from models.mamba2.kernels.precision import fold_norms, in_steps, to_bf16

_STEP = ".step"
_EXACT = ("dt_bias", "A_log", "D")


def encode(net: ForecasterNet, precision: str) -> dict[str, Tensor]:
    """Return the tensors that a checkpoint stores for a net; those of `state_dict` for `fp32`.

    An int8 matrix has its step sizes [O] beside it, under its name and `.step`.

    Raises:
        KernelInputError: there is no such precision.
    """
    check_precision(precision)
    if precision == "fp32":
        return {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    stored = {}
    for name, tensor in _folded(net).items():
        if name.endswith(_EXACT):
            stored[name] = tensor
        elif precision == "int8" and tensor.ndim == 2:
            step_O = to_bf16(tensor.abs().amax(1) / 127)
            stored[name], stored[name + _STEP] = in_steps(tensor, step_O), step_O.to(torch.bfloat16)
        else:
            stored[name] = tensor.to(torch.bfloat16)
    return stored


def decode(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the `state_dict` of a net, in float32, from the tensors of `encode`.

    Raises:
        ValueError: an int8 matrix has no step sizes, or they do not fit it.
    """
    found = {}
    for name, tensor in stored.items():
        if tensor.dtype == torch.int8:
            step_O = stored.get(name + _STEP)
            if step_O is None or tensor.ndim != 2 or step_O.shape != tensor.shape[:1]:
                raise ValueError(f"the step sizes of {name} are missing or do not fit it")
            found[name] = tensor.to(torch.float32) * step_O.to(torch.float32)[:, None]
        elif not name.endswith(_STEP):
            found[name] = tensor.to(torch.float32)
    return found


def n_bytes(stored: Mapping[str, Tensor]) -> int:
    """Return the bytes of stored tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in stored.values())


def _folded(net: ForecasterNet) -> dict[str, Tensor]:
    """Return the `state_dict` of the net with norm weights of 1 that computes the same."""
    weights = fold_norms(StackWeights.from_modules(net.embed, net.core, net.head))
    return {
        "embed.weight": weights.input_weight_DF,
        "embed.bias": weights.input_bias_D,
        **{f"core.{name}": tensor for name, tensor in weights.core.items()},
        "head.weight": weights.head_weight_RD,
        "head.bias": weights.head_bias_R,
    }
