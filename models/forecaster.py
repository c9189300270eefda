"""The forecaster: snapshot metrics and calendar in, quantiles of every metric out, a Mamba2 core between.

The core reads one token a step (`models.outlook`): observed tokens while there is history, then tokens of the steps
ahead, which carry no observation but how far ahead they lie. Nothing that was predicted is fed back, so a rollout is
one pass of the scan over known inputs: it cannot feed on its own errors, and its cost and memory a step do not depend
on the horizon. What a token predicts is a residual: quantiles around the seasonal anchor in units of its usual error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infra.errors import ModelError, UsageError
from infra.schema import METRIC_NAMES, QUANTILE_LEVELS, RUNNING_TOTALS
from models.calibration import Calibration, Calibrations
from models.columns import COUNTS, LEVELS, MEDIAN, MODELLED, N_LEVELS, N_MODELLED, TOTALS
from models.constraints import TotalsAccumulator
from models.contract import BLOCK_STEPS, FloatArray, ForecastChunk, PathChunk
from models.features import CausalStatistics
from models.mamba2.config import Mamba2Config
from models.mamba2.core import Mamba2Core
from models.mamba2.kernels.contract import Backend, BackendUnavailableError, StackWeights
from models.mamba2.kernels.registry import get_backend
from models.mamba2.state import Mamba2State
from models.outlook import LEANS, N_FEATURES, N_LEANS
from models.paths import RankStructure, floored_mean
from models.ranks import of_metric
from models.recent_errors import Note, RecentErrors
from models.sample_paths import sample_paths
from models.tokens import Tokens, transform, untransform

N_METRICS = len(METRIC_NAMES)
WHOLE_RAMP = 0.3


@dataclass(frozen=True, slots=True)
class ForecasterConfig:
    """The architecture of a forecaster.

    Attributes:
        d_model, n_layers, d_state, headdim, expand: sizes of the Mamba2 core.
        dropout: share of the core's outputs dropped in training.
        reach_steps: the longest distance ahead that the model is told; beyond it, it stays at what it learned there.
    """

    d_model: int = 64
    n_layers: int = 2
    d_state: int = 16
    headdim: int = 32
    dropout: float = 0.2
    reach_steps: int = 2048
    expand: int = 2

    def core(self) -> Mamba2Config:
        """Return the configuration of the Mamba2 core."""
        return Mamba2Config(
            d_model=self.d_model,
            n_layers=self.n_layers,
            d_state=self.d_state,
            headdim=self.headdim,
            expand=self.expand,
            chunk_size=32,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return asdict(self)


class ForecasterNet(nn.Module):
    """Tokens to residual quantiles.

    Shapes: B batch, L steps, F features, M modelled metrics, Q quantile levels.
    """

    def __init__(self, config: ForecasterConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(N_FEATURES, config.d_model)
        self.core = Mamba2Core(config.core(), seed=seed)
        self.head = nn.Linear(config.d_model, self.n_outputs())
        self.dropout = nn.Dropout(config.dropout)
        self._initialise(torch.Generator().manual_seed(seed))

    def _initialise(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.embed.weight, std=N_FEATURES**-0.5, generator=generator)
        nn.init.zeros_(self.embed.bias)
        nn.init.normal_(self.head.weight, std=0.1 * self.config.d_model**-0.5, generator=generator)
        # The untrained head says: a standard normal around the anchor.
        normal = np.array([NormalDist().inv_cdf(p) for p in QUANTILE_LEVELS])
        gaps = np.diff(normal)
        bias = np.zeros((N_MODELLED, N_LEVELS + N_LEANS))
        bias[:, 1:N_LEVELS] = np.log(np.expm1(gaps))
        with torch.no_grad():
            self.head.bias.copy_(torch.from_numpy(bias.ravel()))

    def forward(
        self, features_BLF: Tensor, state: Mamba2State | None = None, *, checkpoint_blocks: bool = False
    ) -> tuple[Tensor, Mamba2State]:
        """Return residual quantiles [B, L, M, Q], increasing along Q, and the state after the last step."""
        hidden_BLD, after = self.hidden(features_BLF, state, checkpoint_blocks=checkpoint_blocks)
        return self.said(hidden_BLD, features_BLF), after

    def hidden(
        self, features_BLF: Tensor, state: Mamba2State | None = None, *, checkpoint_blocks: bool = False
    ) -> tuple[Tensor, Mamba2State]:
        """Return what the head sees of each step [B, L, D], and the state after the last step."""
        hidden_BLD, after = self._run(features_BLF, state, checkpoint_blocks)
        return self.dropout(hidden_BLD), after

    def said(self, hidden_BLD: Tensor, features_BLF: Tensor) -> Tensor:
        """Return residual quantiles [B, L, M, Q] of what `hidden` returned for the tokens."""
        return self.quantiles(self.head(hidden_BLD), features_BLF)

    def encode(
        self, features_BLF: Tensor, state: Mamba2State | None = None, *, checkpoint_blocks: bool = False
    ) -> Mamba2State:
        """Return the state after the steps of `features_BLF`."""
        return self._run(features_BLF, state, checkpoint_blocks)[1]

    def states(self, features_BLF: Tensor, every: int) -> list[Mamba2State]:
        """Return the states after each `every` of L > 0 steps, a divisor of L, from no step before."""
        return self.core.states(self.embed(features_BLF), every)

    def _run(
        self, features_BLF: Tensor, state: Mamba2State | None, checkpoint_blocks: bool
    ) -> tuple[Tensor, Mamba2State]:
        hidden_BLD, after = self.core(self.embed(features_BLF), state, checkpoint_blocks=checkpoint_blocks)
        return hidden_BLD, after

    @staticmethod
    def n_outputs() -> int:
        """Return how many numbers R the head says a step."""
        return N_MODELLED * (N_LEVELS + N_LEANS)

    @staticmethod
    def quantiles(outputs_BLR: Tensor, features_BLF: Tensor) -> Tensor:
        """Return residual quantiles [B, L, M, Q] from the outputs of the head and the tokens that led to them.

        For each metric the head says a median, the gaps between the quantiles, and by how much the median leans on
        each rival of the anchor and each faded residual, R = M * (Q + leans).
        """
        raw = outputs_BLR.unflatten(-1, (N_MODELLED, N_LEVELS + N_LEANS))
        leans_BLMJ = features_BLF[..., LEANS].unflatten(-1, (N_LEANS, N_MODELLED)).transpose(-1, -2)
        median = raw[..., :1] + (raw[..., N_LEVELS:] * leans_BLMJ).sum(dim=-1, keepdim=True)
        gaps = F.softplus(raw[..., 1:N_LEVELS])
        below, above = gaps[..., :MEDIAN], gaps[..., MEDIAN:]
        lower = median - below.flip(-1).cumsum(-1).flip(-1)
        upper = median + above.cumsum(-1)
        return torch.cat([lower, median, upper], dim=-1)


def to_values(residual_quantiles: FloatArray, tokens: Tokens) -> FloatArray:
    """Return quantiles [L, M, Q] in the units of the metrics from residual quantiles [L, M, Q]."""
    z = tokens.anchor[..., None] + tokens.scale[..., None] * residual_quantiles
    return np.moveaxis(untransform(np.moveaxis(z, -1, -2)), -2, -1)


@contextmanager
def _single_series() -> Iterator[None]:
    """Run without gradients on one thread: the matrices of one series are too small to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def towards_whole(quantiles: FloatArray) -> FloatArray:
    """Return quantiles of counts drawn to the nearest integer, as the quantiles of an integer are integers.

    A ramp of `WHOLE_RAMP` remains between two of them. Rounding would jump there, and a difference in the last bit of
    the input would become a difference of one in the forecast.
    """
    below = np.floor(quantiles)
    return np.asarray(below + np.clip((quantiles - below - 0.5) / WHOLE_RAMP + 0.5, 0.0, 1.0))


@dataclass(frozen=True, slots=True)
class ForecasterState:
    """Where a graph stands; a value.

    Attributes:
        statistics: what its past says.
        core: the state of the Mamba2 core, of a batch of one.
        totals: the last observed totals, in the order of `RUNNING_TOTALS`.
        errors: those of the forecasts made on the way, and how they correct the next ones.
    """

    statistics: CausalStatistics
    core: Mamba2State
    totals: FloatArray
    errors: RecentErrors


class MambaForecaster:
    """The Mamba2 forecaster behind the contract of `models.contract.Model`.

    Args:
        net: trained weights.
        ranks: how errors of the modelled metrics hang together.
        ranks_season: steps of a season where that was measured.
        calibrations: by how much quantiles are moved; not at all if that was not measured.
        follow_errors: whether they are also corrected by the errors of recent forecasts of the same graph.
        name: as it stands in tables.
        backend: what runs the net; the fastest that can run here if None.
        precision: what it runs in, of `kernels.contract.PRECISIONS`.

    Raises:
        UsageError: GRAPHTIDE_BACKEND names a backend that is unknown or cannot run here.
    """

    def __init__(
        self,
        net: ForecasterNet,
        ranks: RankStructure,
        *,
        ranks_season: int,
        calibrations: Calibrations | None = None,
        follow_errors: bool = True,
        name: str = "mamba2",
        backend: Backend | None = None,
        precision: str = "fp32",
    ) -> None:
        # Of the net only its packed form is kept, which is smaller where the precision is.
        self._config = net.config
        weights = StackWeights.from_modules(net.embed, net.core, net.head)
        try:
            self._stack = (backend or get_backend()).pack(weights, precision)
        except BackendUnavailableError as error:
            raise UsageError(str(error), fix="unset it, or see `graphtide doctor` for what can run here") from error
        self._ranks, self._ranks_season = ranks, ranks_season
        self._name = name
        self._calibrations = calibrations or Calibrations({})
        self._follow_errors = follow_errors

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._name

    def calibration(self, step_us: int) -> Calibration:
        """Return how far ahead forecasts of such steps were found to be calibrated, and better than the climate."""
        return self._calibrations.at(step_us)

    def start(self, step_us: int, start_us: int) -> ForecasterState:
        """Return the state before any observation."""
        statistics = CausalStatistics.start(step_us, start_us)
        return ForecasterState(
            statistics=statistics,
            core=Mamba2State.zeros(self._config.core(), 1),
            totals=np.zeros(len(RUNNING_TOTALS)),
            errors=RecentErrors(statistics.season),
        )

    def update(
        self, state: ForecasterState, values: FloatArray, *, earlier: ForecasterState | None = None
    ) -> ForecasterState:
        """Return the state after observing `values` [T, M]; see `models.contract.Model.update` for how they may be cut.

        `earlier` is as there; its notes are taken.

        Raises:
            ModelError: a value is not finite, or the shape is wrong.
        """
        if values.ndim != 2 or values.shape[1] != N_METRICS:
            raise ModelError(f"values have shape {values.shape}, the model needs [T, {N_METRICS}]")
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise ModelError(f"{METRIC_NAMES[column]} of observed step {row} is not finite: {values[row, column]}")
        if len(values) == 0:
            return state
        observed = state.statistics.observed
        marks = state.errors.marks(observed, len(values)) if self._follow_errors else []
        errors, known = state.errors, {} if earlier is None else earlier.errors.by_step()
        for begin in range(0, len(values), BLOCK_STEPS):
            piece = values[begin : begin + BLOCK_STEPS]
            # Notes are made beside the way and not on it: which are made, and which are known, changes no state.
            for mark in (mark - begin for mark in marks if begin < mark <= begin + len(piece)):
                note = known.get(observed + begin + mark) or self._note(self._observe(state, piece[:mark]))
                errors = errors.noted(note)
            state = self._observe(state, piece)
        errors = errors.observe(observed, transform(values[:, MODELLED]))
        return replace(state, errors=errors.settled(observed + len(values), state.statistics.scale))

    def _observe(self, state: ForecasterState, piece: FloatArray) -> ForecasterState:
        """Return the state after the steps of a piece [T, M], T > 0; its errors are as they were."""
        statistics, tokens = state.statistics.observe(piece[:, MODELLED])
        with _single_series():
            _, core = self._stack.prefill(torch.from_numpy(tokens.features)[None], state.core)
        return ForecasterState(statistics, core, piece[-1, TOTALS], state.errors)

    def _note(self, state: ForecasterState) -> Note:
        """Return a note of what the forecaster says of the steps after a state."""
        residuals_LMQ, tokens, _ = self._residuals(state.statistics, state.core, 1, state.errors.reach)
        return state.errors.note(state.statistics.observed, residuals_LMQ, tokens.anchor, tokens.scale)

    def _residuals(
        self, statistics: CausalStatistics, core: Mamba2State, first: int, n: int
    ) -> tuple[FloatArray, Tokens, Mamba2State]:
        """Return residual quantiles [n, M, Q] of the steps `first` ... ahead, their tokens and the core after them."""
        tokens = statistics.ahead(first, n, self._config.reach_steps)
        with _single_series():
            features_BLF = torch.from_numpy(tokens.features)[None]
            outputs_BLR, core = self._stack.prefill(features_BLF, core)
            residuals_BLMQ = ForecasterNet.quantiles(outputs_BLR, features_BLF)
        distance_L = np.arange(first, first + n, dtype=np.float64)
        offsets_LMQ = self._calibrations.at(statistics.step_us).offsets(distance_L)
        return residuals_BLMQ[0].double().numpy() + offsets_LMQ, tokens, core

    def rollout(
        self, state: ForecasterState, horizon_steps: int, *, chunk_steps: int = 1024, seed: int = 0
    ) -> Iterator[ForecastChunk]:
        """Yield the forecast of the next `horizon_steps` in chunks; see `models.contract.Model.rollout`."""
        return self._roll_out(state, horizon_steps, chunk_steps, seed, keep_finer=False)

    def _roll_out(
        self, state: ForecasterState, horizon_steps: int, chunk_steps: int, seed: int, *, keep_finer: bool
    ) -> Iterator[ForecastChunk]:
        statistics, core = state.statistics, state.core
        dynamics = of_metric(self._ranks_of(statistics), "new_nodes")
        totals = TotalsAccumulator(state.totals, dynamics=dynamics, key=(seed, statistics.next_us))
        for first in range(0, horizon_steps, chunk_steps):
            n = min(chunk_steps, horizon_steps - first)
            residuals_LMQ, tokens, core = self._residuals(statistics, core, first + 1, n)
            corrected_LMQ = state.errors.corrected(residuals_LMQ, np.arange(first + 1.0, first + n + 1))
            # Levels that were moved apart from each other may have crossed.
            modelled = to_values(np.sort(corrected_LMQ, axis=-1), tokens)
            quantiles = np.zeros((len(modelled), N_METRICS, N_LEVELS))
            quantiles[:, MODELLED] = modelled
            mean = floored_mean(quantiles, LEVELS)
            finer = quantiles.copy() if keep_finer else None
            quantiles[:, COUNTS] = towards_whole(quantiles[:, COUNTS])
            mean, quantiles = totals.complete(mean, quantiles)
            yield ForecastChunk(first, mean, quantiles, finer)

    def sample_paths(
        self,
        state: ForecasterState,
        horizon_steps: int,
        *,
        n_paths: int,
        chunk_steps: int = 256,
        seed: int = 0,
        use_threads: bool = False,
    ) -> Iterator[PathChunk]:
        """Yield sample paths; see `models.contract.Model.sample_paths`."""
        chunks = self._roll_out(state, horizon_steps, chunk_steps, seed, keep_finer=True)
        key = (seed, state.statistics.next_us)
        structure = self._ranks_of(state.statistics)
        return sample_paths(chunks, state.totals, structure, key=key, n_paths=n_paths, use_threads=use_threads)

    def _ranks_of(self, statistics: CausalStatistics) -> RankStructure:
        return self._ranks.rescaled(self._ranks_season / statistics.season)
