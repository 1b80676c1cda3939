"""What admission calls things in Redis. All keys of a cell lie in one server."""

from __future__ import annotations


def admission_prefix(cell: str) -> str:
    """The script builds every key it touches from this; README.md has the table."""
    return f"tessera:admission:{cell}:"


def push_stream(prefix: str, writer: str) -> str:
    """Where a process hears of grants to its waiters that another process's call has made."""
    return f"{prefix}push:{writer}"


def money_pattern(prefix: str) -> str:
    """All keys of all epochs' money."""
    return f"{prefix}money:*"


def money_prefix(prefix: str, epoch: str) -> str:
    return f"{prefix}money:{epoch}:"
