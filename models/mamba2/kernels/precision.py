"""What a precision means, for every backend alike: which numbers the matrices of a stack hold.

    fp32   the weights as they are
    bf16   every matrix rounded to bfloat16, to nearest even
    int8   in_proj and out_proj in whole steps of max|row| / 127, every other matrix as in bf16

Matrices are rounded after the norm before them is folded in: `norm.weight` into the columns of `in_proj`, the gated
norm's into those of `out_proj`, `norm_f` into those of the head. Biases, the convolution, dt_bias, A_log, D, the
state and all sums stay float32. Activations keep at least 16 significant bits, but for those that meet the bf16
weights of `in_proj` and `out_proj`: a backend may round them to bfloat16 too, as `torch.autocast` does.
"""

from dataclasses import replace

import torch
from torch import Tensor

from models.mamba2.kernels.contract import StackWeights


def fold_norms(weights: StackWeights) -> StackWeights:
    """Return the same stack with every norm weight folded into the matrix behind it; norm weights become 1."""
    core = dict(weights.core)

    def fold(norm: str, matrix: str) -> None:
        core[matrix] = core[matrix] * core[norm]
        core[norm] = torch.ones_like(core[norm])

    for index in range(weights.config.n_layers):
        fold(f"layers.{index}.norm.weight", f"layers.{index}.mixer.in_proj.weight")
        fold(f"layers.{index}.mixer.norm.weight", f"layers.{index}.mixer.out_proj.weight")
    head_weight_RD = weights.head_weight_RD * core["norm_f.weight"]
    core["norm_f.weight"] = torch.ones_like(core["norm_f.weight"])
    return replace(weights, core=core, head_weight_RD=head_weight_RD)


def round_weights(weights: StackWeights, precision: str) -> StackWeights:
    """Return the stack with norms folded in and its matrices rounded to `precision`, as float32 tensors."""
    if precision == "fp32":
        return weights
    folded = fold_norms(weights)
    core = dict(folded.core)
    for name, tensor in folded.core.items():
        if name.endswith(("in_proj.weight", "out_proj.weight")):
            core[name] = to_bf16(tensor) if precision == "bf16" else _to_int8(tensor)
    feedback = folded.feedback_weight_DR
    return replace(
        folded,
        core=core,
        input_weight_DF=to_bf16(folded.input_weight_DF),
        head_weight_RD=to_bf16(folded.head_weight_RD),
        feedback_weight_DR=None if feedback is None else to_bf16(feedback),
    )


def to_bf16(matrix: Tensor) -> Tensor:
    """Return the nearest bfloat16 values, as float32."""
    return matrix.to(torch.bfloat16).to(torch.float32)


def int8_rows(matrix_OK: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 steps [O, K] and the size of a step of each row [O]; a row of zeros has steps of size 0."""
    step_O = matrix_OK.abs().amax(1) / 127
    return in_steps(matrix_OK, step_O), step_O


def in_steps(matrix_OK: Tensor, step_O: Tensor) -> Tensor:
    """Return the matrix in whole int8 steps [O, K], at most 127, whose size [O] is given for each row."""
    inverse_O = torch.where(step_O > 0, 1 / step_O, torch.zeros_like(step_O))
    return (matrix_OK * inverse_O[:, None]).round().clamp(-127, 127).to(torch.int8)


def _to_int8(matrix_OK: Tensor) -> Tensor:
    steps_OK, step_O = int8_rows(matrix_OK)
    return steps_OK.to(torch.float32) * step_O[:, None]
