"""The systems that are measured: each runs one stack, on one thread, behind one small contract.

Imported in worker processes only, some of them in environments of peers. A system that does not know a task raises
ValueError where it is made.
"""

import importlib
import itertools
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from forecasting.bench.stacks import StackSpec
from forecasting.bench.step import HandWrittenStep
from models.mamba2.foreign_config import Layout, config_to
from models.mamba2.foreign_weights import ForeignWeights, weights_to
from models.mamba2.kernels.contract import PackedStack, StackWeights
from models.mamba2.kernels.registry import get_backend
from models.mamba2.state import Mamba2State

Timed = tuple[Tensor, list[float]]


def clock_of(task: str, device: str) -> Callable[[], float]:
    """Return what tells the time, in seconds.

    A prefill on the CPU takes too long to go undisturbed on a busy machine: there the time that the processor spent on
    the process counts, which on an idle machine is the same.
    """
    return time.process_time if task == "prefill" and device == "cpu" else time.perf_counter


class System(Protocol):
    """A stack made ready by one system."""

    def reset(self) -> None:
        """Go back to the state before the first step."""
        ...

    def run(self, inputs_BTF: Tensor, window_steps: int) -> Timed:
        """Run all steps of the inputs.

        Returns:
            Outputs [B, T, R], and the seconds that each window of `window_steps` took. What was left of the last call
            may be gone on from: figures depend on no state.
        """
        ...


class Native:
    """A backend of ours; see `models.mamba2.kernels`. Every call starts from the zero state."""

    def __init__(self, spec: StackSpec, task: str, backend: str, precision: str) -> None:
        weights = spec.weights()
        self.packed: PackedStack = get_backend(backend).pack(weights, precision)
        self._prefill = task == "prefill"
        self._clock = clock_of(task, spec.device)
        self._state = Mamba2State.zeros(weights.config, spec.batch, device=spec.device)

    def reset(self) -> None:
        """See `System`."""

    def run(self, inputs_BTF: Tensor, window_steps: int) -> Timed:
        """See `System`; windows of a rollout are the chunks of one call, the first with what the call itself costs."""
        ends = [self._clock()]

        def tick(_done_steps: int) -> None:
            ends.append(self._clock())

        if self._prefill:
            outputs, _ = self.packed.prefill(inputs_BTF, self._state)
            tick(inputs_BTF.shape[1])
        else:
            outputs, _ = self.packed.rollout(inputs_BTF, self._state, chunk_steps=window_steps, on_chunk=tick)
        return outputs, [end - begin for begin, end in itertools.pairwise(ends)]


class Stepwise:
    """Peers without a rollout of their own: a loop in Python over `step`, and how a prefill is asked for if at all."""

    def __init__(self, spec: StackSpec, task: str) -> None:
        self.spec, self._task = spec, task
        self._clock = clock_of(task, spec.device)
        self._last_BR = torch.zeros(spec.batch, spec.n_outputs, device=spec.device)

    def step(self, known_BF: Tensor, last_BR: Tensor) -> Tensor:
        """Return the outputs of the next step."""
        raise NotImplementedError

    def prefill(self, inputs_BLF: Tensor) -> Tensor:
        """Return the outputs of a whole sequence."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget all states."""
        raise NotImplementedError

    def reset(self) -> None:
        """See `System`."""
        self._last_BR = torch.zeros_like(self._last_BR)
        self.clear()

    def run(self, inputs_BTF: Tensor, window_steps: int) -> Timed:
        """See `System`."""
        seconds = []
        if self._task == "prefill":
            begin = self._now()
            outputs_BTR = self.prefill(inputs_BTF)
            return outputs_BTR, [self._now() - begin]
        steps = inputs_BTF.shape[1]
        outputs_BTR = torch.empty(self.spec.batch, steps, self.spec.n_outputs, device=self.spec.device)
        last_BR = self._last_BR
        for first in range(0, steps, window_steps):
            begin = self._now()
            for step in range(first, min(first + window_steps, steps)):
                last_BR = self.step(inputs_BTF[:, step], last_BR)
                outputs_BTR[:, step] = last_BR
            seconds.append(self._now() - begin)
        self._last_BR = last_BR.clone()
        return outputs_BTR, seconds

    def _now(self) -> float:
        if self.spec.device == "cuda":
            torch.cuda.synchronize()
        return self._clock()


class HandWritten(Stepwise):
    """`step.HandWrittenStep`, compiled by torch if `compiled`."""

    def __init__(self, spec: StackSpec, task: str, *, compiled: bool) -> None:
        super().__init__(spec, task)
        if task == "prefill":
            raise ValueError("a hand-written step has no prefill")
        self._stack = HandWrittenStep(spec.weights(), spec.batch, spec.device)
        self._step: Callable[[Tensor, Tensor], Tensor] = self._stack.step
        if compiled:
            # On a GPU with CUDA graphs; on a CPU calls by way of C++ pay off for batches.
            options: dict[str, Any] = (
                {"triton.cudagraphs": True} if spec.device == "cuda" else {"cpp_wrapper": spec.batch > 1}
            )
            self._step = torch.compile(self._stack.step, dynamic=False, fullgraph=True, options=options)

    def step(self, known_BF: Tensor, last_BR: Tensor) -> Tensor:
        """See `Stepwise`."""
        return self._step(known_BF, last_BR)

    def clear(self) -> None:
        """See `Stepwise`."""
        self._stack.reset()


class _Ends:
    """Embedding and head of a stack, for peers that have only the core."""

    def __init__(self, weights: StackWeights, device: str) -> None:
        self._weight, self._bias = weights.input_weight_DF.to(device), weights.input_bias_D.to(device)
        self._head, self._head_bias = weights.head_weight_RD.to(device), weights.head_bias_R.to(device)
        feedback = weights.feedback_weight_DR
        self._feedback = None if feedback is None else feedback.to(device)

    def embed(self, known: Tensor, last: Tensor | None = None) -> Tensor:
        """Return the input of the core."""
        x = functional.linear(known, self._weight, self._bias)
        return x if self._feedback is None or last is None else x + functional.linear(last, self._feedback)

    def head(self, hidden: Tensor) -> Tensor:
        """Return the outputs of the stack."""
        return functional.linear(hidden, self._head, self._head_bias)


class HuggingFace(Stepwise):
    """`transformers.Mamba2Model` with its cache, on the weights that every other system has."""

    def __init__(self, spec: StackSpec, task: str) -> None:
        super().__init__(spec, task)
        # Imported by name: it stands only in the peer's own environment.
        transformers: Any = importlib.import_module("transformers")
        transformers.logging.set_verbosity_error()
        weights = spec.weights()
        fields = config_to(weights.config, Layout.HUGGINGFACE)
        self._model = transformers.Mamba2Model(transformers.Mamba2Config.from_dict(fields)).eval()
        embedding_VD = torch.zeros(1, spec.d_model)
        self._model.load_state_dict(weights_to(ForeignWeights(weights.core, embedding_VD), Layout.HUGGINGFACE))
        self._model.to(spec.device)
        self._ends = _Ends(weights, spec.device)
        self._cache: Any = None

    def step(self, known_BF: Tensor, last_BR: Tensor) -> Tensor:
        """See `Stepwise`."""
        x_BLD = self._ends.embed(known_BF, last_BR)[:, None]
        answer = self._model(inputs_embeds=x_BLD, cache_params=self._cache, use_cache=True)
        self._cache = answer.cache_params
        return self._ends.head(answer.last_hidden_state[:, 0])

    def prefill(self, inputs_BLF: Tensor) -> Tensor:
        """See `Stepwise`."""
        answer = self._model(inputs_embeds=self._ends.embed(inputs_BLF), use_cache=True)
        return self._ends.head(answer.last_hidden_state)

    def clear(self) -> None:
        """See `Stepwise`."""
        self._cache = None


class MambaSsm(Stepwise):
    """`mamba_ssm`'s own modules and steps, captured into a CUDA graph."""

    def __init__(self, spec: StackSpec, task: str) -> None:
        super().__init__(spec, task)
        if spec.device != "cuda":
            raise ValueError("mamba_ssm runs on GPUs only")
        mamba2: Any = importlib.import_module("mamba_ssm.modules.mamba2")
        weights = spec.weights()
        config = weights.config
        self._norms, self._mixers = [], []
        for index in range(config.n_layers):
            mixer = mamba2.Mamba2(config.d_model, d_state=config.d_state, headdim=config.headdim, layer_idx=index)
            own = f"layers.{index}.mixer."
            mixer.load_state_dict({k.removeprefix(own): t for k, t in weights.core.items() if k.startswith(own)})
            self._mixers.append(mixer.to("cuda").eval())
            self._norms.append(weights.core[f"layers.{index}.norm.weight"].to("cuda"))
        self._norm_f, self._eps = weights.core["norm_f.weight"].to("cuda"), config.norm_eps
        self._ends = _Ends(weights, "cuda")
        self._states = [mixer.allocate_inference_cache(spec.batch, 1) for mixer in self._mixers]
        self._known_BLF = spec.inputs(1).to("cuda")
        self._fed_BLR = torch.zeros(spec.batch, 1, spec.n_outputs, device="cuda")
        aside = torch.cuda.Stream()
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._one_step()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._one_step()

    def step(self, known_BF: Tensor, last_BR: Tensor) -> Tensor:
        """See `Stepwise`."""
        self._known_BLF.copy_(known_BF[:, None])
        self._fed_BLR.copy_(last_BR[:, None])
        self.replay()
        return self._fed_BLR[:, 0]

    def replay(self) -> None:
        """Run the captured step on the inputs of the last one, and on what it gave."""
        self._graph.replay()

    def prefill(self, inputs_BLF: Tensor) -> Tensor:
        """See `Stepwise`."""
        return self._ends.head(self._through(self._ends.embed(inputs_BLF), lambda mixer, _index, x: mixer(x)))

    def clear(self) -> None:
        """See `Stepwise`."""
        for conv, ssm in self._states:
            conv.zero_()
            ssm.zero_()

    def _through(self, x: Tensor, mix: Callable[[Any, int, Tensor], Tensor]) -> Tensor:
        for index, (norm, mixer) in enumerate(zip(self._norms, self._mixers, strict=True)):
            x = x + mix(mixer, index, functional.rms_norm(x, norm.shape, norm, self._eps))
        return functional.rms_norm(x, self._norm_f.shape, self._norm_f, self._eps)

    def _one_step(self) -> None:
        hidden = self._through(
            self._ends.embed(self._known_BLF, self._fed_BLR),
            lambda mixer, index, x: mixer.step(x, *self._states[index])[0],
        )
        self._fed_BLR.copy_(self._ends.head(hidden))


def make_system(name: str, spec: StackSpec, task: str, backend: str, precision: str) -> System:
    """Return the system `name`, made ready.

    Raises:
        ValueError: there is no such system, or it does not know the task.
    """
    match name:
        case "graphtide":
            return Native(spec, task, backend, precision)
        case "torch-reference":
            return Native(spec, task, "reference", precision)
        case "torch-eager" | "torch-compile":
            return HandWritten(spec, task, compiled=name == "torch-compile")
        case "huggingface":
            return HuggingFace(spec, task)
        case "mamba-ssm":
            return MambaSsm(spec, task)
    raise ValueError(f"there is no system {name!r}")
