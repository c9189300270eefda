"""Stacks for the parity suite: weights as training leaves them, inputs, and how far two results lie apart."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.mamba2.config import Mamba2Config
from models.mamba2.core import Mamba2Core
from models.mamba2.kernels.contract import KernelInputError, StackWeights
from models.mamba2.kernels.torch_backend import ReferenceBackend
from models.mamba2.state import Mamba2State

BENCHMARKED = Mamba2Config(d_model=128, n_layers=4, d_state=64, headdim=64)
PLAIN = Mamba2Config(d_model=32, n_layers=2, d_state=16, headdim=16, chunk_size=16)
# Nothing here is a multiple of a vector, or of anything else here.
ODD = Mamba2Config(
    d_model=21, n_layers=3, d_state=13, headdim=7, expand=2, d_conv=3, n_groups=3, chunk_size=11, dt_limit=(0.002, 0.08)
)
SMALLEST = Mamba2Config(d_model=1, n_layers=1, d_state=1, headdim=1, expand=1, d_conv=2, chunk_size=1)
WIDE_HEAD = Mamba2Config(d_model=40, n_layers=1, d_state=96, headdim=80, d_conv=5, norm_eps=1e-6)
CONFIGS = {"plain": PLAIN, "odd": ODD, "smallest": SMALLEST, "wide-head": WIDE_HEAD}


def make_weights(config, *, n_inputs=5, n_outputs=3, feeds_back=False, seed=0):
    """Weights with the spread that training gives: no norm, bias or skip stays where it began."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale):
        return scale * torch.randn(*shape, generator=generator)

    core = Mamba2Core(config, seed=seed)
    with torch.no_grad():
        for name, tensor in core.state_dict().items():
            if name.endswith(("norm.weight", "norm_f.weight", ".D")):
                tensor.add_(normal(*tensor.shape, scale=0.2))
    width = config.d_model
    return StackWeights(
        config=config,
        core={name: tensor.detach() for name, tensor in core.state_dict().items()},
        input_weight_DF=normal(width, n_inputs, scale=0.5),
        input_bias_D=normal(width, scale=0.3),
        head_weight_RD=normal(n_outputs, width, scale=width**-0.5),
        head_bias_R=normal(n_outputs, scale=0.3),
        feedback_weight_DR=normal(width, n_outputs, scale=0.5) if feeds_back else None,
    )


def season(batch, steps, generator):
    """Known inputs [B, T, 2]: where two seasons stand."""
    phase_BT = 50 * torch.rand(batch, 1, generator=generator) + torch.arange(steps)
    return torch.stack([(phase_BT / 3.7).sin(), (phase_BT / 5.3).cos()], -1)


def observe(known_BTF, generator):
    """Two metrics that follow the seasons, remember their past and are disturbed at every step."""
    seen_BR, seen = torch.zeros(len(known_BTF), 2), []
    for known_BF in known_BTF.unbind(1):
        seen_BR = 0.6 * seen_BR + known_BF * (1 + 0.3 * known_BF.flip(-1))
        seen_BR = seen_BR + 0.2 * torch.randn(seen_BR.shape, generator=generator)
        seen.append(seen_BR)
    return torch.stack(seen, 1)


@cache
def trained_weights(config=PLAIN):
    """A closed loop that was trained to forecast the next step of `observe`."""
    generator = torch.Generator().manual_seed(5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        embed, head = nn.Linear(2, config.d_model), nn.Linear(config.d_model, 2)
        feedback = nn.Linear(2, config.d_model, bias=False)
    core = Mamba2Core(config, seed=5)
    parameters = [p for module in (embed, core, head, feedback) for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3)
    losses = []
    for _ in range(40):
        known_BTF = season(4, 33, generator)
        seen_BTR = observe(known_BTF, generator)
        hidden_BTD, _ = core(embed(known_BTF[:, 1:]) + feedback(seen_BTR[:, :-1]))
        loss = functional.mse_loss(head(hidden_BTD), seen_BTR[:, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4, f"the loop has learned nothing: {losses[0]} -> {losses[-1]}"
    return StackWeights.from_modules(embed, core, head, feedback.weight)


def make_inputs(weights, batch, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps, weights.sizes.n_inputs, generator=generator)


def make_state(config, batch, seed=2):
    """A state in the midst of a series."""
    generator = torch.Generator().manual_seed(seed)
    return Mamba2State.zeros(config, batch).map(lambda tensor: 0.3 * torch.randn(tensor.shape, generator=generator))


@dataclass(frozen=True)
class Case:
    """A call that can be made of any backend; what the reference makes of it is computed once."""

    config: Mamba2Config
    batch: int = 2
    steps: int = 40
    feeds_back: bool = False
    n_inputs: int = 5
    n_outputs: int = 3
    trained: bool = False

    def weights(self):
        if self.trained:
            return trained_weights(self.config)
        return make_weights(self.config, n_inputs=self.n_inputs, n_outputs=self.n_outputs, feeds_back=self.feeds_back)

    def inputs(self):
        if self.trained:
            return season(self.batch, self.steps, torch.Generator().manual_seed(1))
        return make_inputs(self.weights(), self.batch, self.steps)

    def state(self):
        return make_state(self.config, self.batch)


@cache
def expected(case, precision, how="rollout"):
    """What the reference gives: named tensors."""
    stack = ReferenceBackend().pack(case.weights(), precision)
    return tensors_of(*getattr(stack, how)(case.inputs(), case.state()))


def tensors_of(outputs, state):
    return {"outputs": outputs, **state.to_tensors()}


def relative_error(ours, theirs):
    """The largest difference, in units of the largest value of the same tensor."""
    return max(
        ((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp(min=1e-30)).item()
        for name in theirs
        if theirs[name].numel()
    )


def assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), f"{name} differs"


def assert_call_refused(backend, spoil, message):
    """Assert that neither call takes the inputs and the state that `spoil` makes of good ones, and what both say."""
    weights = make_weights(PLAIN)
    stack = backend.pack(weights)
    inputs, state = spoil(make_inputs(weights, 2, 4), make_state(PLAIN, 2))
    for method in (stack.prefill, stack.rollout):
        with pytest.raises(KernelInputError, match=message):
            method(inputs, state)
