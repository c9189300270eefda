"""The shells of the pages, and what a browser may do inside them."""

import secrets
from collections.abc import Collection
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined

from forecasting.dashboard.assets import Assets

# Parts of the API that a page shows only where the service has them, by the word that its modules ask for.
OPTIONAL_ROUTES = {
    "live": "/v1/graphs/{graph}/live",
    "reports": "/v1/reports",
    "schedules": "/v1/report-schedules",
    "alerts": "/v1/alerts",
}


class Pages:
    """Renders the pages.

    Args:
        assets: what they load.
        routes: paths of the API that this service has.
        short_max_steps: forecasts up to here are answered at once, longer ones are jobs.
    """

    def __init__(self, assets: Assets, *, routes: Collection[str], short_max_steps: int) -> None:
        environment = Environment(
            loader=PackageLoader("forecasting.dashboard"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        environment.globals |= {
            "asset": assets.url,
            "modules": assets.modules,
            "version": version("graphtide"),
            "features": " ".join(word for word, path in OPTIONAL_ROUTES.items() if path in routes),
            "short_max_steps": short_max_steps,
        }
        self._environment = environment

    def render(self, template: str, **values: str) -> tuple[str, dict[str, str]]:
        """Return a page and the headers that it is sent with.

        The shell names no graph but the one in its address, and says nothing of whether that exists.
        """
        nonce = secrets.token_urlsafe(16)
        page = self._environment.get_template(template).render(nonce=nonce, **values)
        return page, {"Content-Security-Policy": content_policy(nonce), "Cache-Control": "no-cache"}


def content_policy(nonce: str) -> str:
    """Return the policy of a page: our own files and nothing else, no code and no style inside it.

    BokehJS makes style elements as it draws; `nonce` admits those that our script marks with it, and no others.
    """
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; connect-src 'self';"
        " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
