"""Events to payloads of records, one file a format; `stream.decoders.records` reads each of them back."""

from stream.encoders.base import ENCODINGS, Encoded, Encoder, event_encoder

__all__ = ["ENCODINGS", "Encoded", "Encoder", "event_encoder"]
