"""One Mamba2 mixer, with the parameters and names of `mamba_ssm.modules.mamba2.Mamba2`, so that weights fit both ways.

Shape suffixes: B batch, L length, D model width, I inner width, C convolution channels, K taps of the convolution
less one, H heads, P head width, G groups, N state size.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.dispatch import ReferenceScan, SelectiveScan
from models.mamba2.kernels.reference import selective_scan_states
from models.mamba2.state import LayerState

# x_BLHP, dt_BLH, A_H, B_BLGN and C_BLGN.
_ScanInputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, or over `groups` equal parts of it."""

    def __init__(self, width: int, eps: float, groups: int = 1) -> None:
        super().__init__()
        self.eps = eps
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normed tensor, in the shape of `x`."""
        if self.groups == 1:
            return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
        parts = x.view(*x.shape[:-1], self.groups, -1)
        return functional.rms_norm(parts, parts.shape[-1:], None, self.eps).flatten(-2) * self.weight


class Mamba2Layer(nn.Module):
    """The Mamba2 mixer (Dao and Gu 2024, "Transformers are SSMs", section 7): sequence in, sequence and state out.

    `in_proj` gives z, x, B, C and dt; x, B and C pass a causal depthwise convolution and SiLU; the selective scan runs
    per head; `norm(y * silu(z))` (gate before norm, in `n_groups` parts as in `mamba_ssm`) and `out_proj` close it.
    The scan and its state run in float32 under autocast too.
    """

    def __init__(self, config: Mamba2Config, *, scan: SelectiveScan | None = None) -> None:
        super().__init__()
        self.config = config
        self.scan: SelectiveScan = ReferenceScan() if scan is None else scan
        # By way of "meta", so that the global random generator is left alone; `reset_parameters` fills every tensor.
        self.in_proj = nn.Linear(config.d_model, config.in_proj_dim, bias=False, device="meta").to_empty(device="cpu")
        self.conv1d = nn.Conv1d(
            config.conv_dim, config.conv_dim, config.d_conv, groups=config.conv_dim, device="meta"
        ).to_empty(device="cpu")
        self.dt_bias = nn.Parameter(torch.empty(config.n_heads))
        self.A_log = nn.Parameter(torch.empty(config.n_heads))
        self.D = nn.Parameter(torch.empty(config.n_heads))
        self.norm = RMSNorm(config.d_inner, config.norm_eps, config.n_groups)
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=False, device="meta").to_empty(device="cpu")

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the initial parameters as `mamba_ssm` does, from `generator` alone."""
        config = self.config
        nn.init.kaiming_uniform_(self.in_proj.weight, a=math.sqrt(5), generator=generator)
        bound = 1 / math.sqrt(config.d_conv)
        self.conv1d.weight.uniform_(-bound, bound, generator=generator)
        self._conv_bias.uniform_(-bound, bound, generator=generator)
        span = torch.empty_like(self.dt_bias).uniform_(generator=generator)
        dt = torch.exp(math.log(config.dt_min) + span * (math.log(config.dt_max) - math.log(config.dt_min)))
        dt = dt.clamp(min=config.dt_init_floor)
        # The inverse of softplus.
        self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        self.A_log.uniform_(1, 16, generator=generator).log_()
        self.D.fill_(1)
        self.norm.weight.fill_(1)
        nn.init.kaiming_uniform_(self.out_proj.weight, a=math.sqrt(5), generator=generator)
        # One residual branch per layer: keeps the variance of the stream independent of the depth.
        self.out_proj.weight.div_(math.sqrt(config.n_layers))

    def forward(self, x_BLD: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Return y_BLD and the state after the last of L >= 0 steps."""
        length = x_BLD.shape[1]
        if length == 0:
            return x_BLD, state
        z_BLI, padded_BLC, inputs = self._before_scan(x_BLD, state)
        with torch.autocast(x_BLD.device.type, enabled=False):
            conv_BCK = padded_BLC[:, length:].transpose(1, 2).contiguous()
            y_BLHP, ssm_BHPN = self.scan.prefill(*inputs, state.ssm_BHPN, chunk_size=self.config.chunk_size)
        return self._close(inputs[0].flatten(-2), y_BLHP.flatten(-2), z_BLI), LayerState(conv_BCK, ssm_BHPN)

    def states(self, x_BLD: Tensor, state: LayerState, every: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return y_BLD and the two tensors of the states after each `every` of L > 0 steps, along a new first axis.

        Raises:
            ValueError: `every` does not divide the length.
        """
        z_BLI, padded_BLC, inputs = self._before_scan(x_BLD, state)
        with torch.autocast(x_BLD.device.type, enabled=False):
            # Nets that learn run on the reference, and nobody else asks for states on the way.
            y_BLHP, ssm_SBHPN = selective_scan_states(
                *inputs, state.ssm_BHPN, every=every, chunk_size=self.config.chunk_size
            )
            # Behind each `every` steps the last of the taps before them.
            taps_BSCK = padded_BLC[:, every:].unfold(1, state.conv_BCK.shape[-1], every)
        return self._close(inputs[0].flatten(-2), y_BLHP.flatten(-2), z_BLI), taps_BSCK.transpose(0, 1), ssm_SBHPN

    def _before_scan(self, x_BLD: Tensor, state: LayerState) -> tuple[Tensor, Tensor, _ScanInputs]:
        """Return the gate, the inputs of the convolution behind those of the steps before, and those of the scan."""
        z_BLI, xBC_BLC, dt_BLH = self._project(x_BLD)
        with torch.autocast(x_BLD.device.type, enabled=False):
            dtype = state.ssm_BHPN.dtype
            padded_BLC = torch.cat([state.conv_BCK.transpose(1, 2), xBC_BLC.to(dtype)], 1)
            x_BLI, B_BLM, C_BLM = self._split_conv(self._convolve(padded_BLC))
            inputs = (
                self._heads(x_BLI),
                self._step_sizes(dt_BLH.to(dtype)),
                -torch.exp(self.A_log),
                self._groups(B_BLM),
                self._groups(C_BLM),
            )
        return z_BLI, padded_BLC, inputs

    def step(self, x_BD: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Return y_BD and the state after one step; the same numbers as `forward` with L = 1, at less overhead."""
        z_BI, xBC_BC, dt_BH = self._project(x_BD)
        with torch.autocast(x_BD.device.type, enabled=False):
            dtype = state.ssm_BHPN.dtype
            window_BCK1 = torch.cat([state.conv_BCK, xBC_BC.to(dtype)[..., None]], -1)
            conv_BC = functional.silu((window_BCK1 * self.conv1d.weight[:, 0]).sum(-1) + self._conv_bias)
            x_BI, B_BM, C_BM = self._split_conv(conv_BC)
            y_BHP, ssm_BHPN = self.scan.step(
                self._heads(x_BI),
                self._step_sizes(dt_BH.to(dtype)),
                -torch.exp(self.A_log),
                self._groups(B_BM),
                self._groups(C_BM),
                state.ssm_BHPN,
            )
        return self._close(x_BI, y_BHP.flatten(-2), z_BI), LayerState(window_BCK1[..., 1:].contiguous(), ssm_BHPN)

    @property
    def _conv_bias(self) -> Tensor:
        assert self.conv1d.bias is not None
        return self.conv1d.bias

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        z, xBC, dt = torch.split(self.in_proj(x), [config.d_inner, config.conv_dim, config.n_heads], -1)
        return z, xBC, dt

    def _convolve(self, padded_BLC: Tensor) -> Tensor:
        """Causal depthwise convolution and SiLU; `padded_BLC` begins with the tail of the steps before."""
        # As a convolution of images of height 1: torch then keeps channels last, about ten times as fast on a CPU.
        conv_BCHL = functional.conv2d(
            padded_BLC.transpose(1, 2)[:, :, None],
            self.conv1d.weight[:, :, None],
            self._conv_bias,
            groups=self.config.conv_dim,
        )
        return functional.silu(conv_BCHL[:, :, 0].transpose(1, 2))

    def _split_conv(self, conv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        maps = config.n_groups * config.d_state
        x, B, C = torch.split(conv, [config.d_inner, maps, maps], -1)
        return x, B, C

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.config.n_heads, self.config.headdim)

    def _groups(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.config.n_groups, self.config.d_state)

    def _step_sizes(self, dt: Tensor) -> Tensor:
        dt = functional.softplus(dt + self.dt_bias)
        low, high = self.config.dt_limit
        return dt if low == 0 and high == math.inf else dt.clamp(low, high)

    def _close(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Add the skip connection D x, gate, norm and project out."""
        skip_I = self.D.repeat_interleave(self.config.headdim)
        gated = torch.addcmul(y, x, skip_I) * functional.silu(z)
        out: Tensor = self.out_proj(self.norm(gated))
        return out
