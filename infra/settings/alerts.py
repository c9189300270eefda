"""Alerts: what is watched, how sure one must be, and who is told."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from infra.schema import METRIC_NAMES
from infra.settings.kinds import Duration, Horizon, Section, check_table_names

Probability = Annotated[float, Field(gt=0, lt=1)]


def _check_metric(name: str) -> str:
    if name not in METRIC_NAMES:
        raise ValueError(f"one of {', '.join(METRIC_NAMES)}")
    return name


def _check_metrics(names: list[str]) -> list[str]:
    for name in names:
        if name not in METRIC_NAMES:
            raise ValueError(f"some of {', '.join(METRIC_NAMES)}, not {name!r}")
    return list(dict.fromkeys(names))


class AlertRuleSettings(Section):
    """One rule; `forecasting.alerts.rules` says what each kind needs.

    Attributes:
        kind: `forecast`, a metric is likely to cross a bound; `surprise`, a step came out as nobody expected; `stale`,
            no step has closed for too long.
        graph: a name, a prefix that ends with `*`, or `*`.
        metric, below, above, probability, within, aggregate: of a forecast. `within` is a number of steps or a
            duration.
        resolve_probability: the alert is over below it; three quarters of `probability` if left out.
        metrics, leads, false_discovery_rate: of a surprise; all metrics, one step ahead, and `[alerts]` if left out.
        after: of a stale graph, a duration.
        for_steps: so many steps in a row say the same before the alert begins, and before it ends.
        deliver: names of `[reports.targets]`.
    """

    kind: Literal["forecast", "surprise", "stale"]
    graph: str = Field(min_length=1, max_length=128)
    metric: Annotated[str, AfterValidator(_check_metric)] | None = None
    below: float | None = Field(default=None, allow_inf_nan=False)
    above: float | None = Field(default=None, allow_inf_nan=False)
    probability: Probability = 0.8
    resolve_probability: Probability | None = None
    within: Horizon | Duration = 24
    aggregate: Literal["step", "day", "week"] = "step"
    metrics: Annotated[list[str], AfterValidator(_check_metrics)] = Field(default=[])
    leads: list[Annotated[int, Field(ge=1, le=168)]] = Field(default=[1], min_length=1, max_length=8)
    false_discovery_rate: Probability | None = None
    after: Duration | None = None
    for_steps: int = Field(default=1, ge=1, le=1000)
    deliver: list[str] = Field(default=[])


class AlertSettings(Section):
    """Alerts: how they are judged and kept, and the rules of the operator."""

    paths: int = Field(default=400, ge=50, le=5000)
    false_discovery_rate: Probability = 0.1
    window: Duration = "30d"
    catch_up_steps: int = Field(default=168, ge=1, le=10_000)
    max_rules_per_key: int = Field(default=100, ge=1)
    keep_s: int = Field(default=7_776_000, ge=3600)
    dashboard_url: str = Field(default="", pattern=r"^(|https?://[^\s]+)$")
    rules: Annotated[dict[str, AlertRuleSettings], AfterValidator(check_table_names)] = Field(default={})
