"""What a simulated network looks like: every number that shapes it, validated."""

from dataclasses import asdict, dataclass, fields

from infra.errors import UsageError
from infra.steps import DAY_US

HOURS_PER_YEAR = 8766  # of 365.25 days
_MONDAY_2021_US = 18_631 * DAY_US  # 2021-01-04


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """The parameters of a simulated network. The same values give the same events.

    Attributes:
        seed: of all randomness.
        years: length of the log, of 8,766 hours each.
        start_us: first instant, UTC microseconds, a whole second.
        events_per_hour: mean rate of all events at the start.
        growth_per_year: relative growth of the rate; 0.12 is 12 % a year.
        branching: mean number of direct responses to an event, in [0, 1); the degree of self-excitation.
        virality: Pareto tail exponent (> 1) of how many responses an event draws; smaller is burstier.
        weekend_activity: rate of a Saturday or Sunday against a working day.
        yearly_swing: amplitude of the seasonal modulation, in [0, 1).
        holiday_activity: rate of a holiday against an ordinary day.
        attention_sd: standard deviation of the slow noise in the logarithm of the rate (the news cycle).
        initial_users: users that are there at the start.
        join_share: share of threads that are opened by a newcomer.
        communities: number of communities; newcomers mostly join that of the user who brought them.
        community_share: share of contacts that are sought inside the own community; the other shares are fixed.
        activity_tail: Pareto tail exponent (> 1) of how active users are.
    """

    seed: int = 0
    years: float = 4.0
    start_us: int = _MONDAY_2021_US
    events_per_hour: float = 20.0
    growth_per_year: float = 0.12
    branching: float = 0.45
    virality: float = 1.6
    weekend_activity: float = 0.7
    yearly_swing: float = 0.15
    holiday_activity: float = 0.55
    attention_sd: float = 0.25
    initial_users: int = 400
    join_share: float = 0.05
    communities: int = 24
    community_share: float = 0.3
    activity_tail: float = 1.3

    def __post_init__(self) -> None:
        for name, (low, high, open_low, open_high) in _RANGES.items():
            value = getattr(self, name)
            above = value > low if open_low else value >= low
            below = value < high if open_high else value <= high
            if not (above and below):
                raise UsageError(
                    f"simulation: {name} = {value!r} is out of range",
                    fix=f"choose {name} in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}",
                )
        for name in ("seed", "start_us", "initial_users", "communities"):
            if not isinstance(getattr(self, name), int):
                raise UsageError(f"simulation: {name} = {getattr(self, name)!r} is not a whole number")
        if self.start_us % 1_000_000:
            raise UsageError(f"simulation: start_us = {self.start_us} is not a whole second")

    @property
    def hours(self) -> int:
        """Length of the log in whole hours, at least one."""
        return max(1, round(self.years * HOURS_PER_YEAR))

    def identity(self) -> str:
        """Return all parameters in one line; equal exactly for equal logs."""
        values = asdict(self)
        return ",".join(f"{field.name}={values[field.name]!r}" for field in fields(self))


# name: (low, high, low excluded, high excluded); NaN is in no range.
_RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "seed": (0, 2**63, False, True),
    "years": (0, 200, True, False),
    "start_us": (0, 2**52, False, True),
    "events_per_hour": (0, 1e6, True, False),
    "growth_per_year": (-0.9, 10, False, False),
    "branching": (0, 0.95, False, False),
    "virality": (1, 100, True, False),
    "weekend_activity": (0, 10, True, False),
    "yearly_swing": (0, 1, False, True),
    "holiday_activity": (0, 10, True, False),
    "attention_sd": (0, 2, False, False),
    "initial_users": (2, 10_000_000, False, False),
    "join_share": (0, 1, False, False),
    "communities": (1, 100_000, False, False),
    "community_share": (0, 0.5, False, False),
    "activity_tail": (1, 100, True, False),
}
