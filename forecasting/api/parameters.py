"""Query parameters and bodies as values; each mistake becomes a problem with the field, its limits and an example."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from fastapi import Request

from forecasting.api.problems import Problem, near_names, parameter_problem
from infra.schema import METRIC_INDEX, METRIC_NAMES, QUANTILE_LEVELS
from infra.steps import steps_until_last
from stream.store.base import GraphInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_LEVELS = ", ".join(f"{level:g}" for level in QUANTILE_LEVELS)
# More than any number that is allowed has.
MAX_DIGITS = 10


def query(request: Request, known: Sequence[str]) -> dict[str, str]:
    """Return the query parameters of a request, each of `known` at most once.

    Raises:
        Problem: a parameter is unknown or given twice.
    """
    return once_each(request.query_params.multi_items(), known)


def once_each(pairs: Iterable[tuple[str, str]], known: Sequence[str]) -> dict[str, str]:
    """Return parameters by name, each of `known` at most once.

    Raises:
        Problem: a parameter is unknown or given twice.
    """
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            near = difflib.get_close_matches(name[:100], known, n=1)
            allowed = f"one of {', '.join(known)}" if known else "no parameter at all"
            error = {"field": name[:100], "allowed": allowed, "example": near[0] if near else next(iter(known), None)}
            meant = f"; did you mean {near[0]}?" if near else f": give {allowed}"
            raise Problem(422, "invalid-parameter", f"there is no parameter {name[:100]!r} here{meant}", errors=[error])
        if name in given:
            raise parameter_problem(name, value, "each parameter once, several values with commas", "events,new_nodes")
        given[name] = value
    return given


def whole_number(field: str, text: str, low: int, high: int, *, example: int) -> int:
    """Return a whole number from `low` to `high`.

    Raises:
        Problem: the text is none, or lies outside.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and low <= int(text) <= high):
        raise parameter_problem(field, text, f"a whole number from {low} to {high}", example, minimum=low, maximum=high)
    return int(text)


def metric_names(field: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return metrics in the order given, each once.

    Raises:
        Problem: one is unknown, or none is named.
    """
    for name in names:
        if name not in METRIC_INDEX:
            near = difflib.get_close_matches(name[:100], METRIC_NAMES, n=1)
            allowed = f"some of {', '.join(METRIC_NAMES)}"
            raise parameter_problem(field, name, allowed, near[0] if near else "events,new_nodes")
    if not names:
        raise parameter_problem(field, "", f"some of {', '.join(METRIC_NAMES)}", "events,new_nodes")
    return tuple(dict.fromkeys(names))


def quantile_levels(field: str, given: Sequence[object]) -> tuple[float, ...]:
    """Return quantile levels, ascending, each once.

    Raises:
        Problem: one is not forecast, or none is named.
    """
    levels = set()
    for part in given:
        try:
            level = float(str(part))
        except ValueError:
            level = -1.0
        if isinstance(part, bool) or level not in QUANTILE_LEVELS:
            raise parameter_problem(field, shown_null(part), f"some of {_LEVELS}", "0.1,0.5,0.9")
        levels.add(level)
    if not levels:
        raise parameter_problem(field, "", f"some of {_LEVELS}", "0.1,0.5,0.9")
    return tuple(sorted(levels))


def check_idempotency_key(key: str | None, example: str) -> None:
    """Refuse what cannot be an idempotency key.

    Raises:
        Problem: it is none.
    """
    if key is not None and _IDEMPOTENCY_KEY.fullmatch(key) is None:
        raise parameter_problem("Idempotency-Key", key, "1 to 255 visible ASCII characters", example)


def check_reach(graph: GraphInfo, horizon: int) -> None:
    """Refuse a forecast that would end behind the year 9999.

    Raises:
        Problem: it would; its `maximum` is the longest horizon that does not.
    """
    if graph.last_step_us is None:
        return
    most = steps_until_last(graph.last_step_us + graph.step_us, graph.step_us)
    if horizon > most:
        allowed = f"a whole number from 1 to {most}" if most else "another graph"
        allowed += f" (steps of {graph.name!r} that are further ahead end behind the year 9999)"
        raise parameter_problem("horizon", horizon, allowed, most, minimum=1, maximum=most)


def split(text: str) -> list[str]:
    """Return the parts of `a,b,c` without blanks."""
    return [part.strip() for part in text.split(",") if part.strip()]


def time_us(field: str, text: str) -> int:
    """Return the microseconds since the epoch of an ISO 8601 date or time, UTC unless it says otherwise.

    Raises:
        Problem: the text is no such time.
    """
    try:
        # In a query, a plus that was not escaped arrives as a blank.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise parameter_problem(
            field, text, "a date or a time of ISO 8601, such as 2016-03-06 or 2016-03-06T12:00Z", "2016-03-06T12:00Z"
        ) from None


def json_object(body: bytes, members: Sequence[str], example: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body that is a JSON object of known members.

    Raises:
        Problem: it is none.
    """
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        detail = f"the body is no JSON object; send for example {orjson.dumps(example).decode()}"
        raise Problem(422, "invalid-body", detail, example=example)
    for name in given:
        if name not in members:
            near = near_names(name, members)
            allowed = f"one of the members {', '.join(members)}"
            raise parameter_problem(name[:100], shown_null(given[name]), allowed, near[0] if near else members[0])
    return given


def shown_null(value: object) -> object:
    """Return what stands in JSON, its null as text: that a member is missing is something else."""
    return "null" if value is None else value


def json_number(field: str, value: object, low: int, high: int, example: int) -> int:
    """Return a whole number within limits.

    Raises:
        Problem: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        # A problem shows text and numbers alike, so that '24' would look as if it were allowed.
        allowed = f"a whole number from {low} to {high}{', not as text' if isinstance(value, str) else ''}"
        raise parameter_problem(field, value, allowed, example, minimum=low, maximum=high)
    return value
