"""Card and weights of a checkpoint as they belong together, also while another process saves. Standard library only."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

CARD_NAME = "card.json"
# A try fails only if a save ends between the reading of card and weights; so many in a row are no accident.
_MOST_READS = 8
Card = TypeVar("Card")
Taken = TypeVar("Taken")


def take_together(
    read_card: Callable[[], Card | None], take_weights: Callable[[Card], Taken]
) -> tuple[Card, Taken | None] | None:
    """Return a card and what was taken of its weights; None for weights that are lost, and if there is no card.

    Args:
        read_card: returns the card as it is now, None if there is none.
        take_weights: reads or copies the weights of a card; a FileNotFoundError says that they are not there, which is
            no loss where another card has replaced theirs.
    """
    card, missed = read_card(), None
    for _ in range(_MOST_READS):
        # Missed under a card read anew, too: no save replaced the weights, they are lost.
        if card is None or card == missed:
            break
        try:
            return card, take_weights(card)
        except FileNotFoundError:
            card, missed = read_card(), card
    return None if card is None else (card, None)


def read_card_bytes(folder: Path) -> bytes | None:
    """Return the card in a folder as it is, None if there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return (folder / CARD_NAME).read_bytes()
    except FileNotFoundError:
        return None


def weights_name(card: bytes) -> str:
    """Return the name of the file that a card says its weights are in.

    Raises:
        ValueError: it says none.
    """
    try:
        name = Path(json.loads(card)["weights"]).name
    except (KeyError, TypeError) as error:
        raise ValueError(f"the model card names no weights: {error!r}") from None
    if not name:
        raise ValueError("the model card names no weights")
    return name


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the files of the checkpoint in a folder by name, damaged or not; none if there is no checkpoint.

    Raises:
        OSError: one of them cannot be read.
    """

    def weights(card: bytes) -> dict[str, bytes]:
        try:
            name = weights_name(card)
            return {name: (folder / name).read_bytes()}
        except ValueError:
            return {}

    found = take_together(lambda: read_card_bytes(folder), weights)
    return {} if found is None else {CARD_NAME: found[0], **(found[1] or {})}
