"""Mail: what is told of recipients that a server does not take, now or ever."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email import message_from_string, policy
from email.utils import parsedate_to_datetime

import pytest

from forecasting.reports.deliveries import DeliveryError
from forecasting.reports.targets import mail
from forecasting.reports.targets.parcel import Parcel
from infra.settings import TargetSettings

PARCEL = Parcel("key-1", "town", "Report on town", "All is well.", (), {})


@contextmanager
def mail_server(answers: dict[str, str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the port of a server that answers so to recipients, 250 to others, and the messages that it took."""
    taken: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            self.say("220 here")
            while words := self.rfile.readline().decode().strip():
                command = words.partition(" ")[0].upper()
                if command == "RCPT":
                    self.say(answers.get(words.partition("<")[2].rstrip(">"), "250 ok"))
                elif command == "DATA":
                    self.say("354 go on")
                    lines: list[str] = []
                    while (line := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                        lines.append(line)
                    taken.append("\n".join(lines))
                    self.say("250 taken")
                elif command == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1], taken
        finally:
            server.shutdown()


def target(port: int) -> TargetSettings:
    return TargetSettings(
        kind="email", smtp_host="127.0.0.1", smtp_port=port, smtp_tls="none", sender="graphtide@example.org",
        to=["a@example.org", "b@example.org"],
    )  # fmt: skip


def test_mail_is_dated_and_goes_to_all() -> None:
    with mail_server({}) as (port, taken):
        mail.send(replace(PARCEL, text="Grüße"), target(port), 5)
    (text,) = taken
    found = message_from_string(text, policy=policy.default)
    assert found["To"] == "a@example.org, b@example.org"
    assert parsedate_to_datetime(found["Date"]).year >= 2026


@pytest.mark.parametrize(
    ("answers", "is_final", "told"),
    [
        (dict.fromkeys(("a@example.org", "b@example.org"), "450 4.2.0 greylisted"), False, "2 of 2"),
        (dict.fromkeys(("a@example.org", "b@example.org"), "550 no such user"), True, "2 of 2"),
        ({"a@example.org": "550 no such user", "b@example.org": "452 mailbox full"}, False, "2 of 2"),
        ({"b@example.org": "452 mailbox full"}, False, "1 of 2 recipients: b@example.org"),
        ({"b@example.org": "550 no such user"}, True, "1 of 2 recipients: b@example.org"),
    ],
)
def test_recipients_that_are_refused_are_named_and_those_for_now_tried_again(
    answers: dict[str, str], is_final: bool, told: str
) -> None:
    with mail_server(answers) as (port, taken), pytest.raises(DeliveryError, match=told) as caught:
        mail.send(PARCEL, target(port), 5)
    assert caught.value.is_final is is_final
    assert len(taken) == (1 if len(answers) == 1 else 0)
