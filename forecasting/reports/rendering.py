"""Where templates come from, and how they are filled: everything escaped, nothing undefined."""

import jinja2


def environment() -> jinja2.Environment:
    """Return the environment of all pages."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("forecasting.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
