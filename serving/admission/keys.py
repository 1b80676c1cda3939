"""What admission calls things in Redis. All keys of a cell lie in one server."""

from __future__ import annotations


def admission_prefix(cell: str) -> str:
    """``admission.lua`` builds every key it touches from this: ``<prefix>slots:<pool>``."""
    return f"tessera:admission:{cell}:"
