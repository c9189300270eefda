"""Products of matrices that are made once, so that no step need make them (decision 14 in the docs).

The opening: what goes into the first layer is linear in a 1, the known inputs and the outputs of the step before.
Where these are few, the first `in_proj` is multiplied by that; its norm is but a factor of what goes in.

The return: what a step feeds to the next one is linear in the normed hidden state that its outputs are read from. Where
the outputs are many, it comes right from there, and the outputs of many steps can be read together.

Weights are given with norms folded in and rounded to their precision; each product is rounded once, to float32.

Shape suffixes: O columns of the opening, P rows of `in_proj`, else as in `contract`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.mamba2.kernels.contract import StackWeights

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """What (1, inputs, last outputs) are multiplied by.

    Attributes:
        embed_DO: for what goes into the first layer.
        projected_PO: for what the first `in_proj` makes of that before its norm.
    """

    embed_DO: Tensor
    projected_PO: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Returned:
    """What the normed hidden state of a step is multiplied by, and what is added, to have what it feeds back."""

    weight_DD: Tensor
    bias_D: Tensor


def find_opening(rounded: StackWeights, weight_bytes: int) -> Opening | None:
    """Return the opening, or None unless it takes at most half of what `in_proj` takes at `weight_bytes` a number."""
    parts = [rounded.input_bias_D[:, None], rounded.input_weight_DF]
    if rounded.feedback_weight_DR is not None:
        parts.append(rounded.feedback_weight_DR)
    embed_DO = torch.cat(parts, 1)
    if 2 * embed_DO.shape[1] * _FLOAT_BYTES > rounded.config.d_model * weight_bytes:
        return None
    projected_PO = _product(rounded.core["layers.0.mixer.in_proj.weight"], embed_DO)
    return None if projected_PO is None else Opening(embed_DO, projected_PO)


def find_returned(rounded: StackWeights, weight_bytes: int) -> Returned | None:
    """Return it for a closed loop, or None unless it takes less than a feedback of `weight_bytes` a number."""
    outputs, width = rounded.head_weight_RD.shape
    if rounded.feedback_weight_DR is None or width * _FLOAT_BYTES >= outputs * weight_bytes:
        return None
    weight_DD = _product(rounded.feedback_weight_DR, rounded.head_weight_RD)
    bias_D1 = _product(rounded.feedback_weight_DR, rounded.head_bias_R[:, None])
    return None if weight_DD is None or bias_D1 is None else Returned(weight_DD, bias_D1[:, 0])


def _product(left: Tensor, right: Tensor) -> Tensor | None:
    """Return the product, or None where float32 cannot hold it."""
    product = (left.double() @ right.double()).to(torch.float32)
    return product if bool(torch.isfinite(product).all()) else None
