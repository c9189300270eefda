"""Reading the settings: the config file, then the environment, then flags; each mistake traced to its place.

`config.toml` in the working directory is read, else the packaged one. `GRAPHTIDE_<SECTION>__<KEY>` overrides the file,
a flag overrides both.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, SettingsError

from infra.errors import GraphtideError, UsageError
from infra.schema import MAX_HORIZON_STEPS
from infra.settings import ENV_PREFIX, FormatSettings, Settings

CONFIG_NAME = "config.toml"


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings and the file that they came from."""

    values: Settings
    file: Path


@dataclass(frozen=True, slots=True)
class Flag:
    """The value of a command-line flag that overrides a setting; `name` is what the user typed, such as `--step`."""

    name: str
    value: object


def load_settings(*, config: Path | None = None, flags: Mapping[str, Flag] | None = None) -> LoadedSettings:
    """Return the settings of this call.

    Args:
        config: the file to read; None finds `config.toml` in the working directory, else the packaged one.
        flags: what flags override, by `section.key`.

    Raises:
        UsageError: the file cannot be read, or a key, a section or a value is wrong anywhere; the message names the
            place and the nearest valid name or range.
    """
    path = config if config is not None else _find_config()
    text, file_values = _read_file(path)
    _refuse_secrets(file_values, path=path, text=text)
    flags = flags or {}
    _refuse_unknown_environment(os.environ)

    data_dir = os.environ.get("GRAPHTIDE_DATA_DIR")
    try:
        merged = _merge(
            file_values,
            {"data": {"directory": data_dir}} if data_dir else {},
            EnvSettingsSource(Settings)(),
            *({section: {key: flag.value}} for (section, key), flag in _by_section(flags)),
        )
        return LoadedSettings(Settings(**merged), path)
    except ValidationError as error:
        raise _explain(error, path=path, text=text, flags=flags) from error
    except SettingsError as error:
        raise UsageError(f"a setting in the environment cannot be read: {error}", fix=f"see {path}") from error


def _refuse_secrets(file_values: Mapping[str, Any], *, path: Path, text: str) -> None:
    """Refuse a secret in the file: it would be copied and committed along with it."""
    for section, model in _sections().items():
        keys = file_values.get(section)
        for key, field in model.model_fields.items():
            if field.annotation is SecretStr and isinstance(keys, Mapping) and keys.get(key):
                raise UsageError(
                    f"{section}.{key} does not belong in a settings file",
                    place=_place(section, key, path=path, text=text, flags={}),
                    fix=f"set {_variable(section, key)} in the environment, or name a {key}_file",
                )


def _by_section(flags: Mapping[str, Flag]) -> Iterator[tuple[tuple[str, str], Flag]]:
    for dotted, flag in flags.items():
        section, _, key = dotted.partition(".")
        yield (section, key), flag


def _merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of all layers by section; where two layers have a key, the later one wins."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for section, keys in layer.items():
            both_tables = isinstance(keys, Mapping) and isinstance(merged.get(section), Mapping)
            merged[section] = {**merged[section], **keys} if both_tables else keys
    return merged


def _find_config() -> Path:
    beside_call = Path(CONFIG_NAME)
    if beside_call.is_file():
        return beside_call
    package = Path(__file__).resolve().parent
    # An installed wheel carries the file inside the package, a checkout at its root.
    for candidate in (package / CONFIG_NAME, package.parent / CONFIG_NAME):
        if candidate.is_file():
            return candidate
    raise GraphtideError(f"the packaged {CONFIG_NAME} is missing", fix="install graphtide again, or pass --config PATH")


def _read_file(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"cannot read the settings file {path}: {reason}", fix="check --config") from error
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"not valid TOML: {error}", place=str(path), fix='write `key = value`, text in "quotes"'
        ) from error


def _known_variables() -> list[str]:
    return [_variable(section, key) for section, model in _sections().items() for key in model.model_fields]


def _sections() -> dict[str, type[BaseModel]]:
    return {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _table_model(section: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """Return the model of the tables below a key of a section, such as those of `[reports.targets]`."""
    field = None if section is None else section.model_fields.get(key)
    if field is None or get_origin(field.annotation) is not dict:
        return None
    model = get_args(field.annotation)[1]
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _refuse_unknown_environment(environment: Mapping[str, str]) -> None:
    """Refuse `GRAPHTIDE_A__B` that is no setting, and a setting written with one underscore.

    Other `GRAPHTIDE_` names pass: an orchestrator adds names such as `GRAPHTIDE_SERVICE_HOST` of its own.
    """
    known = _known_variables()
    single = {name.replace("__", "_"): name for name in known}
    for name in environment:
        upper = name.upper()
        if not upper.startswith(ENV_PREFIX) or upper in known:
            continue
        if "__" in upper.removeprefix(ENV_PREFIX):
            raise UsageError(
                f"unknown setting {name}", place="environment", fix=_known_variable(upper.removeprefix(ENV_PREFIX))
            )
        if upper in single:
            raise UsageError(f"unknown setting {name}", place="environment", fix=f"did you mean {single[upper]}?")


def _known_variable(name: str) -> str:
    """Return what to write for `NOPE__X`: the variable that it may have meant, else what there is."""
    sections = _sections()
    section, _, key = name.lower().partition("__")
    for near in difflib.get_close_matches(section, sections):
        keys = difflib.get_close_matches(key, sections[near].model_fields, n=1)
        if keys:
            return f"did you mean {_variable(near, keys[0])}?"
    if section in sections:
        return f"known here: {', '.join(_variable(section, key) for key in sections[section].model_fields)}"
    return f"write {_variable('section', 'key')} with a section of these: {', '.join(sections)}"


def _variable(section: str, key: str) -> str:
    return f"{ENV_PREFIX}{section}__{key}".upper()


def _suggest(name: str, known: list[str]) -> str | None:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else None


def _explain(error: ValidationError, *, path: Path, text: str, flags: Mapping[str, Flag]) -> UsageError:
    """Turn the first of pydantic's complaints into one that names the setting, its place and what is allowed."""
    first = error.errors()[0]
    section = str(first["loc"][0])
    below = first["loc"][1:]
    sections = _sections()
    if section == "formats" and below:
        section = f"formats.{below[0]}"
        below = below[1:]
        sections[section] = FormatSettings
    elif len(below) > 1 and (table := _table_model(sections.get(section), str(below[0]))) is not None:
        section = f"{section}.{below[0]}.{below[1]}"
        below = below[2:]
        sections[section] = table
    key = str(below[0]) if below else None
    place = _place(section, key, path=path, text=text, flags=flags)
    if first["type"] == "extra_forbidden":
        if key is None:
            known, what = list(sections), f"section [{section}]"
        else:
            known, what = list(sections[section].model_fields), f"setting {section}.{key}"
        fix = _suggest(key or section, known) or f"known here: {', '.join(known)}"
        return UsageError(f"unknown {what}", place=place, fix=fix)
    if first["type"] == "missing" and key is not None:
        below_header = _place(section, None, path=path, text=text, flags=flags)
        return UsageError(f"{section}.{key} is missing", place=below_header, fix=f"write {key} = … below [{section}]")
    if key is None or section not in sections:
        said = first.get("ctx", {}).get("error")
        if said is not None:
            return UsageError(f"[{section}] is not as it has to be", place=place, fix=f"give {said}")
        return UsageError(
            f"[{section}] is not a section: {first['msg']}", place=place, fix=f"write [{section}] and keys below"
        )
    given = flags[f"{section}.{key}"].name if f"{section}.{key}" in flags else f"{section}.{key}"
    # Validators of `infra.settings` raise ValueError with what is allowed, in words; bounds speak for themselves.
    allowed = str(first.get("ctx", {}).get("error", "")) or allowed_words(sections[section].model_fields[key])
    return UsageError(f"{given} cannot be {first['input']!r}", place=place, fix=f"give {allowed}")


def _place(section: str, key: str | None, *, path: Path, text: str, flags: Mapping[str, Flag]) -> str | None:
    if key is not None and f"{section}.{key}" in flags:
        return None  # the message names the flag already
    names = {name.upper(): name for name in os.environ}
    variable = _variable(section, key) if key else f"{ENV_PREFIX}{section}".upper()
    if variable in names:
        return f"environment, {names[variable]}"
    line = _line_of(text, section, key)
    return f"{path}, line {line}" if line else str(path)


def _line_of(text: str, section: str, key: str | None) -> int | None:
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\s*([^\]]+?)\s*\]", line)
        if header:
            current = header[1].strip("\"'")
            if current == section and key is None:
                return number
        assignment = re.match(r"\s*([\w.\"'-]+)\s*=", line)
        if assignment:
            name = assignment[1].strip("\"'")
            dotted = f"{current}.{name}" if current else name
            if dotted == (f"{section}.{key}" if key else section):
                return number
    return None


def allowed_words(field: FieldInfo) -> str:
    """Say in words what a setting accepts."""
    kind, metadata = _without_none(field.annotation, field.metadata)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is dict:
        return 'a table of places and values, such as { "payload.kind" = ["order", "refund"] }'
    if get_origin(kind) is tuple:
        return f"whole numbers from 1 to {MAX_HORIZON_STEPS}, such as 1,24,168"
    if get_origin(kind) is list:
        of, within = _without_none(get_args(kind)[0], [])
        return f"a list, each {_words(of, within)}"
    return _words(kind, metadata)


def _without_none(kind: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    """Return the type of a setting that may be left out, with its bounds."""
    if get_origin(kind) in {Union, UnionType}:
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is Annotated:
        kind, *found = get_args(kind)
        metadata = [bound for one in found for bound in (one.metadata if isinstance(one, FieldInfo) else [one])]
    return kind, metadata


def _words(kind: Any, metadata: list[Any]) -> str:
    bounds = {
        name: getattr(item, name) for item in metadata for name in ("ge", "gt", "le", "lt") if hasattr(item, name)
    }
    words = (
        {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "text")
        if isinstance(kind, type)
        else "text"
    )
    if "ge" in bounds and "le" in bounds:
        return f"{words} from {bounds['ge']} to {bounds['le']}"
    said = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return f"{words} {' and '.join(f'{said[name]} {value}' for name, value in bounds.items())}".rstrip()
