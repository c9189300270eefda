"""A live source from its name and the settings."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from infra.errors import InputError, UsageError
from infra.settings import LiveSettings
from infra.steps import SECOND_US
from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import RecordDecoder
from stream.decoders.records.formats import record_decoder
from stream.decoders.records.jetstream import COLLECTIONS
from stream.events import Interner
from stream.sources.live.connection import Limits, checked_url
from stream.sources.live.feed import Backoff
from stream.sources.live.jetstream import JetstreamTrack
from stream.sources.live.mastodon import MastodonTrack
from stream.sources.live.source import LiveSource, Pace, Service
from stream.sources.live.sse import SseConnection
from stream.sources.live.websocket import WebSocketConnection
from stream.sources.live.wikimedia import WikimediaTrack

LIVE_SOURCES = ("wikimedia", "jetstream", "mastodon")
MASTODON_TOKEN_VARIABLE = "GRAPHTIDE_MASTODON_TOKEN"


def open_live(
    name: str,
    settings: LiveSettings,
    decoding: DecodeOptions | None = None,
    *,
    url: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    environment: Mapping[str, str] | None = None,
) -> LiveSource:
    """Return the live source of a name.

    Args:
        name: one of `LIVE_SOURCES`.
        settings: the section `[live]`.
        decoding: which graph the events belong to, and whether bad records stop the reading; its format is the name's.
        url: in the place of the one in the settings.
        stop: asked often; True ends the reading.
        environment: where `GRAPHTIDE_MASTODON_TOKEN` may stand; None for the environment of the process.

    Raises:
        UsageError: there is no such source, or the address is none, or holds a secret.
        InputError: the file of the access token cannot be read.
    """
    if name not in LIVE_SOURCES:
        raise UsageError(f"unknown live source {name!r}", fix=f"use one of {', '.join(LIVE_SOURCES)}")
    decoding = replace(decoding or DecodeOptions(), format=name)
    environment = os.environ if environment is None else environment

    def decoder(interner: Interner) -> RecordDecoder:
        return record_decoder(decoding, interner=interner)

    decoder(Interner())  # a wrong option is told now, not when the first message comes
    return LiveSource(
        _SERVICES[name](settings, url, environment),
        decoding,
        decoder,
        pace=Pace(
            flush_interval_s=settings.flush_interval_s,
            batch_messages=settings.batch_messages,
            max_message_bytes=settings.max_message_bytes,
        ),
        backoff=Backoff(
            min_s=settings.backoff_min_s, max_s=settings.backoff_max_s, give_up_after_s=settings.give_up_after_s
        ),
        stop=stop,
    )


def _wikimedia(settings: LiveSettings, url: str | None, environment: Mapping[str, str]) -> Service:
    del environment
    address = checked_url(url or settings.wikimedia_url, ("http", "https"), "[live] wikimedia_url")
    return Service(
        name="wikimedia",
        url=address,
        track=lambda position: WikimediaTrack(
            address, user_agent=settings.user_agent, remember=settings.remember_messages, position=position
        ),
        connect=lambda to: SseConnection(to, _limits(settings)),
    )


def _jetstream(settings: LiveSettings, url: str | None, environment: Mapping[str, str]) -> Service:
    del environment
    address = checked_url(url or settings.jetstream_url, ("ws", "wss"), "[live] jetstream_url")
    return Service(
        name="jetstream",
        url=address,
        track=lambda position: JetstreamTrack(
            address,
            COLLECTIONS,
            user_agent=settings.user_agent,
            overlap_us=int(settings.overlap_s * SECOND_US),
            remember=settings.remember_messages,
            max_message_bytes=settings.max_message_bytes,
            position=position,
        ),
        connect=lambda to: WebSocketConnection(to, _limits(settings)),
        leaves_out=True,
    )


def _mastodon(settings: LiveSettings, url: str | None, environment: Mapping[str, str]) -> Service:
    address = checked_url(url or settings.mastodon_url, ("http", "https"), "[live] mastodon_url")
    token = _mastodon_token(settings, environment)
    return Service(
        name="mastodon",
        url=address,
        track=lambda position: MastodonTrack(
            address,
            token=token,
            user_agent=settings.user_agent,
            remember=settings.remember_messages,
            position=position,
        ),
        connect=lambda to: SseConnection(to, _limits(settings)),
    )


_SERVICES = {"wikimedia": _wikimedia, "jetstream": _jetstream, "mastodon": _mastodon}


def _limits(settings: LiveSettings) -> Limits:
    return Limits(
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        max_message_bytes=settings.max_message_bytes,
    )


def _mastodon_token(settings: LiveSettings, environment: Mapping[str, str]) -> str:
    """Return the access token, from the file if one is named, else from the environment; "" for none."""
    place = settings.mastodon_token_file
    if not place:
        token = environment.get(MASTODON_TOKEN_VARIABLE, "").strip()
        place = f"{MASTODON_TOKEN_VARIABLE} in the environment"
    else:
        try:
            token = Path(place).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InputError(
                f"the access token cannot be read from {place}: {reason}", fix="check [live] mastodon_token_file"
            ) from None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"{place} holds no access token", fix="it is one word of ASCII characters, and nothing else")
    return token
