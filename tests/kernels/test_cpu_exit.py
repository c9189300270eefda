"""A process that ends while one of its daemon threads is inside a kernel ends as any other."""

import subprocess
import sys
from pathlib import Path

from models.mamba2.kernels.cpu.backend import CpuBackend

# Only kernels are called in the thread: operations of torch abort a process that ends before Python 3.14.
ENDING = """
import threading
import time

import numpy as np
import torch

from models.mamba2.kernels.cpu.backend import CpuBackend
from models.mamba2.state import Mamba2State
from tests.kernels.stacks import PLAIN, make_weights

stack = CpuBackend().pack(make_weights(PLAIN))
inputs = torch.zeros(1, 50, 5)
session = stack._session(stack._threads.call(1, False), inputs, Mamba2State.zeros(PLAIN, 1))
begun = threading.Event()

def roll_out():
    known, outputs = inputs.numpy(), np.zeros((1, 50, 3), np.float32)
    while True:
        session.advance(known, outputs, 0, 50, False)
        begun.set()

class Ending:
    def __del__(self, sleep=time.sleep):
        # The interpreter ends already, and lets the thread come back from its kernel.
        sleep(0.2)

ending = Ending()
threading.Thread(target=roll_out, daemon=True).start()
begun.wait()
print("ends")
"""


def test_a_daemon_thread_in_a_kernel_does_not_abort_the_end_of_its_process(require) -> None:
    reason = CpuBackend().unavailable()
    require("cpu-kernels", reason is None, str(reason))
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", ENDING], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "ends\n"), ran.stderr
