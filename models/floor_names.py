"""The floors by name: which there are, and which a comparison asks for."""

from collections.abc import Sequence

from infra.errors import UsageError
from models import floor_libraries
from models.baselines import floors
from models.boosted import LightGBM
from models.floor import Floor
from models.statistical import MSTL, AutoETS, AutoTheta

SIMPLE, ALL = "simple", "all"


def library_floors() -> list[Floor]:
    """Return one of each floor that needs a library of the extra `floors`."""
    return [AutoTheta(), AutoETS(), MSTL(), LightGBM()]


def named_floors(names: Sequence[str]) -> list[Floor]:
    """Return one of each floor that `names` ask for: names of floors, `simple` or `all`.

    The order is that of all floors.

    Raises:
        UsageError: a name is unknown.
        ModelError: a library is not installed.
    """
    simple, more = floors(), library_floors()
    groups = {SIMPLE: simple, ALL: [*simple, *more]}
    asked: set[str] = set()
    for name in names:
        known = groups.get(name) or [floor for floor in groups[ALL] if floor.name == name]
        if not known:
            raise UsageError(
                f"there is no floor {name!r}",
                place="--floors or [backtest] floors",
                fix=f"take {SIMPLE}, {ALL} or some of {', '.join(floor.name for floor in groups[ALL])}",
            )
        asked |= {floor.name for floor in known}
    chosen = [floor for floor in groups[ALL] if floor.name in asked]
    for floor in chosen:
        if floor.library is not None:
            floor_libraries.require(floor.library, floor.name)
    return chosen
