"""Where templates come from, and how they are filled: everything escaped, nothing undefined."""

import jinja2


def _environment() -> jinja2.Environment:
    """Return the environment of all pages."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("forecasting.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template(name: str) -> jinja2.Template:
    """Return one of the pages."""
    return _environment().get_template(name)
