"""Records framed for a schema registry: a zero byte, the schema's id in four bytes, then JSON or Avro.

Source of the format: Confluent's wire format, in https://docs.confluent.io/platform/current/schema-registry/fundamentals.
Without a registry JSON is read all the same; Avro needs its schemas. Protobuf is refused.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from stream.decoders.records.avro import AvroDecoder
from stream.decoders.records.base import Read, Record, Rows, payloads
from stream.decoders.records.objects import Objects, Parsed, gather, parse
from stream.decoders.records.registry import SchemaSource, UnknownSchemaError
from stream.decoders.records.shapes import dict_columns

MAGIC = b"\0"
FRAME_BYTES = 5


class ConfluentCodec:
    """Framed payloads to objects.

    Args:
        registry: tells what an id stands for; None if there is none.
    """

    def __init__(self, registry: SchemaSource | None) -> None:
        self._registry = registry
        self._avro: dict[int, AvroDecoder | str] = {}

    def __call__(self, records: Sequence[Record]) -> Objects:
        """Return the objects of records.

        Raises:
            InputError: the registry cannot be asked, or a package is missing.
        """
        return gather([self._parse(payload) for payload in payloads(records)])

    def _parse(self, payload: bytes) -> Parsed:
        if payload[:1] != MAGIC:
            return Parsed(reasons=["it does not begin with a zero byte and the id of a schema"])
        if len(payload) < FRAME_BYTES:
            return Parsed(reasons=[f"{len(payload)} bytes are too few to hold the id of a schema"])
        schema_id = int.from_bytes(payload[1:FRAME_BYTES], "big")
        body = payload[FRAME_BYTES:]
        if self._registry is None:
            if body.lstrip()[:1] in (b"{", b"["):
                return parse(body, "document")
            return Parsed(
                reasons=[f"schema {schema_id}: the payload is no JSON; Avro needs a registry ([schema_registry] url)"]
            )
        try:
            return self._of_schema(schema_id, body, self._registry)
        except UnknownSchemaError as error:
            return Parsed(reasons=[str(error)])

    def _of_schema(self, schema_id: int, body: bytes, registry: SchemaSource) -> Parsed:
        kind = registry.schema(schema_id).kind
        if kind == "JSON":
            return parse(body, "document")
        if kind != "AVRO":
            return Parsed(reasons=[f"schema {schema_id} is {kind.capitalize()}, which is not read: send JSON or Avro"])
        if schema_id not in self._avro:
            try:
                self._avro[schema_id] = AvroDecoder(registry.schema(schema_id))
            except ValueError as error:
                self._avro[schema_id] = f"schema {schema_id}: {error}"
        decoder = self._avro[schema_id]
        if isinstance(decoder, str):
            return Parsed(reasons=[decoder])
        try:
            value = decoder.decode(body)
        except ValueError as error:
            return Parsed(reasons=[f"schema {schema_id}: {error}"])
        if not isinstance(value, dict):
            return Parsed(reasons=[f"schema {schema_id}: an Avro value, but no record"])
        return Parsed(objects=[value], places=[""])


class ConfluentReader:
    """Reads framed records with our own names of fields or aliases of them.

    Args:
        codec: payloads to objects.
        columns: role to field name where the caller says so.
    """

    def __init__(self, codec: ConfluentCodec, *, columns: Mapping[str, str]) -> None:
        self._codec = codec
        self._columns = columns

    def read(self, records: Sequence[Record]) -> Read:
        """Read records into one block of rows."""
        objects = self._codec(records)
        rows = Rows(
            columns=dict_columns(objects.values, self._columns),
            record=np.array(objects.record, dtype=np.int64),
            place=objects.place,
        )
        return Read([rows], objects.bad, objects.skipped)
