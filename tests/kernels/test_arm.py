"""The CPU kernels on Arm: cross-compiled, run by an emulator of a 64-bit Arm processor, held to torch on this one."""

import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.contract import PRECISIONS
from models.mamba2.kernels.cpu import backend
from models.mamba2.kernels.torch_backend import ReferenceBackend
from models.mamba2.state import Mamba2State
from tests.kernels.elsewhere import backend_elsewhere, build
from tests.kernels.test_cpu_backend import (
    RELATIVE,
    assert_close,
    assert_same_bits,
    assert_states_close,
    make_inputs,
    make_state,
    make_weights,
)
from tests.rounding import RoundingReference

ROOT = Path(__file__).parents[2]
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
FOLDERS = ("models/mamba2/kernels/cpu", "stream/native")
# No whole unit of 16 and several panels; a single group and several; no input and a wide head.
CONFIGS = {
    "plain": (Mamba2Config(d_model=48, n_layers=2, d_state=16, headdim=24), 3, 7),
    "odd": (Mamba2Config(d_model=14, n_layers=2, d_state=3, headdim=7, n_groups=2, d_conv=3), 0, 1),
    "wide": (Mamba2Config(d_model=80, n_layers=1, d_state=20, headdim=80, dt_limit=(0.002, 0.05)), 5, 70),
}


@pytest.fixture(scope="module", autouse=True)
def tools(require):
    for name in (COMPILER, EMULATOR):
        require("arm", shutil.which(name) is not None, f"there is no {name} (Debian: g++-aarch64-linux-gnu, qemu-user)")
    require("cpu-kernels", backend._IMPORT_ERROR is None, "the compiled part is missing, which tells the padded sizes")


@pytest.fixture(scope="module")
def program(tmp_path_factory, tools):
    # Static, so that the emulator needs no library of that processor.
    return build(COMPILER, tmp_path_factory.mktemp("arm"), ["dispatch", "kernels_portable"], ["-static"])


@pytest.fixture
def arm(program):
    """Return the backend with the kernels of an Arm processor below it."""
    with backend_elsewhere([EMULATOR, program], "portable") as found:
        yield found


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_sources_compile_without_a_warning(folder):
    """All but the instruction sets of x86-64 and the bindings, which want the headers of a Python for Arm."""
    units = [
        unit for unit in sorted((ROOT / folder).glob("*.cpp")) if unit.stem != "bindings" and "avx" not in unit.stem
    ]
    assert units
    subprocess.run([COMPILER, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *units], check=True)


@pytest.mark.parametrize("feeds_back", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_like_torch(arm, name, precision, feeds_back):
    config, n_inputs, n_outputs = CONFIGS[name]
    weights = make_weights(config, n_inputs, n_outputs, feeds_back)
    ours = arm.pack(weights, precision)
    theirs = RoundingReference().pack(weights, precision)
    inputs, state = make_inputs(weights, 3, 17), make_state(config, 3)
    previous = torch.randn(3, n_outputs) if feeds_back else None
    for got, expected in (
        (ours.rollout(inputs, state, previous_BR=previous, chunk_steps=5),
         theirs.rollout(inputs, state, previous_BR=previous)),
        (ours.prefill(inputs, state), theirs.prefill(inputs, state)),
    ):  # fmt: skip
        assert_close(got[0], expected[0], RELATIVE[precision])
        assert_states_close(got[1], expected[1], RELATIVE[precision])


def test_thousand_closed_steps_stay_with_torch(arm):
    config = Mamba2Config(d_model=16, n_layers=1, d_state=8, headdim=16)
    weights = make_weights(config, 2, 3, True)
    inputs, state = make_inputs(weights, 1, 1000), Mamba2State.zeros(config, 1)
    got, expected = (one.pack(weights).rollout(inputs, state) for one in (arm, ReferenceBackend()))
    assert_close(got[0], expected[0], 1e-5)
    assert_states_close(got[1], expected[1], 1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_series_gives_the_same_bits_alone_and_among_others(arm, precision):
    config, n_inputs, n_outputs = CONFIGS["odd"]
    weights = make_weights(config, n_inputs, n_outputs, True)
    stack = arm.pack(weights, precision)
    inputs, state = make_inputs(weights, 13, 9), make_state(config, 13)
    outputs, after = stack.rollout(inputs, state)
    for row in (0, 6, 12):
        alone = stack.rollout(inputs[row : row + 1], state.select([row]))
        assert_same_bits((outputs[row : row + 1], after.select([row])), alone)


def test_tiny_numbers_count_as_zero_within_a_call_and_not_after_it(arm):
    config = Mamba2Config(d_model=16, n_layers=1, d_state=4, headdim=16)
    weights = make_weights(config, 1, 1, False)
    # Nothing enters the state, which only fades.
    for name in ("weight", "bias"):
        weights.core[f"layers.0.mixer.conv1d.{name}"].zero_()
    stack = arm.pack(weights)
    inputs = torch.zeros(1, 1, 1)
    faded = Mamba2State.zeros(config, 1).map(lambda tensor: torch.full_like(tensor, 1e-40))
    assert not stack.prefill(inputs, faded)[1].layers[0].ssm_BHPN.any()
    session = stack._session(stack._threads.call(1, False), inputs, faded)
    assert math.isclose(session.tiny(), 1e-40, rel_tol=1e-3)
