"""Sentences of a page as HTML."""

from __future__ import annotations

import re

from markupsafe import Markup, escape


def with_code(text: str) -> Markup:
    """Escaped text; what stands between backticks is code.

    >>> print(with_code("see `tune-threshold` & more"))
    see <code>tune-threshold</code> &amp; more
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
