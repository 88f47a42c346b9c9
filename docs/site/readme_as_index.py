"""The site's first page is README.md and another is CONTRIBUTING.md, so that nothing is said twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHOWN_AS = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md"}


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Called by MkDocs for every page; links of the two files point into ``docs/``, where the site begins."""
    source = SHOWN_AS.get(page.file.src_uri)
    if source is None:
        return markdown
    text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
    for shown, name in SHOWN_AS.items():
        text = text.replace(f"]({name})", f"]({shown})")
    return text
