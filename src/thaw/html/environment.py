"""The Jinja environment of all pages."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from thaw import formats


@cache
def environment() -> Environment:
    """Templates of the package, with escaping and the number formats of Thaw as filters; unknown names are errors."""
    templates = Environment(
        loader=PackageLoader("thaw.html"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(
        breakable=_breakable,
        count=formats.count,
        duration=formats.duration,
        percent=formats.percent,
        thousands="{:,}".format,
    )
    return templates


def _breakable(name: str) -> Markup:
    """A name, escaped, that may wrap after an underscore or a slash."""
    text = str(escape(name))
    for mark in "_/":
        text = text.replace(mark, f"{mark}<wbr>")
    return Markup(text)
