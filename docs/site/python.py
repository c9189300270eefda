"""The Python interface; Sphinx fills it in from the docstrings."""

import graphtide
from docs.site.text import block


def page() -> str:
    """Return the page of the public names of `graphtide`."""
    parts = [
        "# Python\n",
        "Made from the docstrings of `graphtide`. [The Python client](../client.md) shows how it is used.\n",
    ]
    for name in graphtide.__all__:
        directive = f".. autoclass:: graphtide.{name}\n   :members:"
        parts += [f"## {name}\n", block("{eval-rst}", directive)]
    return "\n".join(parts)
