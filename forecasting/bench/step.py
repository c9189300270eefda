"""One step of a stack written by hand in torch, as an expert would without an extension: a peer, eager or compiled."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.contract import StackWeights


@dataclass(frozen=True, slots=True)
class StepLayer:
    """The tensors of one layer, prepared once: convolution taps without their empty axis, decay rates, skips."""

    norm: Tensor
    in_proj: Tensor
    taps: Tensor
    conv_bias: Tensor
    dt_bias: Tensor
    rate: Tensor
    skip: Tensor
    gated_norm: Tensor
    out_proj: Tensor


class HandWrittenStep:
    """Weights and state of a stack in plain tensors; `step` changes the state in place.

    Args:
        weights: of the stack.
        batch: series at once.
        device: where to run.
    """

    def __init__(self, weights: StackWeights, batch: int, device: str) -> None:
        config = weights.config
        if config.n_groups != 1 or config.dt_limit != (0.0, math.inf):
            raise ValueError("the hand-written step knows one group and no limit of step sizes")
        self.config: Mamba2Config = config

        def at(tensor: Tensor) -> Tensor:
            return tensor.to(device)

        self.layers = []
        for index in range(config.n_layers):
            own = {name: at(weights.core[f"layers.{index}.{name}"]) for name in _NAMES}
            self.layers.append(
                StepLayer(
                    own["norm.weight"],
                    own["mixer.in_proj.weight"],
                    own["mixer.conv1d.weight"][:, 0].contiguous(),
                    own["mixer.conv1d.bias"],
                    own["mixer.dt_bias"],
                    -own["mixer.A_log"].exp(),
                    own["mixer.D"][:, None],
                    own["mixer.norm.weight"],
                    own["mixer.out_proj.weight"],
                )
            )
        self.norm_f = at(weights.core["norm_f.weight"])
        self.input_weight, self.input_bias = at(weights.input_weight_DF), at(weights.input_bias_D)
        self.head_weight, self.head_bias = at(weights.head_weight_RD), at(weights.head_bias_R)
        feedback = weights.feedback_weight_DR
        self.feedback = None if feedback is None else at(feedback)
        shape = (batch, config.conv_dim, config.d_conv - 1)
        self.conv = [torch.zeros(shape, device=device) for _ in self.layers]
        shape_BHPN = (batch, config.n_heads, config.headdim, config.d_state)
        self.ssm = [torch.zeros(shape_BHPN, device=device) for _ in self.layers]

    def reset(self) -> None:
        """Go back to the state before the first step."""
        for tensor in (*self.conv, *self.ssm):
            tensor.zero_()

    def step(self, known_BF: Tensor, last_BR: Tensor) -> Tensor:
        """Return the outputs [B, R] of the next step, from its known inputs and the outputs of the step before."""
        # Where there is nothing to multiply, or one column, no product of matrices is called for.
        x_BD = functional.linear(known_BF, self.input_weight, self.input_bias) if known_BF.shape[1] else self.input_bias
        if self.feedback is not None:
            one = self.feedback.shape[1] == 1
            x_BD = x_BD + (last_BR * self.feedback[:, 0] if one else functional.linear(last_BR, self.feedback))
        eps = self.config.norm_eps
        for layer, conv_BCK, ssm_BHPN in zip(self.layers, self.conv, self.ssm, strict=True):
            normed_BD = functional.rms_norm(x_BD, layer.norm.shape, layer.norm, eps)
            x_BD = x_BD + self._mixer(layer, normed_BD, conv_BCK, ssm_BHPN)
        hidden_BD = functional.rms_norm(x_BD, self.norm_f.shape, self.norm_f, eps)
        return functional.linear(hidden_BD, self.head_weight, self.head_bias)

    def _mixer(self, layer: StepLayer, x_BD: Tensor, conv_BCK: Tensor, ssm_BHPN: Tensor) -> Tensor:
        config = self.config
        z_BI, xBC_BC, dt_BH = functional.linear(x_BD, layer.in_proj).split(
            [config.d_inner, config.conv_dim, config.n_heads], -1
        )
        window_BCK = torch.cat([conv_BCK, xBC_BC[..., None]], -1)
        conv_BCK.copy_(window_BCK[..., 1:])
        xBC_BC = functional.silu((window_BCK * layer.taps).sum(-1) + layer.conv_bias)
        x_BI, B_BN, C_BN = xBC_BC.split([config.d_inner, config.d_state, config.d_state], -1)
        x_BHP = x_BI.view(-1, config.n_heads, config.headdim)
        dt_BH = functional.softplus(dt_BH + layer.dt_bias)
        decay_BH = torch.exp(dt_BH * layer.rate)
        ssm_BHPN.mul_(decay_BH[:, :, None, None]).add_((x_BHP * dt_BH[..., None])[..., None] * B_BN[:, None, None])
        y_BI = torch.matmul(ssm_BHPN.view(-1, config.d_inner, config.d_state), C_BN[..., None])[..., 0]
        gated_BI = (y_BI + (x_BHP * layer.skip).flatten(1)) * functional.silu(z_BI)
        normed_BI = functional.rms_norm(gated_BI, layer.gated_norm.shape, layer.gated_norm, config.norm_eps)
        return functional.linear(normed_BI, layer.out_proj)


_NAMES = (
    "norm.weight",
    "mixer.in_proj.weight",
    "mixer.conv1d.weight",
    "mixer.conv1d.bias",
    "mixer.dt_bias",
    "mixer.A_log",
    "mixer.D",
    "mixer.norm.weight",
    "mixer.out_proj.weight",
)
