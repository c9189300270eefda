"""What a report finds in history and sample paths: what changes, when and how sure; where skill ends; the data's gaps.

Shape suffixes: N periods or blocks, M metrics of the schema, C columns (`forecasting.reports.aggregate.COLUMNS`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forecasting.reports.aggregate import COLUMN_INDEX, PeriodFan, Periods, Rule, rule_of
from forecasting.reports.calendar import Scale
from forecasting.reports.outlook import Outlook
from infra.schema import METRIC_INDEX, METRICS
from infra.steps import DAY_US, WEEK_US
from models.columns import COUNTS
from models.contract import FloatArray, History
from models.seasons import season_steps
from stream.store.base import GraphInfo, SnapshotTable

# Theme and column of what is said about how the network changes.
THEMES = (
    ("growth", "new_nodes"),
    ("growth", "total_nodes"),
    ("activity", "events"),
    ("activity", "active_nodes"),
    ("density", "density"),
    ("reciprocity", "reciprocity"),
    ("cohesion", "transitivity"),
    ("cohesion", "giant_component_share"),
)
# A change is called sure when so many of the paths agree on its direction.
SURE = 0.8
# An interval this close to that of the climate says no more than the climate.
CLIMATE_SHARE = 0.95
_CLIMATE_US = 52 * WEEK_US
_LOW, _MEDIAN, _HIGH = 1, 2, 3  # 0.1, 0.5 and 0.9 among the shown levels


@dataclass(frozen=True, slots=True)
class Change:
    """How one column changes from the last whole observed period to the last of the forecast.

    Attributes:
        theme, column: what it is about.
        rule: how the steps of a period become its value.
        now: value of the last whole observed period.
        then, low, high: median and 80 % interval of the last whole period of the forecast.
        above: share of the paths that are above `now` in that period; one that is equal counts as half.
        sure_from_us: start of the first period from which on, to the end, at least `SURE` of the paths lie on the side
            of `now` on which they end; None where they do not agree so far.
    """

    theme: str
    column: str
    rule: Rule
    now: float
    then: float
    low: float
    high: float
    above: float
    sure_from_us: int | None

    @property
    def agreement(self) -> float:
        """Share of the paths on the side where most of them are."""
        return max(self.above, 1 - self.above)

    @property
    def direction(self) -> str:
        """`rises`, `falls`, `stays` where the 80 % interval is `now` alone, `is open` where paths do not agree."""
        if self.low == self.high == self.now:
            return "stays"
        if self.agreement < SURE:
            return "is open"
        return "rises" if self.above > 0.5 else "falls"


def change_scale(observed: Mapping[Scale, Periods], ahead: Mapping[Scale, PeriodFan], step_us: int) -> Scale | None:
    """Return the longest scale with a whole observed period and two of the forecast; None if there is none.

    The longest, as a longer period is free of more of the seasons. Only scales whose periods hold as many steps of
    `step_us` each: a February is shorter than a December, so that its sums would fall where nothing does.
    """
    fitting = [scale for scale in ahead if scale.is_even(step_us) and len(observed[scale]) and len(ahead[scale]) >= 2]
    return fitting[-1] if fitting else None


def changes(observed: Periods, ahead: PeriodFan) -> list[Change]:
    """Return how each theme changes over the periods of one scale; both hold at least one."""
    found = []
    for theme, column in THEMES:
        index = COLUMN_INDEX[column]
        above_N = ahead.above[:, index]
        side_N = above_N if above_N[-1] > 0.5 else 1 - above_N
        is_sure = side_N >= SURE
        first = len(is_sure) - int(np.argmin(is_sure[::-1])) if not is_sure.all() else 0
        low, median, high = (float(ahead.fan.quantiles[-1, index, level]) for level in (_LOW, _MEDIAN, _HIGH))
        found.append(
            Change(
                theme=theme,
                column=column,
                rule=rule_of(column),
                now=float(observed.values[-1, index]),
                then=median,
                low=low,
                high=high,
                above=float(above_N[-1]),
                sure_from_us=int(ahead.start_us[first]) if is_sure[-1] else None,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Skill:
    """How far ahead the forecast says more than the climate, by its own account.

    Attributes:
        until_steps: by count metric, steps ahead up to which the 80 % interval is narrower than the climate's, relative
            to the level; None where it never becomes as wide. Those whose climate has no spread are left out.
        reach_steps: how far the model was trained; None for a floor.
    """

    until_steps: dict[str, int | None]
    reach_steps: int | None


def skill(history: History, outlook: Outlook, reach_steps: int | None) -> Skill | None:
    """Return where the intervals become as wide as those of history alone; None where history is under two seasons.

    The climate of a metric is the spread, between its 10 and 90 % quantile, of the values of the last year at the same
    place in the season, relative to their mean; the forecast's is the mean of its 80 % intervals over a block of steps,
    relative to the mean of the block.
    """
    season = season_steps(history.step_us)
    most = max(2, _CLIMATE_US // (season * history.step_us))
    seasons = min(len(history) // season, most)
    far = outlook.far()
    if seasons < 2 or not len(far):
        return None
    recent = history.values[len(history) - seasons * season :].reshape(seasons, season, -1)
    low_SM, high_SM = np.quantile(recent, [0.1, 0.9], axis=0)
    until: dict[str, int | None] = {}
    for index in COUNTS:
        level = float(recent[..., index].mean())
        climate = float((high_SM - low_SM)[:, index].mean()) / level if level > 0 else 0.0
        if climate <= 0:
            continue
        means = far.mean[:, index]
        widths = far.quantiles[:, index, _HIGH] - far.quantiles[:, index, _LOW]
        relative = np.divide(widths, means, out=np.full_like(widths, np.inf), where=means > 0)
        is_wide = relative >= CLIMATE_SHARE * climate
        until[METRICS[index].name] = int(np.argmax(is_wide)) * outlook.block_steps if is_wide.any() else None
    return Skill(until, reach_steps)


@dataclass(frozen=True, slots=True)
class Quality:
    """What the store knows of its own data.

    Attributes:
        steps: closed steps.
        empty_steps: those without an event.
        longest_gap_steps, longest_gap_us: the longest run of empty steps, and where it begins; None without one.
        revised_steps: those that later events have rewritten.
        late: events that came too late to be counted.
        events: events that were counted.
        provisional_steps: steps at the end that events can still revise; None where the store does not know.
    """

    steps: int
    empty_steps: int
    longest_gap_steps: int
    longest_gap_us: int | None
    revised_steps: int
    late: int
    events: int
    provisional_steps: int | None

    @property
    def late_share(self) -> float:
        """Share of the events that came too late."""
        return self.late / max(1, self.late + self.events)


def quality(info: GraphInfo, table: SnapshotTable) -> Quality:
    """Return what the store knows of the data of a graph; `table` holds all metrics and at least one step."""
    is_empty = table.values[:, METRIC_INDEX["events"]] == 0
    edges = np.diff(np.concatenate([[0], is_empty.astype(np.int8), [0]]))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    lengths = ends - begins
    longest = int(np.argmax(lengths)) if len(lengths) else None
    provisional = None
    if info.final_us is not None:
        provisional = int((table.step_start_us >= info.final_us).sum())
    return Quality(
        steps=len(table),
        empty_steps=int(is_empty.sum()),
        longest_gap_steps=0 if longest is None else int(lengths[longest]),
        longest_gap_us=None if longest is None else int(table.step_start_us[begins[longest]]),
        revised_steps=int((table.revision > 0).sum()),
        late=info.late,
        events=info.events,
        provisional_steps=provisional,
    )


@dataclass(frozen=True, slots=True)
class PastScore:
    """How an earlier forecast of one metric came out: `n` steps, the share inside its intervals, mean absolute errors.

    `naive_mae` is that of the value a season before, on the same steps; None where the history does not reach there.
    """

    metric: str
    n: int
    in_80: float
    in_95: float
    mae: float
    naive_mae: float | None


@dataclass(frozen=True, slots=True)
class Move:
    """What the last report and this one forecast of one period: the medians then and now of a column."""

    column: str
    scale: Scale
    start_us: int
    before: float
    now: float


def past_scores(history: History, first_us: int, columns_NMC: FloatArray) -> list[PastScore]:
    """Score an earlier forecast on the steps that have been observed since; empty where there are none.

    Args:
        history: what was observed by now.
        first_us: start of the forecast's first step.
        columns_NMC: [N, M, 6] its mean, then its quantiles at the shown levels.
    """
    begin = (first_us - history.start_us) // history.step_us
    count = min(len(history) - begin, len(columns_NMC))
    if (first_us - history.start_us) % history.step_us or begin < 0 or count <= 0:
        return []
    seen_NM = history.values[begin : begin + count]
    season = season_steps(history.step_us)
    found = []
    for index, metric in enumerate(METRICS):
        seen, columns = seen_NM[:, index], columns_NMC[:count, index]
        naive = None
        # A season back from the last step must lie before the forecast was made, or it would know too much.
        if count <= season <= begin:
            naive = float(np.abs(seen - history.values[begin - season : begin - season + count, index]).mean())
        found.append(
            PastScore(
                metric=metric.name,
                n=int(count),
                in_80=float(((seen >= columns[:, 2]) & (seen <= columns[:, 4])).mean()),
                in_95=float(((seen >= columns[:, 1]) & (seen <= columns[:, 5])).mean()),
                mae=float(np.abs(seen - columns[:, 3]).mean()),
                naive_mae=naive,
            )
        )
    return found


def is_short(history: History) -> bool:
    """Tell whether a history is too short to know a yearly rhythm or a trend: under two years."""
    return len(history) * history.step_us < 2 * 365 * DAY_US
