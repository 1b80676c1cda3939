"""Lucide icons, inlined into the page so that they take the colour of the text around them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

_FOLDER = Path(__file__).parent / "icons"
_SHAPES = re.compile(r"<svg[^>]*>(.*)</svg>", re.DOTALL)


@cache
def icon(name: str) -> SafeString:
    """The icon as an element that screen readers pass over; the word beside it says the same."""
    found = _SHAPES.search((_FOLDER / f"{name}.svg").read_text())
    if found is None:
        raise ValueError(f"{name}.svg holds no svg element")
    shapes = mark_safe(" ".join(found.group(1).split()))  # noqa: S308 - our own file
    return format_html(
        '<svg class="icon icon-{}" viewBox="0 0 24 24" fill="none" stroke="currentColor" '
        'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{}</svg>',
        name,
        shapes,
    )
