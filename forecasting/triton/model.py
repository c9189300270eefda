"""A forecaster in Triton's Python backend. `graphtide export` puts this file beside the weights; Triton runs it there.

Tensors come and go by DLPack: Triton's own conversion to NumPy is bound to the NumPy that it was built with.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as triton
from torch.utils.dlpack import from_dlpack

from forecasting.training import forecaster_of
from forecasting.triton.sequences import Sequences
from infra.errors import GraphtideError
from models import checkpoint


class TritonPythonModel:
    """What Triton makes for each instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights that lie beside this file."""
        # Instances are the unit of parallel work.
        torch.set_num_threads(1)
        found = checkpoint.load(Path(__file__).parent)
        if found is None:
            raise triton.TritonModelException(f"there is no checkpoint beside {__file__}")
        parameters = json.loads(args["model_config"])["parameters"]
        self._sequences = Sequences(forecaster_of(found), most=int(parameters["max_sequences"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; one that is wrong gets an error and harms no other."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            sequence = _numbers(request, "CORRID")[0]
            if _numbers(request, "START")[0]:
                begins = _numbers(request, "BEGINS", [])
                if len(begins) != 2:
                    message = "the first request of a sequence needs BEGINS: [step, start] in microseconds"
                    return triton.InferenceResponse(error=triton.TritonError(message))
                self._sequences.begin(sequence, *begins)
            values = _tensor(request, "VALUES").numpy()
            seed = _numbers(request, "SEED", [0])[0]
            next_us, mean, quantiles = self._sequences.answer(sequence, values, _numbers(request, "HORIZON")[0], seed)
            if _numbers(request, "END")[0]:
                self._sequences.end(sequence)
        except GraphtideError as error:
            return triton.InferenceResponse(error=triton.TritonError(str(error)))
        named = {"BEGIN": np.array([next_us], dtype=np.int64), "MEAN": mean, "QUANTILES": quantiles}
        return triton.InferenceResponse(
            [triton.Tensor.from_dlpack(name, torch.from_numpy(array)) for name, array in named.items()]
        )


def _tensor(request: Any, name: str) -> torch.Tensor:
    found = triton.get_input_tensor_by_name(request, name)
    tensor: torch.Tensor = from_dlpack(found.to_dlpack())
    return tensor


def _numbers(request: Any, name: str, default: list[int] | None = None) -> list[int]:
    if default is not None and triton.get_input_tensor_by_name(request, name) is None:
        return default
    return [int(value) for value in _tensor(request, name).flatten()]
