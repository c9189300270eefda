"""The settings, from `config.toml`, which says what each is for, and from their types, which say what each can be."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from docs.site.text import block, code, table
from infra.settings import ENV_PREFIX, Settings

_SECTION = re.compile(r"\[(.+)\]")
_KEY = re.compile(r"(\w+) = (.+)")


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of `config.toml` as it stands there."""

    section: str
    key: str
    default: str
    why: str


def page(config: Path) -> str:
    """Return the page of all settings.

    Raises:
        ValueError: the file and the types do not name the same settings.
    """
    text = config.read_text(encoding="utf-8")
    settings = list(read(text))
    _agree(settings)
    parts = [
        "# Settings\n",
        "Made from the packaged `config.toml` and the types behind it. A `config.toml` in the working directory, or the"
        " one that `--config` names, replaces these values key by key; the environment"
        f" (`{ENV_PREFIX}<SECTION>__<KEY>`) overrides the file, a flag overrides both. An unknown key, section or"
        " variable is refused.\n",
    ]
    for section in dict.fromkeys(each.section for each in settings):
        rows = [
            (code(each.key), _values(section, each.key), code(each.default), each.why)
            for each in settings
            if each.section == section
        ]
        parts += [f"## \\[{section}\\]\n", table(("key", "values", "default", "what for"), rows)]
    parts += ["## Tables with names of your own\n", block("toml", _own_tables(text))]
    return "\n".join(parts)


def read(text: str) -> Iterator[Setting]:
    """Yield every setting of a `config.toml` with the comment above it."""
    section, why = "", []
    for line in text.splitlines():
        if line.startswith("#"):
            why.append(line.removeprefix("#").strip())
            continue
        if found := _SECTION.fullmatch(line.strip()):
            section = found[1]
        elif found := _KEY.match(line):
            yield Setting(section, found[1], found[2].strip(), " ".join(why))
        why = []


def _agree(settings: list[Setting]) -> None:
    named = {(each.section, each.key) for each in settings}
    typed = {
        (section, key)
        for section, value in Settings()
        if isinstance(value, BaseModel)
        for key, held in value
        if not isinstance(held, dict)
    }
    if named != typed:
        raise ValueError(f"config.toml and infra.settings differ in {sorted(named ^ typed)}")


def _values(section: str, key: str) -> str:
    schema = type(getattr(Settings(), section)).model_json_schema()
    return _said(schema["properties"][key])


def _said(schema: dict[str, object]) -> str:
    if "enum" in schema:
        return ", ".join(code(str(value)) for value in schema["enum"])  # type: ignore[attr-defined]
    if "anyOf" in schema:
        return " or ".join(_said(each) for each in schema["anyOf"])  # type: ignore[attr-defined]
    kind = str(schema.get("type", ""))
    if kind == "array":
        return f"list of {_said(schema.get('items', {}))}"  # type: ignore[arg-type]
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    bounds = [
        f"{word} {schema[name]}"
        for name, word in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if name in schema
    ]
    return " ".join([words.get(kind, kind), *([", ".join(bounds)] if bounds else [])])


def _own_tables(text: str) -> str:
    """Return the commented examples of tables whose names a user chooses, without the comment signs."""
    lines, is_open = [], False
    for line in text.splitlines():
        if re.match(r"# \[\w+(\.\w+)+\]", line):
            is_open = True
        if is_open and line.startswith("# "):
            lines.append(line.removeprefix("# "))
        else:
            is_open = False
    return "\n".join(lines)
