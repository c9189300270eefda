"""Finding the name of a node in records that are kept as they came."""

import json
import re

# A text that JSON holds may itself be JSON, as a record in a line of a reject file is.
_NESTED = 4
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Mention:
    """Finds a name in records: as a word in text, as JSON and CSV write it too; anywhere in bytes that are no text."""

    def __init__(self, name: str) -> None:
        self._plain = name.encode()
        spellings = {name, json.dumps(name)[1:-1], json.dumps(name, ensure_ascii=False)[1:-1], name.replace('"', '""')}
        word = "|".join(re.escape(spelling) for spelling in sorted(spellings))
        self._word = re.compile(rf"(?<!\w)(?:{word})(?!\w)", re.IGNORECASE)

    def among(self, *parts: bytes | None) -> bool:
        """Tell whether any of these parts of a record mentions the name."""
        return any(self._is_in(part) for part in parts if part)

    def _is_in(self, part: bytes) -> bool:
        text = part.decode(errors="replace")
        return self._is_word_of(text) or ("\ufffd" in text and self._plain in part)

    def _is_word_of(self, text: str) -> bool:
        for _ in range(_NESTED):
            if self._word.search(text):
                return True
            # The letter of an escape would count as one of the word that follows it.
            plain = _unescaped(text)
            if plain == text:
                return False
            text = plain
        return self._word.search(text) is not None


def _unescaped(text: str) -> str:
    """Return a text with the escapes of JSON undone once, wherever they stand."""
    if "\\" not in text:
        return text
    undone = _ESCAPE.sub(_character, text)
    # Two escapes stand for a character beyond the first 65,536.
    return undone.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _character(escape: re.Match[str]) -> str:
    code, letter = escape.groups()
    return chr(int(code, 16)) if code else _CONTROLS.get(letter, letter)
