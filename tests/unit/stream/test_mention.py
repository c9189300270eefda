"""A name is found in a record however JSON writes what stands around and in it."""

import json

import pytest

from stream.store.mention import Mention


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("alice", json.dumps({"text": "hello\nalice"})),
        ("alice", json.dumps({"text": "hi\talice!"})),
        ("alice", json.dumps({"text": "\u201calice\u201d said"})),
        ("alice", json.dumps({"text": "\U0001f642alice"})),
        ("https://x.org/users/alice", '{"actor":"https:\\/\\/x.org\\/users\\/alice"}'),
        ("Zo\u00eb", '{"src":"ZO\\u00CB"}'),
        ("\U0001f642bob", json.dumps({"src": "\U0001f642bob"})),
        ("back\\slash", json.dumps({"src": "back\\slash"})),
        ("alice", json.dumps({"record": json.dumps({"text": json.dumps({"text": "hello\nalice"})})})),
        ("alice", "a,alice,7"),
        ('al "x" ice', 'a,"al ""x"" ice",7'),
    ],
)
def test_it_is_found_behind_escapes(name: str, record: str) -> None:
    assert Mention(name).among(record.encode())
    assert Mention(name).among(b"\xff\xfe " + record.encode())


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("alice", json.dumps({"text": "malice\nalices alice_2"})),
        ("alice", json.dumps({"text": "\u00e9alice"})),
        ("alice", "\\ud83d \\u12 \\"),
        ("nalice", json.dumps({"text": "alice"})),
    ],
)
def test_another_word_is_not_it(name: str, record: str) -> None:
    assert not Mention(name).among(record.encode())


def test_bytes_that_are_no_text_are_searched_anywhere() -> None:
    assert Mention("alice").among(None, b"", b"\xffxxalicexx")
    assert not Mention("alice").among(None, b"", b"\xffxxalixx")
