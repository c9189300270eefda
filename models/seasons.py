"""How long a season is at each step size."""

from infra.steps import DAY_US, HOUR_US, WEEK_US

MAX_POSITIONS = 10_080
_WEEKS_A_YEAR = 52


def season_steps(step_us: int) -> int:
    """Return the steps of one season: a week below a week, a year of 52 weeks from there on.

    A season has at most `MAX_POSITIONS` steps, so steps under a minute fall back to a day, then to an hour.
    Examples: 1h gives 168, 1d gives 7, 1w gives 52, 15m gives 672. A step that does not divide the season is rounded.

    Args:
        step_us: step size in microseconds.
    """
    if step_us >= WEEK_US:
        return max(1, round(_WEEKS_A_YEAR * WEEK_US / step_us))
    for season_us in (WEEK_US, DAY_US, HOUR_US):
        if season_us / step_us <= MAX_POSITIONS:
            return max(1, round(season_us / step_us))
    return MAX_POSITIONS
