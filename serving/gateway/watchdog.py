"""Whether a replica still gets on. Pure.

vLLM's ``/health`` says 200 with a dead engine behind it, and its HTTP server sends an answer's head
before there is a token. What counts here are pieces of answers: a replica that owes some and gives
none to anybody, while another of its pool does, is stalled. Whole answers say nothing until their
end, so only streams are owed pieces. A stalled replica is ejected, hence probed: wrongly suspected,
it misses a second of new requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

FIRST_TOKEN_FACTOR = 2  # a prompt may take longer than a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """Of one replica. Since when the most patient of its streams waits, and when it gave last."""

    first_since: float | None = None  # streams without a first token
    next_since: float | None = None  # streams that have begun
    heard_at: float = float("-inf")


def stalled(
    pool: Sequence[str], signs: Mapping[str, Signs], *, now: float, quiet_seconds: float
) -> Iterator[str]:
    """Incarnations of a pool that owe a piece for ``quiet_seconds`` while others gave one."""
    known = [(name, signs[name]) for name in pool if name in signs]
    for name, own in known:
        if not _is_quiet(own, now=now, quiet_seconds=quiet_seconds):
            continue
        others_heard_at = max((s.heard_at for other, s in known if other != name), default=-1e9)
        if now - others_heard_at < quiet_seconds:
            yield name


def _is_quiet(signs: Signs, *, now: float, quiet_seconds: float) -> bool:
    if signs.next_since is not None and now - signs.heard_at > quiet_seconds:
        return True
    if signs.first_since is None:
        return False
    since = max(signs.first_since, signs.heard_at)
    return now - since > quiet_seconds * FIRST_TOKEN_FACTOR
