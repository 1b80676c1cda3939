"""How a check says no: the rule that was broken, and a sentence for the person who uploaded."""

from __future__ import annotations


class Refused(Exception):
    """``rule`` is stable and for machines; ``reason`` says what is wrong and what to do."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason


def shown(text: object, limit: int = 80) -> str:
    """A hostile name as one short printable piece of a sentence."""
    return ascii(str(text)[:limit])
