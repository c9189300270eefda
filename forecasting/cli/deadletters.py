"""`graphtide deadletters`: the records that were not counted, and sending them again."""

import json
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from forecasting.cli.call import Call, console, interruptible, say
from forecasting.cli.kafka import quieten
from forecasting.cli.store import StoreOption
from infra.errors import UsageError
from infra.steps import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream.sources.kafka.options import Connection
    from stream.store.dead_letters import DeadLetter, DeadLetters

SHOWN_LETTERS = 50
PAGE_LETTERS = 500

TopicOption = Annotated[
    str | None, typer.Option("--topic", metavar="NAME", help="Only letters of this topic, or file.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    letters = typer.Typer(
        name="deadletters", help="Records that were not counted: see them, send them again.", no_args_is_help=True
    )
    letters.command("list")(show)
    letters.command()(replay)
    app.add_typer(letters)


def show(
    ctx: typer.Context,
    topic: TopicOption = None,
    last: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most N letters.")] = SHOWN_LETTERS,
    after: Annotated[int, typer.Option("--after", metavar="NUMBER", min=0, help="Only later ones.")] = 0,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line, with the record.")] = False,
) -> None:
    """List dead letters with their topic, partition, offset, stage and reason; of a file, its name and the line.

    Example: graphtide deadletters list --topic events --json
    """
    from stream.deadletters import letter_json  # noqa: PLC0415 - not needed for --help
    from stream.store import open_dead_letters  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load({"store.url": ("--store", store)}).values
    with open_dead_letters(settings.store.url) as letters:
        found = letters.letters(after=after, limit=last + 1, topic=topic)
    shown, more = found[:last], len(found) > last
    if as_json:
        for letter in shown:
            sys.stdout.write(json.dumps(letter_json(letter)) + "\n")
    elif not shown:
        say("There are no dead letters.")
    else:
        console().print(_table(shown))
    if more:
        say(f"There are more; see --limit, or --after {shown[-1].number}")


def replay(
    ctx: typer.Context,
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]…", help="Letters; else all.")] = None,
    topic: TopicOption = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that were sent again before.")] = False,
    bootstrap_servers: Annotated[
        str | None, typer.Option("--bootstrap-servers", metavar="HOST:PORT,…", help="The brokers.")
    ] = None,
    kafka_option: Annotated[
        list[str] | None, typer.Option("--kafka-option", metavar="KEY=VALUE", help="An option of Kafka's own; repeat.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Send the records of dead letters to their topics again, after what was wrong has been mended.

    Good events that stood beside the bad one in its record come twice: give events an id, and they count once. No
    ingest may write the store meanwhile.

    Example: graphtide deadletters replay 17 18 --bootstrap-servers localhost:9092
    """
    from stream.deadletters import check_topics, has_topic  # noqa: PLC0415
    from stream.sources.kafka.options import connection_of  # noqa: PLC0415
    from stream.store import open_dead_letters  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load(
        {
            "store.url": ("--store", store),
            "kafka.bootstrap_servers": ("--bootstrap-servers", bootstrap_servers),
        }
    ).values
    connection = connection_of(settings.kafka, tuple(kafka_option or ()))
    quieten()
    sent = left_out = 0
    with (
        interruptible("What was acknowledged is marked; the same command sends the rest."),
        open_dead_letters(settings.store.url) as letters,
        ExitStack() as opened,
    ):
        if numbers:
            _check_numbers(letters, numbers)
        send: Callable[[Sequence[DeadLetter]], None] | None = None
        for page in _pages(letters, topic, numbers, only_unreplayed=not again):
            # One that is named is an error, with the reason, where it cannot be sent.
            to_send = page if numbers else [letter for letter in page if has_topic(letter)]
            check_topics(to_send)
            left_out += len(page) - len(to_send)
            if to_send:
                # Only now: the brokers may be down, and there may be nothing to send.
                send = send or opened.enter_context(_sending(settings.store.url, connection))
                send(to_send)
                sent += len(to_send)
    if left_out:
        say(f"note: {left_out:,} dead letters came from no topic of Kafka and are left out")
    if sent:
        say(f"Sent the records of {sent:,} dead letters again.")
    else:
        say("There are no dead letters to send." + ("" if again else " Those that were sent before need --again."))


def _check_numbers(letters: "DeadLetters", numbers: "Sequence[int]") -> None:
    known = {letter.number for letter in letters.letters(numbers=numbers, limit=len(numbers))}
    unknown = [str(number) for number in numbers if number not in known]
    if unknown:
        raise UsageError(
            f"there is no dead letter {', '.join(unknown)}", fix="graphtide deadletters list shows those that there are"
        )


def _pages(
    letters: "DeadLetters", topic: str | None, numbers: list[int] | None, *, only_unreplayed: bool
) -> "Iterator[list[DeadLetter]]":
    after = 0
    while page := letters.letters(
        after=after, limit=PAGE_LETTERS, topic=topic, numbers=numbers or None, only_unreplayed=only_unreplayed
    ):
        yield page
        after = page[-1].number


@contextmanager
def _sending(store_url: str, connection: "Connection") -> "Iterator[Callable[[Sequence[DeadLetter]], None]]":
    """Yield what sends letters again and marks them in the store."""
    from stream.deadletters import resend  # noqa: PLC0415
    from stream.sources.kafka.sender import KafkaSender  # noqa: PLC0415
    from stream.store import open_writer  # noqa: PLC0415

    with open_writer(store_url) as writer, KafkaSender(connection) as sender:

        def send(letters: "Sequence[DeadLetter]") -> None:
            done = resend(letters, sender)
            with writer.transaction():
                writer.letters_replayed(done)

        yield send


def _table(letters: "list[DeadLetter]") -> Table:
    table = Table(box=None)
    for title in ("number", "topic", "partition", "offset", "stage", "rejected", "reason"):
        is_count = title in {"number", "partition", "offset"}
        table.add_column(title, justify="right" if is_count else "left", no_wrap=title != "reason")
    for letter in letters:
        record = letter.record
        place = (record.topic, str(record.partition), str(record.offset))
        rejected = format_time(letter.rejected_us)
        table.add_row(str(letter.number), *place, letter.stage, rejected, letter.reason)
    return table
