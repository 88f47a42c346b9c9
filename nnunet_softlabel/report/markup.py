"""Sentences of a page as HTML."""

from __future__ import annotations

import re

import jinja2
from markupsafe import Markup, escape


def with_code(text: str) -> Markup:
    """Escaped text; what stands between backticks is code.

    >>> print(with_code("see `tune-threshold` & more"))
    see <code>tune-threshold</code> &amp; more
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def template_environment(package: str) -> jinja2.Environment:
    """Templates of a package; everything they print is escaped, and what a page lacks is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
