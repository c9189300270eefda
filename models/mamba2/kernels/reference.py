"""The selective scan of Mamba2 in plain torch: the reference that every other backend is compared with.

The recurrence of one head, with `a_t = exp(dt_t A)`:

    s_t = a_t s_{t-1} + dt_t x_t B_t^T        y_t = s_t C_t

Shape suffixes: B batch, L length, H heads, P head width, G groups of R heads, N state size; inside the scan the length
is cut into S chunks of Q steps.
"""

import torch
from torch import Tensor

# Of a decay, which is 0 in any format far above it.
_LOWEST_LOG = -1e30


def selective_scan(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    state_BHPN: Tensor,
    *,
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence over a sequence of any length, as matrix products within chunks and a short loop over them.

    The block decomposition of state-space duality (Dao and Gu 2024, "Transformers are SSMs", listing 1), with an
    initial state. The last chunk is filled up with steps of dt = 0, which decay nothing and add nothing.

    Args:
        x_BLHP: inputs.
        dt_BLH: step sizes, >= 0 (after bias, softplus and clamp).
        A_H: decay rates, < 0.
        B_BLGN, C_BLGN: input and output maps; head h belongs to group `h // (H / G)`.
        state_BHPN: the state before the first step.
        chunk_size: longest chunk.

    Returns:
        y_BLHP and the state after the last step; both carry gradients to every input.
    """
    length = x_BLHP.shape[1]
    if length == 0:
        return x_BLHP, state_BHPN
    chunks = -(-length // chunk_size)
    # Equal chunks leave the fewest empty steps in the last one.
    y_BLHP, after = _scan(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, state_BHPN, steps=-(-length // chunks))
    return y_BLHP, after[-1]


def selective_scan_states(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    state_BHPN: Tensor,
    *,
    every: int,
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence as `selective_scan` does, and tell the states on the way.

    Args:
        x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, state_BHPN, chunk_size: those of `selective_scan`; L > 0.
        every: how many steps lie between two states, a divisor of L. Chunks are as long as divides it.

    Returns:
        y_BLHP and the states [L / every, B, H, P, N] after each `every` steps.

    Raises:
        ValueError: `every` does not divide the length.
    """
    length = x_BLHP.shape[1]
    if length == 0 or length % every:
        raise ValueError(f"{every} steps do not divide a sequence of {length}")
    parts = next(parts for parts in range(-(-every // chunk_size), every + 1) if every % parts == 0)
    y_BLHP, after = _scan(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, state_BHPN, steps=every // parts)
    return y_BLHP, torch.stack(after[parts - 1 :: parts])


def _scan(
    x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, state_BHPN: Tensor, *, steps: int
) -> tuple[Tensor, list[Tensor]]:
    """Return y_BLHP and the states after each chunk of `steps` steps, the last of which may be shorter."""
    batch, length, heads, width = x_BLHP.shape
    groups, size = B_BLGN.shape[2:]
    chunks = -(-length // steps)
    missing = chunks * steps - length
    per_group = heads // groups

    x_BSQHP = _cut(x_BLHP * dt_BLH[..., None], chunks, missing)
    B_BSGQN = _cut(B_BLGN, chunks, missing).transpose(2, 3)
    C_BSGQN = _cut(C_BLGN, chunks, missing).transpose(2, 3)
    # Nothing is left either way, and sums over a chunk stay finite: zero times infinity is no number.
    log_BSHQ = _cut((dt_BLH * A_H).clamp(min=_LOWEST_LOG), chunks, missing).transpose(2, 3)
    decay_BSHQQ = _segment_sums(log_BSHQ).exp()

    # Within a chunk: (C B^T, masked by causality and decay) x.
    scores_BSGQQ = (C_BSGQN @ B_BSGQN.transpose(-1, -2)).tril()
    decay_BSGRQQ = decay_BSHQQ.view(batch, chunks, groups, per_group, steps, steps)
    mixer_BSHQQ = (decay_BSGRQQ * scores_BSGQQ[:, :, :, None]).flatten(2, 3)
    within_BSHQP = mixer_BSHQQ @ x_BSQHP.transpose(2, 3)

    # What each chunk adds to the state at its end, then the states at the starts of all chunks.
    to_end_BSQH = decay_BSHQQ[..., -1, :].transpose(2, 3)
    kept_BSQHP = (x_BSQHP * to_end_BSQH[..., None]).view(batch, chunks, steps, groups, per_group * width)
    added_BSHPN = (kept_BSQHP.permute(0, 1, 3, 4, 2) @ B_BSGQN).view(batch, chunks, heads, width, size)
    from_start_BSQH = log_BSHQ.cumsum(-1).exp().transpose(2, 3)
    edges = [state_BHPN]
    for decay_BH, added_BHPN in zip(from_start_BSQH[:, :, -1].unbind(1), added_BSHPN.unbind(1), strict=True):
        edges.append(torch.addcmul(added_BHPN, edges[-1], decay_BH[..., None, None]))
    starts_BSGPN = torch.stack(edges[:-1], 1).view(batch, chunks, groups, per_group * width, size)

    # What the state at the start of a chunk gives to its outputs.
    carried_BSGQP = C_BSGQN @ starts_BSGPN.transpose(-1, -2)
    carried_BSQHP = carried_BSGQP.transpose(2, 3).reshape(batch, chunks, steps, heads, width)
    y_BSQHP = torch.addcmul(within_BSHQP.transpose(2, 3), carried_BSQHP, from_start_BSQH[..., None])
    return y_BSQHP.reshape(batch, chunks * steps, heads, width)[:, :length], edges[1:]


def selective_state_step(
    x_BHP: Tensor, dt_BH: Tensor, A_H: Tensor, B_BGN: Tensor, C_BGN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the recurrence for one step; the arguments are those of `selective_scan` without their length.

    Returns:
        y_BHP and the new state; the given one is not changed.
    """
    batch, heads, width = x_BHP.shape
    groups, size = B_BGN.shape[1:]
    decay_BH = torch.exp(dt_BH * A_H)
    input_BGKI = (x_BHP * dt_BH[..., None]).reshape(batch, groups, -1, 1)
    state_BHPN = torch.addcmul(
        (input_BGKI * B_BGN[:, :, None]).view(batch, heads, width, size), state_BHPN, decay_BH[..., None, None]
    )
    y_BGKI = state_BHPN.view(batch, groups, -1, size) @ C_BGN[..., None]
    return y_BGKI.view(batch, heads, width), state_BHPN


def _cut(tensor_BL: Tensor, chunks: int, missing: int) -> Tensor:
    """Append `missing` zero steps along axis 1 and cut it into `chunks` equal parts."""
    if missing:
        empty = tensor_BL.new_zeros(len(tensor_BL), missing, *tensor_BL.shape[2:])
        tensor_BL = torch.cat([tensor_BL, empty], 1)
    return tensor_BL.reshape(len(tensor_BL), chunks, -1, *tensor_BL.shape[2:])


def _segment_sums(log_Q: Tensor) -> Tensor:
    """Return [..., i, j] = sum of `log_Q` over j < k <= i, and 0 for j >= i.

    A product with triangles of ones instead of a difference of running sums: one huge step size then costs the small
    ones behind it no digits.
    """
    steps = log_Q.shape[-1]
    until_QQ = log_Q.new_ones(steps, steps).tril()
    return (until_QQ * log_Q[..., None, :]) @ until_QQ.tril(-1)
