"""The weights of a stack in the layouts of the kernels."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.mamba2.kernels.contract import StackWeights
from models.mamba2.kernels.cuda.plan import RolloutPlan, row_length
from models.mamba2.kernels.precision import fold_norms, round_weights


def prepare(weights: StackWeights, precision: str) -> StackWeights:
    """Return the weights that the kernels compute with: norms folded into the matrices, rounded to `precision`."""
    return fold_norms(weights) if precision == "fp32" else round_weights(weights, precision)


def stored_bytes(precision: str) -> int:
    """Return the bytes of a stored weight; int8 has its own numbers but the speed of fp32."""
    return 2 if precision == "bf16" else 4


@dataclass(frozen=True, slots=True)
class LayerTensors:
    """What the prefill kernels read of one layer; matrices in the storage of the precision, the rest float32."""

    in_proj: Tensor
    out_proj: Tensor
    taps: Tensor
    conv_bias: Tensor
    step_bias: Tensor
    rates: Tensor
    skips: Tensor


@dataclass(frozen=True, slots=True)
class PrefillTensors:
    """What the prefill kernels read."""

    layers: tuple[LayerTensors, ...]
    embed: Tensor
    embed_bias: Tensor
    head: Tensor
    head_bias: Tensor


@dataclass(frozen=True, slots=True)
class RolloutTensors:
    """What the rollout kernel reads: [cluster, block_weights] and [cluster, block_constants]."""

    weights: Tensor
    constants: Tensor


def pack_prefill(weights: StackWeights, weight_bytes: int, device: torch.device) -> PrefillTensors:
    """Return `prepare`d weights for prefill, on `device`."""

    def stored(matrix: Tensor) -> Tensor:
        return _stored(matrix, weight_bytes).contiguous().to(device)

    def plain(vector: Tensor) -> Tensor:
        return vector.contiguous().to(device)

    layers = []
    for index in range(weights.config.n_layers):
        mixer = _mixer(weights, index)
        layers.append(
            LayerTensors(
                in_proj=stored(mixer["in_proj.weight"]),
                out_proj=stored(mixer["out_proj.weight"]),
                taps=plain(mixer["conv1d.weight"][:, 0]),
                conv_bias=plain(mixer["conv1d.bias"]),
                step_bias=plain(mixer["dt_bias"]),
                rates=plain(-torch.exp(mixer["A_log"])),
                skips=plain(mixer["D"]),
            )
        )
    return PrefillTensors(
        layers=tuple(layers),
        embed=stored(weights.input_weight_DF),
        embed_bias=plain(weights.input_bias_D),
        head=stored(weights.head_weight_RD),
        head_bias=plain(weights.head_bias_R),
    )


def pack_rollout(weights: StackWeights, plan: RolloutPlan, device: torch.device) -> RolloutTensors:
    """Return `prepare`d weights for rollouts, block by block, on `device`; `rollout_layout.cuh` has the layout."""
    blocks, constants = [], []
    for rank in range(plan.cluster):
        matrices, numbers = _stack_block(weights, plan, rank)
        for index in range(weights.config.n_layers):
            layer_matrices, layer_numbers = _layer_block(weights, plan, rank, index)
            matrices += layer_matrices
            numbers += layer_numbers
        blocks.append(torch.cat([matrix.flatten() for matrix in matrices]))
        constants.append(torch.cat([number.flatten() for number in numbers]))
    stored = _stored(torch.stack(blocks), plan.weight_bytes)
    return RolloutTensors(stored.contiguous().to(device), torch.stack(constants).contiguous().to(device))


def _stack_block(weights: StackWeights, plan: RolloutPlan, rank: int) -> tuple[list[Tensor], list[Tensor]]:
    head_rows = _share(weights.head_weight_RD, rank, plan.outputs)
    fed = [_share(weights.input_weight_DF.T, rank, plan.known)]
    if weights.feedback_weight_DR is not None:
        fed.insert(0, _share(weights.feedback_weight_DR.T, rank, plan.outputs))
    head_bias = _share(weights.head_bias_R[:, None], rank, plan.outputs)
    return [_rows(head_rows), _rows(torch.cat(fed).T)], [weights.input_bias_D, head_bias]


def _layer_block(weights: StackWeights, plan: RolloutPlan, rank: int, index: int) -> tuple[list[Tensor], list[Tensor]]:
    config, mixer = weights.config, _mixer(weights, index)
    inner, channels, maps = config.d_inner, plan.channels, plan.maps
    first, first_head = rank * channels, rank * channels // config.headdim
    heads = slice(first_head, first_head + plan.heads)

    z, x, all_maps, dt = torch.split(
        mixer["in_proj.weight"], [inner, inner, 2 * config.n_groups * config.d_state, config.n_heads]
    )
    in_rows = torch.cat(
        [z[first : first + channels], x[first : first + channels], _share(all_maps, rank, maps), dt[heads]]
    )
    columns = mixer["out_proj.weight"][:, first : first + channels]
    parts = [_rows(part) for part in columns.split(channels // plan.local_parts, dim=1)]

    def convolved(rows: Tensor) -> Tensor:
        return torch.cat([rows[first : first + channels], _share(rows[inner:], rank, maps)])

    numbers = [
        convolved(mixer["conv1d.weight"][:, 0]),
        convolved(mixer["conv1d.bias"][:, None]),
        mixer["dt_bias"][heads],
        -torch.exp(mixer["A_log"][heads]),
        mixer["D"][heads],
    ]
    return [_rows(in_rows), *parts], numbers


def _mixer(weights: StackWeights, index: int) -> dict[str, Tensor]:
    prefix = f"layers.{index}.mixer."
    return {name.removeprefix(prefix): tensor for name, tensor in weights.core.items() if name.startswith(prefix)}


def _share(rows: Tensor, rank: int, count: int) -> Tensor:
    """Return `count` rows for block `rank`, zeros beyond the last."""
    mine = rows[rank * count : (rank + 1) * count]
    return functional.pad(mine, (0, 0, 0, count - len(mine)))


def _rows(matrix: Tensor) -> Tensor:
    """Return the matrix with its rows filled up with zeros to the kernels' length."""
    return functional.pad(matrix, (0, row_length(matrix.shape[1]) - matrix.shape[1]))


def _stored(matrix: Tensor, weight_bytes: int) -> Tensor:
    return matrix.to(torch.bfloat16) if weight_bytes == 2 else matrix
