"""What a client accepts: the weighted lists of `Accept` and `Accept-Encoding` (RFC 9110, section 12.4.2)."""

from collections.abc import Iterator


def weighted(header: str) -> Iterator[tuple[str, float]]:
    """Yield each name of a weighted list in lower case and its weight; one that is no number counts as 0."""
    for part in header.split(","):
        name, *parameters = [piece.strip().lower() for piece in part.split(";")]
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        yield name, weight
