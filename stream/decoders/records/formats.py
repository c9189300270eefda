"""The formats of records by their names, and the decoder of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from infra.errors import InputError, UsageError
from infra.settings import FormatSettings, SchemaRegistrySettings
from stream.decoders.base import check_columns
from stream.decoders.builder import DecodeOptions, EventBuilder
from stream.decoders.records.activitystreams import ActivityExtract, activities
from stream.decoders.records.arrow import ArrowReader
from stream.decoders.records.base import TOPIC_GRAPH, Record, RecordDecoder, RecordReader
from stream.decoders.records.cloudevents import CloudEventsReader
from stream.decoders.records.confluent import ConfluentCodec, ConfluentReader
from stream.decoders.records.decoder import ReaderDecoder
from stream.decoders.records.detect import FORMAT_OF_TYPE, AutoReader, media_type
from stream.decoders.records.extract import ExtractReader
from stream.decoders.records.gharchive import GH_ARCHIVE
from stream.decoders.records.jetstream import JetstreamExtract
from stream.decoders.records.json import JsonReader
from stream.decoders.records.mapping import parse_mapping
from stream.decoders.records.mastodon import MastodonExtract
from stream.decoders.records.objects import Objects, dict_objects
from stream.decoders.records.registry import SchemaRegistry, SchemaSource
from stream.decoders.records.wikimedia import RecentChangeExtract
from stream.decoders.times import UNIT_US, AnyUnitReader, TimeReader
from stream.events import DEFAULT_GRAPH, EventRules, Interner, InvalidEventError

RECORD_FORMATS = (
    *("auto", "json", "ndjson", "arrow", "cloudevents", "confluent"),
    *("activitystreams", "jetstream", "mastodon", "wikimedia", "gharchive"),
)

Codec = Callable[[Sequence[Record]], Objects]


def record_decoder(
    options: DecodeOptions,
    *,
    interner: Interner,
    own_formats: Mapping[str, FormatSettings] | None = None,
    registry: SchemaSource | None = None,
) -> RecordDecoder:
    """Return the decoder of the format that the options name.

    Args:
        options: `format` is one of `RECORD_FORMATS` or of `own_formats`; `graph` may be `{topic}`; `strict` and
            `reject_sample` are the caller's affair. `columns` serve the formats with our own names of fields.
        interner: of the batches.
        own_formats: the settings `[formats]`, by name.
        registry: of framed records.

    Raises:
        UsageError: the format is unknown, or a mapping, a column, a time unit or the graph name is wrong.
    """
    own_formats = own_formats or {}
    for name in own_formats:
        if name in RECORD_FORMATS:
            raise UsageError(f"formats.{name}: there is a format of that name already", fix="choose another name")
    known = (*RECORD_FORMATS, *own_formats)
    if options.format not in known:
        raise UsageError(f"unknown format {options.format!r} of records", fix=f"use one of {', '.join(known)}")
    topic_graphs = options.graph == TOPIC_GRAPH
    graph = DEFAULT_GRAPH if topic_graphs else options.graph
    try:
        options.rules.graph(graph)
    except InvalidEventError as error:
        raise UsageError(str(error), fix=f"choose another name for the graph, or {TOPIC_GRAPH}") from None
    columns = check_columns(options.columns)
    readers = _Readers(columns, options.rules, registry, own_formats)
    return ReaderDecoder(
        readers.reader(options.format),
        EventBuilder(interner, replace(options, graph=graph)),
        times=time_reader(options.time_unit, options.rules),
        topic_graphs=topic_graphs,
    )


def time_reader(unit: str, rules: EventRules) -> TimeReader:
    """Return a reader of times in `unit`; with `auto` each number tells its unit.

    Raises:
        UsageError: there is no such unit.
    """
    if unit == "auto":
        return AnyUnitReader(rules)
    if unit not in UNIT_US:
        raise UsageError(f"unknown time unit {unit!r}", fix=f"use one of auto, {', '.join(UNIT_US)}")
    return TimeReader(unit, rules)


def open_registry(settings: SchemaRegistrySettings) -> SchemaRegistry | None:
    """Return the registry that the settings name, None if they name none.

    Raises:
        InputError: the address is no URL, or the password file cannot be read.
    """
    if not settings.url:
        return None
    password = ""
    if settings.password_file:
        try:
            password = Path(settings.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InputError(
                f"the password of the schema registry cannot be read from {settings.password_file}: {reason}",
                fix="check [schema_registry] password_file",
            ) from None
    auth = (settings.user, password) if settings.user else None
    return SchemaRegistry(settings.url, auth=auth, timeout_s=settings.timeout_s)


class _Readers:
    """Makes readers; those of one format share one, so that what it learned serves all."""

    def __init__(
        self,
        columns: Mapping[str, str],
        rules: EventRules,
        registry: SchemaSource | None,
        own_formats: Mapping[str, FormatSettings],
    ) -> None:
        self._columns = columns
        self._rules = rules
        self._codec = ConfluentCodec(registry)
        self._own = own_formats
        self._either = JsonReader("either", columns=columns)
        self._made: dict[str, RecordReader] = {}

    def reader(self, name: str) -> RecordReader:
        """Return the reader of a format."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> RecordReader:
        json: Codec = partial(dict_objects, layout="either")
        if name in self._own or name == "gharchive":
            mapping = parse_mapping(name, self._own.get(name, GH_ARCHIVE))
            codec = self._codec if mapping.payload == "confluent" else json
            unit = mapping.time_unit
            return ExtractReader(codec, mapping, times=None if unit == "auto" else time_reader(unit, self._rules))
        makers: dict[str, Callable[[], RecordReader]] = {
            "auto": self._auto,
            "either": lambda: self._either,
            "json": lambda: JsonReader("document", columns=self._columns),
            "ndjson": lambda: JsonReader("lines", columns=self._columns),
            "arrow": lambda: ArrowReader(columns=self._columns, rules=self._rules),
            "cloudevents": lambda: CloudEventsReader(self._of_data),
            "confluent": lambda: ConfluentReader(self._codec, columns=self._columns),
            "activitystreams": lambda: ExtractReader(activities, ActivityExtract()),
            "jetstream": lambda: ExtractReader(json, JetstreamExtract(), times=TimeReader("us", self._rules)),
            "mastodon": lambda: ExtractReader(json, MastodonExtract()),
            "wikimedia": lambda: ExtractReader(json, RecentChangeExtract()),
        }
        return makers[name]()

    def _auto(self) -> RecordReader:
        names = ("ndjson", "arrow", "cloudevents", "confluent", "activitystreams")
        return AutoReader({name: self.reader(name) for name in names}, self._either)

    def _of_data(self, content_type: str) -> RecordReader | None:
        """Return the reader of a CloudEvent's data."""
        kind = media_type(content_type)
        plain = "either" if not kind or kind.endswith(("/json", "+json")) else None
        name = plain if kind == "application/json" else FORMAT_OF_TYPE.get(kind, plain)
        return None if name is None else self.reader(name)
