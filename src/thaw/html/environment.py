"""Pages are made of the templates in `templates`, and escape whatever they are told."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, select_autoescape


def environment() -> Environment:
    """Where templates are found and how they are read."""
    return Environment(
        loader=PackageLoader("thaw.html"), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
    )
