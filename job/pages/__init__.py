"""What all HTML pages of a run share: how templates are rendered, and the style sheet.

A page is one file without scripts that asks nothing of the network.
"""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def environment(package: str) -> Environment:
    """Renders the templates of `package`, which may include those of this one. All text is
    escaped, and a name that is missing is an error (`jinja2.UndefinedError`)."""
    found = Environment(
        loader=ChoiceLoader([PackageLoader(name, "") for name in (package, __name__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["number"] = lambda value: f"{value:,}"
    return found
