"""What the sections share: their base and the types of their keys."""

import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from infra.errors import UsageError
from infra.schema import MAX_HORIZON_STEPS
from infra.steps import parse_duration_us

POSTGRES_SCHEMES = ("postgresql://", "postgres://")
MAX_SEED = 2**32 - 1
_TABLE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def _check_duration(text: str) -> str:
    try:
        parse_duration_us(text)
    except UsageError as error:
        raise ValueError(
            "a duration: a whole number and a unit, such as 30s, 15m, 1h, 1d or 1w, at most 9999w"
        ) from error
    return text


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Duration = Annotated[str, AfterValidator(_check_duration)]
Horizon = Annotated[int, Field(ge=1, le=MAX_HORIZON_STEPS)]
Horizons = Annotated[tuple[Horizon, ...], NoDecode, BeforeValidator(_split_commas)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas), Field(min_length=1)]


class Section(BaseModel):
    """A table of `config.toml`: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `true` where a number stands: Python would read it as 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError
        return value


Table = TypeVar("Table")


def check_table_names(tables: dict[str, Table]) -> dict[str, Table]:
    """Return the tables; raise ValueError where one has no name that a setting can have."""
    for name in tables:
        if _TABLE_NAME.fullmatch(name) is None:
            raise ValueError(f"a name of a-z, 0-9, then also _ and -, at most 64 characters, in place of {name!r}")
    return tables
