"""The weights and states of a stack in the layouts of the kernels."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.mamba2.kernels.contract import StackWeights
from models.mamba2.kernels.cuda.plan import KernelSizes
from models.mamba2.kernels.cuda.rollout_plan import TILE, MatrixLayout, RolloutPlan, TileLayout
from models.mamba2.kernels.precision import fold_norms, round_weights
from models.mamba2.state import LayerState, Mamba2State


def prepare(weights: StackWeights, precision: str) -> StackWeights:
    """Return the weights that the kernels compute with: norms folded into the matrices, rounded to `precision`."""
    weights = weights.detached()
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


def pack_prefill(weights: StackWeights, sizes: KernelSizes, weight_bytes: int, device: torch.device) -> PrefillTensors:
    """Return `prepare`d weights for prefill, on `device`."""

    def stored(matrix: Tensor) -> Tensor:
        return _stored(matrix, weight_bytes).contiguous().to(device)

    def plain(vector: Tensor) -> Tensor:
        return vector.contiguous().to(device)

    layers = []
    for index in range(sizes.layers):
        mixer = _Mixer(weights, sizes, index)
        layers.append(
            LayerTensors(
                in_proj=stored(torch.cat([mixer.in_z, mixer.in_x, mixer.in_maps, mixer.in_dt])),
                out_proj=stored(mixer.out),
                taps=plain(torch.cat([mixer.taps_x, mixer.taps_maps])),
                conv_bias=plain(torch.cat([mixer.bias_x, mixer.bias_maps]).flatten()),
                step_bias=plain(mixer.step_bias),
                rates=plain(mixer.rates),
                skips=plain(mixer.skips),
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
    mixers = [_Mixer(weights, plan.sizes, index) for index in range(plan.sizes.layers)]
    blocks, constants = [], []
    for rank in range(plan.cluster):
        matrices, numbers = _stack_block(weights, plan, rank)
        for mixer in mixers:
            layer_matrices, layer_numbers = _layer_block(mixer, plan, rank)
            matrices += layer_matrices
            numbers += layer_numbers
        blocks.append(torch.cat([matrix.flatten() for matrix in matrices]))
        constants.append(torch.cat([number.flatten() for number in numbers]))
    stored = _stored(torch.stack(blocks), plan.weight_bytes)
    return RolloutTensors(stored.contiguous().to(device), torch.stack(constants).contiguous().to(device))


def load_state(state: Mamba2State, sizes: KernelSizes, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a copy of a state as the kernels have it.

    Returns:
        The windows [layers, B, conv channels, taps - 1] and the states [layers, B, heads, head channels, states].
    """
    windows, states = (
        torch.stack([layer.conv_BCK for layer in state.layers]).to(device),
        torch.stack([layer.ssm_BHPN for layer in state.layers]).to(device),
    )
    x, maps = windows.split([sizes.stack.config.d_inner, windows.shape[2] - sizes.stack.config.d_inner], dim=2)
    windows = torch.cat([_fill_heads(x, sizes, dim=2), _fill_maps(maps, sizes, dim=2)], dim=2)
    config = sizes.stack.config
    missing = (0, sizes.states - config.d_state, 0, sizes.head_channels - config.headdim)
    return windows.contiguous(), functional.pad(states, missing).contiguous()


def unload_state(windows: Tensor, states: Tensor, sizes: KernelSizes, device: torch.device) -> Mamba2State:
    """Return what `load_state` laid out as a state on `device`."""
    config = sizes.stack.config
    x, maps = windows.split([sizes.inner, sizes.maps], dim=2)
    x = x.unflatten(2, (sizes.heads, sizes.head_channels))[:, :, :, : config.headdim].flatten(2, 3)
    maps = maps.unflatten(2, (2 * sizes.groups, sizes.states))[:, :, :, : config.d_state].flatten(2, 3)
    windows = torch.cat([x, maps], dim=2).to(device)
    states = states[..., : config.headdim, : config.d_state].contiguous().to(device)
    return Mamba2State(tuple(LayerState(*pair) for pair in zip(windows.unbind(0), states.unbind(0), strict=True)))


class _Mixer:
    """The weights of a layer, cut into what the kernels know, filled up with zeros to the kernels' sizes."""

    def __init__(self, weights: StackWeights, sizes: KernelSizes, index: int) -> None:
        config, prefix = weights.config, f"layers.{index}.mixer."
        inner, maps = config.d_inner, 2 * config.n_groups * config.d_state
        in_z, in_x, in_maps, self.in_dt = weights.core[f"{prefix}in_proj.weight"].split(
            [inner, inner, maps, config.n_heads]
        )
        self.in_z, self.in_x = _fill_heads(in_z, sizes), _fill_heads(in_x, sizes)
        self.in_maps = _fill_maps(in_maps, sizes)
        self.out = _fill_heads(weights.core[f"{prefix}out_proj.weight"], sizes, dim=1)
        taps_x, taps_maps = weights.core[f"{prefix}conv1d.weight"][:, 0].split([inner, maps])
        self.taps_x, self.taps_maps = _fill_heads(taps_x, sizes), _fill_maps(taps_maps, sizes)
        bias_x, bias_maps = weights.core[f"{prefix}conv1d.bias"][:, None].split([inner, maps])
        self.bias_x, self.bias_maps = _fill_heads(bias_x, sizes), _fill_maps(bias_maps, sizes)
        self.step_bias = weights.core[f"{prefix}dt_bias"]
        self.rates = -torch.exp(weights.core[f"{prefix}A_log"])
        self.skips = weights.core[f"{prefix}D"]


def _stack_block(weights: StackWeights, plan: RolloutPlan, rank: int) -> tuple[list[Tensor], list[Tensor]]:
    head_rows = _share(weights.head_weight_RD, rank, plan.outputs)
    fed = [_share(weights.input_weight_DF.T, rank, plan.known)]
    if weights.feedback_weight_DR is not None:
        fed.insert(0, _share(weights.feedback_weight_DR.T, rank, plan.outputs))
    head_bias = _share(weights.head_bias_R[:, None], rank, plan.outputs)
    matrices = [_laid_out(head_rows, plan.head_matrix), _laid_out(torch.cat(fed).T, plan.fed_matrix)]
    return matrices, [weights.input_bias_D, head_bias]


def _layer_block(mixer: _Mixer, plan: RolloutPlan, rank: int) -> tuple[list[Tensor], list[Tensor]]:
    channels, maps = plan.channels, plan.maps
    first_head = rank * channels // plan.sizes.head_channels
    heads = slice(first_head, first_head + plan.heads)
    in_z, in_x = _share(mixer.in_z, rank, channels), _share(mixer.in_x, rank, channels)
    in_rows = torch.cat([_share(mixer.in_maps, rank, maps), in_x, mixer.in_dt[heads], in_z])
    columns = mixer.out[:, rank * channels : (rank + 1) * channels]
    parts = [_laid_out(part, plan.out_matrix) for part in columns.split(channels // plan.local_parts, dim=1)]
    numbers = [
        _share(mixer.taps_maps, rank, maps),
        _share(mixer.taps_x, rank, channels),
        _share(mixer.bias_maps, rank, maps),
        _share(mixer.bias_x, rank, channels),
        mixer.step_bias[heads],
        mixer.rates[heads],
        mixer.skips[heads],
    ]
    return [_laid_out(in_rows, plan.in_matrix), *parts], numbers


def _fill_heads(tensor: Tensor, sizes: KernelSizes, dim: int = 0) -> Tensor:
    """Return the tensor with the channels along `dim`, head by head, filled up to the kernels' head."""
    return _fill(tensor, dim, sizes.stack.config.headdim, sizes.head_channels)


def _fill_maps(tensor: Tensor, sizes: KernelSizes, dim: int = 0) -> Tensor:
    """Return the tensor with B and C along `dim`, group by group, filled up to the kernels' states."""
    return _fill(tensor, dim, sizes.stack.config.d_state, sizes.states)


def _fill(tensor: Tensor, dim: int, run: int, filled: int) -> Tensor:
    if run == filled:
        return tensor
    runs = tensor.unflatten(dim, (-1, run)).movedim(dim + 1, -1)
    return functional.pad(runs, (0, filled - run)).movedim(-1, dim + 1).flatten(dim, dim + 1)


def _share(rows: Tensor, rank: int, count: int) -> Tensor:
    """Return `count` rows for block `rank`, zeros beyond the last."""
    mine = rows[rank * count : (rank + 1) * count]
    return functional.pad(mine, (0, 0, 0, count - len(mine)))


def _laid_out(matrix: Tensor, layout: MatrixLayout) -> Tensor:
    """Return the matrix in the order of `matvec.cuh`, filled up with zeros."""
    filled = functional.pad(matrix, (0, layout.row_length - matrix.shape[1]))
    if isinstance(layout, TileLayout):
        filled = functional.pad(filled, (0, 0, 0, layout.padded_rows - layout.rows))
        # [tile of rows, half, row, tile of columns, lane of four, pair, column] by lanes: row, then four.
        return filled.reshape(-1, 2, 8, layout.row_length // TILE, 4, 2, 2).permute(0, 3, 2, 4, 5, 1, 6)
    fours = filled.reshape(layout.rows, layout.pieces, layout.vector // 4, layout.lanes, 4)
    return fours.permute(1, 0, 3, 2, 4)


def _stored(matrix: Tensor, weight_bytes: int) -> Tensor:
    return matrix.to(torch.bfloat16) if weight_bytes == 2 else matrix
