"""Rules of alerts: what is watched, by whom, and which graphs that means."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from forecasting.keys import ALL_GRAPHS
from forecasting.reports.phrases import in_full
from infra.errors import UsageError
from infra.schema import METRIC_NAMES
from infra.settings import AlertRuleSettings, TargetSettings
from infra.steps import DAY_US, WEEK_US, parse_duration_us

PERIODS_US = {"day": DAY_US, "week": WEEK_US}
# Metrics that add up over time; the sum of any other means nothing.
SUMMED = ("events", "new_nodes", "new_edges", "self_loops")
# The alert is over when the probability has fallen below this share of that of the rule.
RESOLVE_SHARE = 0.75
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_GRAPH = re.compile(r"\*|[a-z0-9][a-z0-9._:-]{0,127}\*?")


class RuleError(UsageError):
    """A rule cannot work; `field` is the member that is wrong, `given` None where it is missing,
    `allowed` what it may be, `example` one that works.
    """

    def __init__(self, name: str, field: str, given: object, allowed: str, example: object) -> None:
        self.field, self.given, self.allowed, self.example = field, given, allowed, example
        super().__init__(
            f"{field} of the alert rule {name[:100]!r} {'is missing' if given is None else f'cannot be {given!r}'}",
            place=f"[alerts.rules.{name[:100]}]",
            fix=f"give {allowed}, such as {example!r}",
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that can work.

    Attributes:
        name: of a-z, 0-9, _ and -.
        spec: what is watched.
        patterns: graphs that it watches: names, prefixes that end with `*`, `*` for all. Of `*` they are those that the
            key of its owner is for.
    """

    name: str
    spec: AlertRuleSettings
    patterns: tuple[str, ...]

    def watches(self, graph: str) -> bool:
        """Tell whether the rule is for a graph."""
        return any(covers(pattern, graph) for pattern in self.patterns)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is watched in each graph; one empty name where it is the graph itself."""
        if self.spec.kind == "stale":
            return ("",)
        if self.spec.kind == "forecast":
            return (self.spec.metric or "",)
        return tuple(self.spec.metrics or METRIC_NAMES)

    @property
    def resolve_probability(self) -> float:
        """Below which probability a forecast's alert is over."""
        given = self.spec.resolve_probability
        return RESOLVE_SHARE * self.spec.probability if given is None else given

    def within_steps(self, step_us: int) -> int:
        """Return how many steps of `step_us` are looked at; a duration that ends within a step has it."""
        within = self.spec.within
        return within if isinstance(within, int) else -(-parse_duration_us(within) // step_us)

    def to_json(self) -> str:
        """Return the rule as text, the same for equal rules."""
        return json.dumps({"spec": self.spec.model_dump(mode="json"), "patterns": self.patterns}, sort_keys=True)

    @classmethod
    def from_json(cls, name: str, text: str) -> "Rule":
        """Invert `to_json`."""
        kept = json.loads(text)
        return cls(name, AlertRuleSettings(**kept["spec"]), tuple(kept["patterns"]))


def covers(pattern: str, other: str) -> bool:
    """Tell whether all that `other` (a name or a pattern) stands for is among what `pattern` stands for."""
    if pattern.endswith(ALL_GRAPHS):
        return other.startswith(pattern[:-1])
    return pattern == other


def narrowed(rule: Rule, graphs: Sequence[str]) -> Rule | None:
    """Return the rule over what a key for `graphs` may see of what it watches; None where the key is not for it.

    `*` means all that the key may see; a name or a prefix has to be seen wholly.
    """
    if rule.spec.graph == ALL_GRAPHS:
        return replace(rule, patterns=tuple(graphs))
    return rule if any(covers(pattern, rule.spec.graph) for pattern in graphs) else None


def checked(name: str, spec: AlertRuleSettings, targets: Mapping[str, TargetSettings]) -> Rule:
    """Return a rule, over all graphs that it names.

    Raises:
        RuleError: a name, a bound, a duration or a target is missing or cannot be used with the others.
    """
    if NAME.fullmatch(name) is None:
        raise RuleError(name, "name", name[:100], "a-z, 0-9, then also _ and -, at most 64 characters", "quiet-town")
    if _GRAPH.fullmatch(spec.graph) is None:
        raise RuleError(name, "graph", spec.graph, "a graph's name, a prefix that ends with *, or *", "town")
    known = _COMMON | _OF_KIND[spec.kind]
    for field, described in AlertRuleSettings.model_fields.items():
        value = getattr(spec, field)
        if field not in known and value != described.get_default():
            allowed = f"nothing: a rule of kind {spec.kind} has {', '.join(sorted(known))}"
            raise RuleError(name, field, value, allowed, None)
    if spec.kind == "forecast":
        _check_forecast(name, spec)
    if spec.kind == "stale" and spec.after is None:
        raise RuleError(name, "after", None, "a duration", "3h")
    rule = Rule(name, spec, (spec.graph,))
    for target in spec.deliver:
        found = targets.get(target)
        # Whose target it is not shall look as if there were none.
        if found is None or not any(covers(pattern, spec.graph) for pattern in found.graphs):
            allowed = "names of [reports.targets] in the settings whose graphs hold those of the rule"
            raise RuleError(name, "deliver", target[:100], allowed, next(iter(targets), "archive"))
    return rule


_COMMON = {"kind", "graph", "deliver"}
_OF_KIND: Mapping[str, set[str]] = {
    "forecast": {"metric", "below", "above", "probability", "resolve_probability", "within", "aggregate", "for_steps"},
    "surprise": {"metrics", "leads", "false_discovery_rate", "for_steps"},
    "stale": {"after"},
}


def _check_forecast(name: str, spec: AlertRuleSettings) -> None:
    if spec.metric is None:
        raise RuleError(name, "metric", None, f"one of {', '.join(METRIC_NAMES)}", "active_nodes")
    if (spec.below is None) == (spec.above is None):
        field = "below" if spec.below is None else "above"
        raise RuleError(name, field, getattr(spec, field), "either below or above, a number", 50)
    resolve = spec.resolve_probability
    if resolve is not None and resolve > spec.probability:
        raise RuleError(name, "resolve_probability", resolve, f"at most the probability {spec.probability:g}", 0.5)
    if spec.aggregate != "step":
        if spec.metric not in SUMMED:
            allowed = f"step: of {spec.metric} there is no sum, only of {', '.join(SUMMED)}"
            raise RuleError(name, "aggregate", spec.aggregate, allowed, "step")
        if isinstance(spec.within, str) and parse_duration_us(spec.within) < PERIODS_US[spec.aggregate]:
            allowed = f"at least the {spec.aggregate} whose sum is watched"
            raise RuleError(name, "within", spec.within, allowed, "2w" if spec.aggregate == "week" else "2d")


def bound_words(below: float | None, above: float | None) -> str:
    """Say what is crossed; one of the two is given."""
    return f"above {in_full(above)}" if above is not None else f"below {in_full(below or 0)}"


def describe(rule: Rule) -> str:
    """Say in words what a rule watches."""
    spec = rule.spec
    where = "all graphs" if spec.graph == ALL_GRAPHS else spec.graph
    if spec.kind == "stale":
        one = "some graph" if spec.graph == ALL_GRAPHS else spec.graph
        return f"no step of {one} has closed for {spec.after}"
    if spec.kind == "surprise":
        watched = ", ".join(spec.metrics) if spec.metrics else "every metric"
        return f"{watched} of {where} came out far from the forecast"
    bound = bound_words(spec.below, spec.above)
    what = spec.metric if spec.aggregate == "step" else f"the sum of {spec.metric} over a {spec.aggregate}"
    within = f"{spec.within} steps" if isinstance(spec.within, int) else spec.within
    return f"{what} of {where} is {bound} within {within} with a probability of {spec.probability:.0%} or more"


def rule_document(rule: Rule) -> dict[str, Any]:
    """Return the members of a rule that its kind has, as JSON values."""
    kept = rule.spec.model_dump(mode="json")
    shown = {name: kept[name] for name in kept if name in _COMMON | _OF_KIND[rule.spec.kind]}
    if rule.spec.kind == "forecast":
        shown["resolve_probability"] = rule.resolve_probability
    return shown
