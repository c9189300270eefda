"""A stack of pre-norm residual Mamba2 blocks, named as the backbone of `mamba_ssm` language models."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.dispatch import SelectiveScan
from models.mamba2.layer import Mamba2Layer, RMSNorm
from models.mamba2.state import LayerState, Mamba2State

# Steps of a block that are worked out again at a time. Their inside is what remains of the memory of a long sequence.
_RECOMPUTED_STEPS = 4096


class Mamba2Block(nn.Module):
    """`x + mixer(norm(x))`."""

    def __init__(self, config: Mamba2Config, *, scan: SelectiveScan | None = None) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.mixer = Mamba2Layer(config, scan=scan)

    def forward(self, x_BLD: Tensor, conv_BCK: Tensor, ssm_BHPN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return y_BLD and the two tensors of the new state; tensors only, so that the block can be checkpointed."""
        y_BLD, state = self.mixer(self.norm(x_BLD), LayerState(conv_BCK, ssm_BHPN))
        return x_BLD + y_BLD, state.conv_BCK, state.ssm_BHPN

    def states(self, x_BLD: Tensor, state: LayerState, every: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return y_BLD and the two tensors of the states after each `every` steps; see `Mamba2Layer.states`."""
        y_BLD, conv_SBCK, ssm_SBHPN = self.mixer.states(self.norm(x_BLD), state, every)
        return x_BLD + y_BLD, conv_SBCK, ssm_SBHPN

    def step(self, x_BD: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Return y_BD and the state after one step."""
        y_BD, state = self.mixer.step(self.norm(x_BD), state)
        return x_BD + y_BD, state


class Mamba2Core(nn.Module):
    """The stack and its final norm: a sequence of d_model vectors in, one out, with carried state.

    Whole sequences, sequences cut anywhere with the state carried on, and single steps agree to float tolerance, and
    so do their gradients. Rows of a batch do not see each other.

    Args:
        config: sizes of the stack.
        seed: seed of the initial parameters; the same seed gives the same parameters.
        scan: backend of the selective scan, the plain torch reference by default.
    """

    def __init__(self, config: Mamba2Config, *, seed: int = 0, scan: SelectiveScan | None = None) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Mamba2Block(config, scan=scan) for _ in range(config.n_layers))
        self.norm_f = RMSNorm(config.d_model, config.norm_eps)
        self.reset_parameters(torch.Generator().manual_seed(seed))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the initial parameters of all blocks from `generator`."""
        for block in self._blocks():
            nn.init.ones_(block.norm.weight)
            block.mixer.reset_parameters(generator)
        nn.init.ones_(self.norm_f.weight)

    def initial_state(self, batch: int) -> Mamba2State:
        """Return the state before the first step, on the device of the parameters."""
        weight = self.norm_f.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return Mamba2State.zeros(self.config, batch, dtype=dtype, device=weight.device)

    def forward(
        self, x_BLD: Tensor, state: Mamba2State | None = None, *, checkpoint_blocks: bool = False
    ) -> tuple[Tensor, Mamba2State]:
        """Run L >= 0 steps.

        Args:
            x_BLD: inputs.
            state: the state before the first step; zeros if None.
            checkpoint_blocks: recompute the inside of each block in the backward pass, so many steps at a time: less
                memory, more time.

        Returns:
            y_BLD and the state after the last step.

        Raises:
            Mamba2StateError: the state belongs to another configuration or batch.
        """
        state = self._checked(state, len(x_BLD))
        layers = []
        for block, layer in zip(self._blocks(), state.layers, strict=True):
            if checkpoint_blocks and torch.is_grad_enabled():
                x_BLD, layer_state = self._recomputed(block, x_BLD, layer)
            else:
                x_BLD, *after = block(x_BLD, layer.conv_BCK, layer.ssm_BHPN)
                layer_state = LayerState(*after)
            layers.append(layer_state)
        return self.norm_f(x_BLD), Mamba2State(tuple(layers))

    def states(self, x_BLD: Tensor, every: int) -> list[Mamba2State]:
        """Return the states after each `every` of L > 0 steps, from no step before; the numbers of `forward`.

        Raises:
            ValueError: `every` does not divide the length.
        """
        layers = []
        for block, layer in zip(self._blocks(), self.initial_state(len(x_BLD)).layers, strict=True):
            x_BLD, conv_SBCK, ssm_SBHPN = block.states(x_BLD, layer, every)
            layers.append([LayerState(*pair) for pair in zip(conv_SBCK, ssm_SBHPN, strict=True)])
        return [Mamba2State(state) for state in zip(*layers, strict=True)]

    def step(self, x_BD: Tensor, state: Mamba2State | None = None) -> tuple[Tensor, Mamba2State]:
        """Run one step; the same numbers as `forward` with L = 1.

        Raises:
            Mamba2StateError: the state belongs to another configuration or batch.
        """
        state = self._checked(state, len(x_BD))
        layers = []
        for block, layer in zip(self._blocks(), state.layers, strict=True):
            x_BD, layer_state = block.step(x_BD, layer)
            layers.append(layer_state)
        return self.norm_f(x_BD), Mamba2State(tuple(layers))

    def _recomputed(self, block: Mamba2Block, x_BLD: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Return what a block returns; of its inside nothing is kept, and one piece at a time is worked out again."""
        chunk_size = self.config.chunk_size
        pieces = []
        for piece_BLD in x_BLD.split(max(1, _RECOMPUTED_STEPS // chunk_size) * chunk_size, dim=1):
            y_BLD, *after = checkpoint(block, piece_BLD, state.conv_BCK, state.ssm_BHPN, use_reentrant=False)
            state = LayerState(*after)
            pieces.append(y_BLD)
        return torch.cat(pieces, dim=1), state

    def _checked(self, state: Mamba2State | None, batch: int) -> Mamba2State:
        if state is None:
            return self.initial_state(batch)
        state.check(self.config, batch)
        return state

    def _blocks(self) -> list[Mamba2Block]:
        return [block for block in self.layers if isinstance(block, Mamba2Block)]
