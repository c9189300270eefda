"""Structured pruning: a smaller net of the parts of a larger one that matter most.

Whole channels of the residual stream, whole heads, channels of heads and states of the recurrence are taken out, so
that what is left is a plain net of smaller sizes. A part matters by how much the loss would change without it, to
first order: the squared sum of weight times gradient over the weights that read it, averaged over batches (Molchanov
et al. 2019, "Importance estimation for neural network pruning", arXiv:1906.10771, equation 8).

Shape suffixes: D residual width, H heads, P head width, N states, G layers.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from infra.errors import ModelError
from models.forecaster import ForecasterConfig, ForecasterNet
from models.losses import batch_loss
from models.mamba2.kernels.contract import core_shapes
from models.outlook import N_FEATURES
from models.samples import Batch

# (nets whose loss is known, of how many)
OnWeighed = Callable[[int, int], None]

# Kernels work on units of so many floats: other sizes would save bytes, but no time.
_UNIT = 16
# A net is made smaller in as many parts of a size that is no multiple of a unit.
_PARTS = 8


@dataclass(frozen=True, slots=True)
class Importance:
    """How much each part of a net matters; of the parts of one kind, more is more.

    Attributes:
        width_D: channels of the residual stream, over all layers.
        inner_GHP: channels of the heads of each layer.
        states_GN: states of the recurrence of each layer.
    """

    width_D: Tensor
    inner_GHP: Tensor
    states_GN: Tensor


def importance(net: ForecasterNet, batches: Sequence[Batch]) -> Importance:
    """Return what the parts of a net are worth on batches that it was trained on."""
    # A copy, as what training gives takes no gradients.
    net = deepcopy(net).requires_grad_(True).eval()
    config = net.config.core()
    n_layers, n_states = config.n_layers, config.d_state
    width_D = torch.zeros(config.d_model)
    inner_GHP = torch.zeros(n_layers, config.n_heads, config.headdim)
    states_GN = torch.zeros(n_layers, n_states)
    for batch in batches:
        net.zero_grad(set_to_none=True)
        batch_loss(net, batch).backward()
        products = {name: (p * p.grad).detach() for name, p in net.named_parameters() if p.grad is not None}
        read_D = products["head.weight"].sum(0)
        for layer in range(n_layers):
            prefix = f"core.layers.{layer}.mixer"
            in_proj = products[f"{prefix}.in_proj.weight"]
            read_D = read_D + in_proj.sum(0)
            inner_GHP[layer] += products[f"{prefix}.out_proj.weight"].sum(0).view_as(inner_GHP[layer]).square()
            # The rows of C: what a state adds to the output passes through them.
            first = config.d_inner + config.conv_dim - n_states
            states_GN[layer] += in_proj[first : first + n_states].sum(1).square()
        width_D += read_D.square()
    return Importance(width_D / len(batches), inner_GHP / len(batches), states_GN / len(batches))


def n_parameters(config: ForecasterConfig) -> int:
    """Return how many parameters a net has."""
    outputs = ForecasterNet.n_outputs()
    core = sum(math.prod(shape) for shape in core_shapes(config.core()).values())
    return core + (N_FEATURES + 1) * config.d_model + (config.d_model + 1) * outputs


def smaller_shapes(config: ForecasterConfig, share: float) -> list[ForecasterConfig]:
    """Return the architectures that a net can be pruned to, each as large as it may be.

    Args:
        config: that of the net.
        share: share of the parameters that must go, above 0 and below 1.

    Raises:
        ModelError: there is none.
    """
    allowed = (1 - share) * n_parameters(config)
    found = [shape for shape in _shapes(config) if n_parameters(shape) <= allowed]
    if not found:
        raise ModelError(
            f"a model of {n_parameters(config):,} parameters cannot be pruned by {share:.0%}",
            fix="prune a smaller share",
        )

    # Of two shapes that differ in one size alone, the larger one is never worse.
    def is_within(one: ForecasterConfig, other: ForecasterConfig) -> bool:
        pairs = zip(_sizes(one), _sizes(other), strict=True)
        return one != other and all(size <= larger for size, larger in pairs)

    return [shape for shape in found if not any(is_within(shape, other) for other in found)]


def _shapes(config: ForecasterConfig) -> Iterator[ForecasterConfig]:
    core = config.core()
    for d_model in _steps(config.d_model):
        for headdim in _steps(config.headdim):
            for d_state in _steps(config.d_state):
                for expand in range(1, config.expand + 1):
                    heads, rest = divmod(expand * d_model, headdim)
                    if not rest and 1 <= heads <= core.n_heads:
                        yield replace(config, d_model=d_model, headdim=headdim, d_state=d_state, expand=expand)


def _sizes(config: ForecasterConfig) -> tuple[int, int, int, int]:
    return config.d_model, config.core().n_heads, config.headdim, config.d_state


def _steps(size: int) -> range:
    step = _UNIT if size > _UNIT and size % _UNIT == 0 else max(1, size // _PARTS)
    return range(step, size + 1, step)


def pruned(net: ForecasterNet, found: Importance, shape: ForecasterConfig) -> ForecasterNet:
    """Return the net of the parts of `net` that matter most, in the order in which they were.

    Before any training on it computes what `net` does with the other parts masked to zero, but for the epsilon of its
    norms: a mean square over fewer channels is larger, and norm weights grow by its root.

    Args:
        net: a net, which stays as it is.
        found: what its parts are worth.
        shape: its architecture with smaller sizes.
    """
    before, after = net.config.core(), shape.core()
    width_D = _best(found.width_D, after.d_model)
    state = net.state_dict()
    small = ForecasterNet(shape)
    kept = {name: state[name] for name in ("head.bias",)}
    kept["embed.weight"], kept["embed.bias"] = state["embed.weight"][width_D], state["embed.bias"][width_D]
    kept["head.weight"] = state["head.weight"][:, width_D]
    growth = math.sqrt(before.d_model / after.d_model)
    kept["core.norm_f.weight"] = state["core.norm_f.weight"][width_D] * growth
    for layer in range(after.n_layers):
        prefix = f"core.layers.{layer}"
        mixer = {
            name.removeprefix(f"{prefix}.mixer."): tensor
            for name, tensor in state.items()
            if name.startswith(f"{prefix}.mixer.")
        }
        heads_H = _best(found.inner_GHP[layer].sum(-1), after.n_heads)
        inner_I = torch.cat(
            [head * before.headdim + _best(found.inner_GHP[layer, head], after.headdim) for head in heads_H.tolist()]
        )
        states_N = _best(found.states_GN[layer], after.d_state)
        channels_C = torch.cat([inner_I, before.d_inner + states_N, before.d_inner + before.d_state + states_N])
        rows = torch.cat([inner_I, before.d_inner + channels_C, before.d_inner + before.conv_dim + heads_H])
        kept[f"{prefix}.norm.weight"] = state[f"{prefix}.norm.weight"][width_D] * growth
        mixer["in_proj.weight"] = mixer["in_proj.weight"][rows][:, width_D]
        mixer["conv1d.weight"], mixer["conv1d.bias"] = (mixer[f"conv1d.{n}"][channels_C] for n in ("weight", "bias"))
        for name in ("dt_bias", "A_log", "D"):
            mixer[name] = mixer[name][heads_H]
        mixer["norm.weight"] = mixer["norm.weight"][inner_I] * math.sqrt(before.d_inner / after.d_inner)
        mixer["out_proj.weight"] = mixer["out_proj.weight"][width_D][:, inner_I]
        kept |= {f"{prefix}.mixer.{name}": tensor for name, tensor in mixer.items()}
    small.load_state_dict(kept)
    return small.eval()


def prune(
    net: ForecasterNet, share: float, batches: Sequence[Batch], on_weighed: OnWeighed | None = None
) -> ForecasterNet:
    """Return a net with at most `1 - share` of the parameters: the one that loses least of all shapes that fit.

    Args:
        net: a net, which stays as it is.
        share: share of the parameters that must go, above 0 and below 1.
        batches: of what the net was trained on; importance and loss are measured on them.
        on_weighed: told of the shapes that were tried.

    Raises:
        ModelError: the net cannot be pruned that far.
    """
    shapes = smaller_shapes(net.config, share)
    found = importance(net, batches)
    return least_loss([pruned(net, found, shape) for shape in shapes], batches, on_weighed)


def least_loss(
    nets: Sequence[ForecasterNet], batches: Sequence[Batch], on_weighed: OnWeighed | None = None
) -> ForecasterNet:
    """Return the net with the lowest mean loss on batches; `on_weighed` is told of those that were tried."""
    losses = []
    for net in nets:
        with torch.inference_mode():
            losses.append(sum(float(batch_loss(net, batch)) for batch in batches))
        if on_weighed is not None:
            on_weighed(len(losses), len(nets))
    return nets[losses.index(min(losses))]


def _best(worth: Tensor, count: int) -> Tensor:
    """Return the places of the `count` largest, ascending; of equals the first."""
    return torch.argsort(worth, descending=True, stable=True)[:count].sort().values
