"""The kernels for AMX with the tiles emulated: no processor that has them has run these yet."""

from pathlib import Path

import pytest
import torch

from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.contract import PRECISIONS
from models.mamba2.kernels.cpu import backend
from models.mamba2.kernels.cpu.backend import ISA_VARIABLE, CpuBackend
from models.mamba2.kernels.torch_backend import ReferenceBackend
from tests.kernels.elsewhere import backend_elsewhere, build
from tests.kernels.test_cpu_backend import (
    RELATIVE,
    RELATIVE_INTEGERS,
    assert_close,
    assert_same_bits,
    assert_states_close,
    make_inputs,
    make_state,
    make_weights,
)
from tests.rounding import RoundingReference

ISA = "avx512_amx"
# As in models/mamba2/kernels/cpu/CMakeLists.txt, but for the tiles.
FLAGS = [
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mavx512vnni", "-mavx512bf16"),
    *("-Wno-uninitialized", "-Wno-maybe-uninitialized"),
    '-DGRAPHTIDE_TILES="amx_emulated.hpp"',
    "-DGRAPHTIDE_ELSEWHERE_KERNELS=graphtide::avx512_amx_kernels",
]
# Columns that are and are not a multiple of the 32 of a tile, last panels of one to four units.
CONFIGS = {
    "halves": Mamba2Config(d_model=48, n_layers=2, d_state=16, headdim=24),
    "odd": Mamba2Config(d_model=14, n_layers=2, d_state=3, headdim=7, n_groups=2, d_conv=3),
    "whole": Mamba2Config(d_model=64, n_layers=1, d_state=32, headdim=64),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory, compiler, require):
    require("cpu-kernels", backend._IMPORT_ERROR is None, "the compiled part is missing, which tells the padded sizes")
    from models.mamba2.kernels.cpu import _native  # noqa: PLC0415 - only where it is compiled

    known = "avx512_bf16" in _native.usable_kernels()
    require("cpu-isa", known, "this processor has no avx512_bf16, which the rest of these kernels is made of")
    return build(
        compiler, tmp_path_factory.mktemp("amx"), ["kernels_avx512_amx"], [*FLAGS, f"-I{Path(__file__).parent}"]
    )


@pytest.fixture
def amx(program):
    """Return the backend with the kernels for AMX below it."""
    with backend_elsewhere([program], ISA) as found:
        yield found


@pytest.mark.parametrize("feeds_back", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("batch", [1, 15, 40])
@pytest.mark.parametrize("name", CONFIGS)
def test_like_torch_with_the_same_rounding(amx, name, batch, feeds_back):
    weights = make_weights(CONFIGS[name], 3, 7, feeds_back)
    ours, theirs = amx.pack(weights, "bf16"), RoundingReference().pack(weights, "bf16")
    assert ours.isa == ISA
    inputs, state = make_inputs(weights, batch, 19), make_state(CONFIGS[name], batch)
    previous = torch.randn(batch, 7) if feeds_back else None
    for got, expected in (
        (ours.rollout(inputs, state, previous_BR=previous), theirs.rollout(inputs, state, previous_BR=previous)),
        (ours.prefill(inputs, state), theirs.prefill(inputs, state)),
    ):
        assert_close(got[0], expected[0], RELATIVE["bf16"])
        assert_states_close(got[1], expected[1], RELATIVE["bf16"])


def test_bf16_is_that_of_torch(amx):
    """Nothing but the rounding is lost: of few activations, none lies between two numbers."""
    config = Mamba2Config(d_model=8, n_layers=1, d_state=4, headdim=8)
    weights = make_weights(config, 3, 2, False)
    inputs, state = make_inputs(weights, 2, 4), make_state(config, 2)
    got, expected = (
        amx.pack(weights, "bf16").prefill(inputs, state),
        RoundingReference().pack(weights, "bf16").prefill(inputs, state),
    )
    assert_close(got[0], expected[0], 1e-5)
    assert_states_close(got[1], expected[1], 1e-5)


@pytest.mark.parametrize("feeds_back", [False, True], ids=["open", "closed"])
def test_a_series_gives_the_same_bits_alone_and_among_others(amx, feeds_back):
    weights = make_weights(CONFIGS["halves"], 3, 5, feeds_back)
    stack = amx.pack(weights, "bf16")
    inputs, state = make_inputs(weights, 37, 9), make_state(CONFIGS["halves"], 37)
    for call in (stack.rollout, stack.prefill):
        outputs, after = call(inputs, state)
        for row in (0, 16, 36):
            alone = call(inputs[row : row + 1], state.select([row]))
            assert_same_bits((outputs[row : row + 1], after.select([row])), alone)


@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "bf16"])
def test_other_precisions_use_no_tile(amx, precision):
    weights = make_weights(CONFIGS["halves"], 3, 5, True)
    inputs, state = make_inputs(weights, 3, 9), make_state(CONFIGS["halves"], 3)
    got = amx.pack(weights, precision).rollout(inputs, state)
    expected = ReferenceBackend().pack(weights, precision).rollout(inputs, state)
    assert_close(got[0], expected[0], RELATIVE_INTEGERS if precision == "int8" else RELATIVE[precision])


@pytest.mark.usefixtures("program")
def test_it_is_never_chosen_unasked(monkeypatch):
    monkeypatch.delenv(ISA_VARIABLE, raising=False)
    weights = make_weights(CONFIGS["odd"], 1, 1, False)
    assert CpuBackend().pack(weights, "bf16").isa != ISA
