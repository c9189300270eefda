"""How Sphinx builds the site: `python -m sphinx -W docs build/docs`. Nothing in it is loaded from elsewhere."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The generators of pages stand beside this file, the packages at the root.
sys.path.insert(0, str(ROOT))

project = "Graphtide"
release = version = installed_version("graphtide")
copyright = "the Graphtide contributors, MIT licence"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
root_doc = "index"
# Languages of examples that Pygments does not know stay uncoloured.
suppress_warnings = ["misc.highlighting_failure"]

# Links to headings work as on GitHub; a link to what is not there is an error of the build.
myst_heading_anchors = 4
myst_links_external_new_tab = False
myst_url_schemes = ["http", "https", "mailto"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"Graphtide {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"footer_icons": []}


def setup(app: object) -> None:
    """Write the pages that are made from the code before Sphinx looks for pages."""
    from docs.site.pages import write_pages  # noqa: PLC0415 - the path is set above

    app.connect("builder-inited", lambda _app: write_pages(ROOT))  # type: ignore[attr-defined]
