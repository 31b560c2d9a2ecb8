"""Settings of the documentation: `make docs` builds it into docs/_build/html."""

from importlib.metadata import version as installed_version
from typing import Any

project = "Clinical drug discovery"
author = "the contributors"
copyright = "2026, the contributors, Apache-2.0"  # noqa: A001  # Sphinx reads this name
release = installed_version("clinical-drug-discovery")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3  # links such as data_model.md#what-is-cached

default_role = "code"  # `word` in docstrings
highlight_language = "text"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88  # one parameter a line in long signatures
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "Clinical drug discovery"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}


def keep_returns_whole(*event: Any) -> None:
    """Keep napoleon from reading the words before a colon in `Returns:` as a type.

    A line that begins with a colon has an empty type.
    """
    lines: list[str] = event[-1]
    for at, line in enumerate(lines[:-1]):
        if line == "Returns:":
            lines[at + 1] = f"    : {lines[at + 1].strip()}"


def setup(app: Any) -> None:
    """Let Sphinx call `keep_returns_whole` before napoleon (priority 500)."""
    app.connect("autodoc-process-docstring", keep_returns_whole, priority=400)
