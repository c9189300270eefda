// One Mamba2 block over a few rows, as in models/mamba2/layer.py. Nothing here mixes rows of different series, and what
// is computed for a row does not depend on the rows beside it.
#pragma once

namespace graphtide::GRAPHTIDE_ISA {

// e^x for x in [-87, 88], clamped to it, to about one unit in the last place (Cephes, expf).
inline Unit exponential(Unit x) {
    x = minimum(maximum(x, broadcast(-87.0f)), broadcast(88.0f));
    const Unit n = round_to_even(multiply(x, broadcast(1.44269504088896341f)));
    Unit r = multiply_add(n, broadcast(-0.693359375f), x);
    r = multiply_add(n, broadcast(2.12194440e-4f), r);
    Unit p = broadcast(1.9875691500e-4f);
    p = multiply_add(p, r, broadcast(1.3981999507e-3f));
    p = multiply_add(p, r, broadcast(8.3334519073e-3f));
    p = multiply_add(p, r, broadcast(4.1665795894e-2f));
    p = multiply_add(p, r, broadcast(1.6666665459e-1f));
    p = multiply_add(p, r, broadcast(5.0000001201e-1f));
    p = multiply_add(p, multiply(r, r), add(r, broadcast(1.0f)));
    return scale_by_power(p, n);
}

// x / (1 + e^-x); the clamp keeps the reciprocal a normal number.
inline Unit silu(Unit x) {
    const Unit power = exponential(minimum(subtract(zero(), x), broadcast(80.0f)));
    return multiply(x, reciprocal(add(broadcast(1.0f), power)));
}

// log(1 + e^x) = max(x, 0) + log1p(u) with u = e^-|x| in (0, 1], and log1p(u) = 2 atanh(u / (2 + u)) as its power series.
inline Unit softplus(Unit x) {
    const Unit u = exponential(subtract(zero(), absolute(x)));
    const Unit s = multiply(u, reciprocal(add(u, broadcast(2.0f))));
    const Unit square = multiply(s, s);
    Unit p = broadcast(1.0f / 17);
    p = multiply_add(p, square, broadcast(1.0f / 15));
    p = multiply_add(p, square, broadcast(1.0f / 13));
    p = multiply_add(p, square, broadcast(1.0f / 11));
    p = multiply_add(p, square, broadcast(1.0f / 9));
    p = multiply_add(p, square, broadcast(1.0f / 7));
    p = multiply_add(p, square, broadcast(1.0f / 5));
    p = multiply_add(p, square, broadcast(1.0f / 3));
    const Unit log1p = multiply(multiply_add(multiply(p, square), s, s), broadcast(2.0f));
    return add(maximum(x, zero()), log1p);
}

// 1 / rms(x); `count` of the `width` values are not padding.
inline float inverse_rms(const float* x, int width, int count, float epsilon) {
    Unit squares = zero();
    for (int i = 0; i < width; i += kUnit) {
        const Unit a = load(x + i);
        squares = multiply_add(a, a, squares);
    }
    return 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(count) + epsilon);
}

// y = x / rms(x)
inline void normalise(const float* x, float* y, int width, int count, float epsilon) {
    const Unit factor = broadcast(inverse_rms(x, width, count, epsilon));
    for (int i = 0; i < width; i += kUnit) store(y + i, multiply(load(x + i), factor));
}

// The causal convolution and SiLU, in place; the ring keeps the raw inputs of the last `d_conv` steps.
inline void convolve(const Sizes& sizes, const Layer& layer, float* ring, int slot, float* x) {
    const int width = sizes.conv, taps = sizes.d_conv;
    float* newest = ring + static_cast<long>(slot) * width;
    const float* weight = layer.conv_weight + static_cast<long>(taps - 1) * width;
    if (taps == 4) {
        const float* before = ring + static_cast<long>((slot + 3) & 3) * width;
        const float* second = ring + static_cast<long>((slot + 2) & 3) * width;
        const float* oldest = ring + static_cast<long>((slot + 1) & 3) * width;
        for (int i = 0; i < width; i += kUnit) {
            const Unit input = load(x + i);
            store(newest + i, input);
            Unit total = multiply_add(input, load(weight + i), load(layer.conv_bias + i));
            total = multiply_add(load(before + i), load(weight - width + i), total);
            total = multiply_add(load(second + i), load(weight - 2 * width + i), total);
            total = multiply_add(load(oldest + i), load(weight - 3 * width + i), total);
            store(x + i, silu(total));
        }
        return;
    }
    for (int i = 0; i < width; i += kUnit) {
        const Unit input = load(x + i);
        store(newest + i, input);
        Unit total = multiply_add(input, load(weight + i), load(layer.conv_bias + i));
        for (int back = 1; back < taps; ++back) {
            const int from = slot >= back ? slot - back : slot - back + taps;
            const Unit past = load(ring + static_cast<long>(from) * width + i);
            total = multiply_add(past, load(weight - static_cast<long>(back) * width + i), total);
        }
        store(x + i, silu(total));
    }
}

// One step of the recurrence for kUnits units of the lanes of a head: state [d_state][lanes]. Meanwhile the state that comes
// after is fetched from `next_state` if kFetch: those of many series lie in the third cache, whose lines come too late else.
template <int kUnits, bool kFetch>
inline void scan_units(
    float* state, const float* next_state, int d_state, int lanes, const float* B, const float* C, Unit step, Unit decay,
    Unit skip, const float* x, const float* z, float* y
) {
    Unit input[kUnits], output[kUnits];
#pragma GCC unroll 8
    for (int u = 0; u < kUnits; ++u) {
        const Unit a = load(x + u * kUnit);
        input[u] = multiply(a, step);
        output[u] = multiply(a, skip);
    }
    for (int n = 0; n < d_state; ++n) {
        const Unit b = broadcast(B[n]), c = broadcast(C[n]);
        float* at = state + static_cast<long>(n) * lanes;
#pragma GCC unroll 8
        for (int u = 0; u < kUnits; ++u) {
            if constexpr (kFetch) fetch(next_state + static_cast<long>(n) * lanes + u * kUnit);
            const Unit next = multiply_add(load(at + u * kUnit), decay, multiply(b, input[u]));
            store(at + u * kUnit, next);
            output[u] = multiply_add(next, c, output[u]);
        }
    }
#pragma GCC unroll 8
    for (int u = 0; u < kUnits; ++u) store(y + u * kUnit, multiply(output[u], silu(load(z + u * kUnit))));
}

template <int kUnits, bool kFetch>
inline void scan_head(
    float* state, const float* next_state, int d_state, int lanes, int lane, const float* B, const float* C, Unit step,
    Unit decay, Unit skip, const float* x, const float* z, float* y
) {
    for (; lane + kUnits * kUnit <= lanes; lane += kUnits * kUnit) {
        scan_units<kUnits, kFetch>(
            state + lane, next_state + lane, d_state, lanes, B, C, step, decay, skip, x + lane, z + lane, y + lane
        );
    }
    if constexpr (kUnits > 1) {
        if (lane < lanes) {
            scan_head<kUnits / 2, kFetch>(state, next_state, d_state, lanes, lane, B, C, step, decay, skip, x, z, y);
        }
    }
}

// The recurrence and its gate for rows `first` to `first + count`, kUnits units of a head at a time; kFetch where each row
// has a state of its own.
template <int kUnits, bool kFetch>
inline void scan_rows(
    const Sizes& sizes, const Layer& layer, int index, const Workspace& workspace, int first, int count
) {
    const Row* rows = workspace.rows + first;
    const long ssm_at = static_cast<long>(index) * sizes.layer_state + static_cast<long>(sizes.d_conv) * sizes.conv;
    const int heads_per_group = sizes.n_heads / sizes.n_groups;
    for (int head = 0; head < sizes.n_heads; ++head) {
        const long lane = static_cast<long>(head) * sizes.lanes;
        const long state_at = ssm_at + lane * sizes.d_state;
        const long b_at = 2L * sizes.inner + static_cast<long>(head / heads_per_group) * sizes.states;
        const long c_at = b_at + static_cast<long>(sizes.n_groups) * sizes.states;
        for (int r = 0; r < count; ++r) {
            const float* projected = workspace.projected + r * workspace.projected_stride;
            // After the last row comes the next head of the first one; what lies behind the last head may be fetched in vain.
            const float* next_state = r + 1 < count
                ? rows[r + 1].state + state_at
                : rows[0].state + state_at + static_cast<long>(sizes.lanes) * sizes.d_state;
            scan_head<kUnits, kFetch>(
                rows[r].state + state_at, next_state, sizes.d_state, sizes.lanes, 0, projected + b_at, projected + c_at,
                broadcast(workspace.step_sizes[r * sizes.dt + head]), broadcast(workspace.decays[r * sizes.dt + head]),
                broadcast(layer.skip[head]), projected + sizes.inner + lane, projected + lane,
                workspace.gated + r * workspace.gated_stride + lane
            );
        }
    }
}

// What in_proj makes of the normed rows `first` to `first + count` of the hidden states, and meanwhile what is `coming`.
inline void project_in(const Model& model, int index, Workspace& workspace, int first, int count, Coming* coming) {
    const Sizes& sizes = model.sizes;
    const Matrix& in_proj = model.layers[index].in_proj;
    const float* hidden = workspace.hidden + first * workspace.hidden_stride;
    if (index == 0 && sizes.opened) {
        // The norm is but a factor: it comes before the product, which would overflow where what it norms is large.
        float* opening = workspace.opening + static_cast<long>(first) * sizes.opened;
        for (int r = 0; r < count; ++r) {
            const float* row = hidden + r * workspace.hidden_stride;
            const float factor = inverse_rms(row, sizes.width, sizes.d_model, sizes.norm_eps);
            for (int i = 0; i < sizes.opened; ++i) opening[r * sizes.opened + i] *= factor;
        }
        multiply_rows(
            in_proj, opening, sizes.opened, workspace.projected, workspace.projected_stride, count, workspace, coming
        );
        return;
    }
    for (int r = 0; r < count; ++r) {
        normalise(
            hidden + r * workspace.hidden_stride, workspace.normed + r * workspace.normed_stride, sizes.width,
            sizes.d_model, sizes.norm_eps
        );
    }
    project_rows(
        in_proj, workspace.normed, workspace.normed_stride, workspace.projected, workspace.projected_stride, count,
        workspace, coming
    );
}

// hidden += block(hidden) for rows `first` to `first + count` of the workspace.
inline void run_layer(const Model& model, int index, Workspace& workspace, int first, int count) {
    const Sizes& sizes = model.sizes;
    const Layer& layer = model.layers[index];
    const Row* rows = workspace.rows + first;
    float* hidden = workspace.hidden + first * workspace.hidden_stride;
    const long projected_stride = workspace.projected_stride, gated_stride = workspace.gated_stride;
    const bool own_states = rows[0].state != rows[count - 1].state;
    Coming coming{rows, count, static_cast<long>(index) * sizes.layer_state, 0};
    project_in(model, index, workspace, first, count, own_states ? &coming : nullptr);
    for (int r = 0; r < count; ++r) {
        float* projected = workspace.projected + r * projected_stride;
        // Step sizes before the convolution, which hides their long chain of dependent operations.
        const float* dt = projected + sizes.inner + sizes.conv;
        for (int i = 0; i < sizes.dt; i += kUnit) {
            Unit step = softplus(add(load(dt + i), load(layer.dt_bias + i)));
            step = minimum(maximum(step, broadcast(sizes.dt_low)), broadcast(sizes.dt_high));
            store(workspace.step_sizes + r * sizes.dt + i, step);
            store(workspace.decays + r * sizes.dt + i, exponential(multiply(step, load(layer.rate + i))));
        }
        convolve(
            sizes, layer, rows[r].state + static_cast<long>(index) * sizes.layer_state, rows[r].slot,
            projected + sizes.inner
        );
    }
    if (own_states) {
        scan_rows<kScanUnits, true>(sizes, layer, index, workspace, first, count);
    } else if (count > 1) {
        scan_rows<kScanUnits, false>(sizes, layer, index, workspace, first, count);
    } else {
        scan_rows<kSingleScanUnits, false>(sizes, layer, index, workspace, first, count);
    }
    const int group_width = sizes.inner / sizes.n_groups;
    const int group_count = sizes.n_heads / sizes.n_groups * sizes.headdim;
    for (int r = 0; r < count; ++r) {
        for (int group = 0; group < sizes.n_groups; ++group) {
            float* gated = workspace.gated + r * gated_stride + static_cast<long>(group) * group_width;
            normalise(gated, gated, group_width, group_count, sizes.norm_eps);
        }
    }
    // What in_proj gave is used up: its rows take the result.
    project_rows(
        layer.out_proj, workspace.gated, gated_stride, workspace.projected, projected_stride, count, workspace
    );
    for (int r = 0; r < count; ++r) {
        float* to = hidden + r * workspace.hidden_stride;
        const float* from = workspace.projected + r * projected_stride;
        for (int i = 0; i < sizes.width; i += kUnit) store(to + i, add(load(to + i), load(from + i)));
    }
}

}  // namespace graphtide::GRAPHTIDE_ISA
