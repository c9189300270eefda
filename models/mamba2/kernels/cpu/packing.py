"""Weights as the compiled kernels want them: norms folded in, rounded, and padded to whole units (`model.hpp`)."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.contract import StackWeights
from models.mamba2.kernels.cpu import _native
from models.mamba2.kernels.cpu.shortcuts import Opening, find_opening, find_returned
from models.mamba2.kernels.precision import fold_norms, int8_rows, round_weights

# The largest float stands for "no upper limit" of the step sizes.
_NO_LIMIT = float(np.finfo(np.float32).max)


# Bytes of a number.
_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}


def native_stack(weights: StackWeights, precision: str, isa: str) -> _native.Stack:
    """Return the packed stack for validated weights."""
    folded = fold_norms(weights.detached())
    rounded = round_weights(folded, precision)
    outer = "fp32" if precision == "fp32" else "bf16"
    opening = find_opening(rounded, _BYTES[precision])
    returned = find_returned(rounded, _BYTES[outer]) if opening is None else None
    config, sizes = weights.config, native_sizes(weights, 0 if opening is None else opening.embed_DO.shape[1])
    width, outputs = _places(config.d_model), _places(len(folded.head_weight_RD))
    layers = [_layer(folded, index, sizes, precision, opening) for index in range(config.n_layers)]
    if opening is None:
        inputs = _places(folded.input_weight_DF.shape[1])
        embed = _matrix(folded.input_weight_DF, (sizes.width, sizes.inputs), width, inputs, outer)
    else:
        columns = _places(opening.embed_DO.shape[1])
        embed = _matrix(opening.embed_DO, (sizes.width, sizes.opened), width, columns, "fp32")
    feedback_DR = folded.feedback_weight_DR
    return _native.Stack(
        sizes=sizes,
        layers=layers,
        embed=embed,
        embed_bias=_vector(folded.input_bias_D, sizes.width, width),
        head=_matrix(folded.head_weight_RD, (sizes.outputs, sizes.width), outputs, width, outer),
        head_bias=_vector(folded.head_bias_R, sizes.outputs, outputs),
        feedback=None
        if feedback_DR is None
        else _matrix(feedback_DR, (sizes.width, sizes.outputs), width, outputs, outer),
        returned=None
        if returned is None
        else _matrix(returned.weight_DD, (sizes.width, sizes.width), width, width, "fp32"),
        returned_bias=_vector(
            torch.zeros_like(folded.input_bias_D) if returned is None else returned.bias_D, sizes.width, width
        ),
        isa=isa,
    )


def native_sizes(weights: StackWeights, n_opened: int = 0) -> _native.Sizes:
    """Return the sizes of the stack, of whose opening the columns are given, and what they are padded to."""
    config = weights.config
    low, high = config.dt_limit
    return _native.Sizes(
        d_model=config.d_model,
        n_layers=config.n_layers,
        d_state=config.d_state,
        headdim=config.headdim,
        n_heads=config.n_heads,
        n_groups=config.n_groups,
        d_conv=config.d_conv,
        n_inputs=weights.input_weight_DF.shape[1],
        n_outputs=weights.head_weight_RD.shape[0],
        feeds_back=weights.feedback_weight_DR is not None,
        n_opened=n_opened,
        dt_low=low,
        dt_high=_NO_LIMIT if math.isinf(high) else high,
        norm_eps=config.norm_eps,
    )


def _layer(
    folded: StackWeights, index: int, sizes: _native.Sizes, precision: str, opening: Opening | None
) -> _native.Layer:
    config = folded.config
    prefix = f"layers.{index}.mixer."
    weights = {name.removeprefix(prefix): tensor for name, tensor in folded.core.items() if name.startswith(prefix)}
    lanes, channels, heads = _lanes(config, sizes), _channels(config, sizes), _places(config.n_heads)
    width = _places(config.d_model)
    projected = torch.cat([lanes, sizes.inner + channels, sizes.inner + sizes.conv + heads])
    taps = _places(config.d_conv)
    if opening is not None and index == 0:
        columns = _places(opening.projected_PO.shape[1])
        in_proj = _matrix(opening.projected_PO, (sizes.proj, sizes.opened), projected, columns, "fp32")
    else:
        in_proj = _matrix(weights["in_proj.weight"], (sizes.proj, sizes.width), projected, width, precision)
    conv_KC = _scatter(weights["conv1d.weight"][:, 0].T, (config.d_conv, sizes.conv), taps, channels)
    return _native.Layer(
        in_proj=in_proj,
        out_proj=_matrix(weights["out_proj.weight"], (sizes.width, sizes.inner), width, lanes, precision),
        conv_weight=conv_KC.numpy(),
        conv_bias=_vector(weights["conv1d.bias"], sizes.conv, channels),
        dt_bias=_vector(weights["dt_bias"], sizes.dt, heads),
        rate=_vector(-torch.exp(weights["A_log"]), sizes.dt, heads),
        skip=_vector(weights["D"], sizes.dt, heads),
    )


def _lanes(config: Mamba2Config, sizes: _native.Sizes) -> Tensor:
    """Where each inner channel lies once every head is padded."""
    return (_places(config.n_heads)[:, None] * sizes.lanes + _places(config.headdim)).flatten()


def _channels(config: Mamba2Config, sizes: _native.Sizes) -> Tensor:
    """Where each channel of the convolution (x, B, C) lies."""
    maps = _places(2 * config.n_groups)[:, None] * sizes.states + _places(config.d_state)
    return torch.cat([_lanes(config, sizes), sizes.inner + maps.flatten()])


def _places(count: int) -> Tensor:
    # Said outright: torch's default device may be any.
    return torch.arange(count, device="cpu")


def _scatter(matrix: Tensor, shape: tuple[int, int], rows: Tensor, columns: Tensor) -> Tensor:
    """Return zeros of `shape` with `matrix` at `rows` and `columns`."""
    padded = matrix.new_zeros(shape)
    padded[rows[:, None], columns] = matrix
    return padded


def _vector(vector: Tensor, length: int, places: Tensor) -> npt.NDArray[np.float32]:
    padded = torch.zeros(length, dtype=torch.float32, device=vector.device)
    padded[places] = vector
    array: npt.NDArray[np.float32] = padded.numpy()
    return array


def _matrix(matrix: Tensor, shape: tuple[int, int], rows: Tensor, columns: Tensor, precision: str) -> _native.Matrix:
    padded = _scatter(matrix, shape, rows, columns)
    if precision == "fp32":
        return _native.Matrix.fp32(padded.numpy())
    if precision == "bf16":
        return _native.Matrix.bf16(padded.to(torch.bfloat16).view(torch.uint16).numpy())
    steps, step_sizes = int8_rows(padded)
    return _native.Matrix.int8(steps.numpy(), step_sizes.numpy())
