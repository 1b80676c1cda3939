"""The verdict over the kill test has teeth."""

from __future__ import annotations

from typing import Any

import pytest

from bench.enginesim.journal import Line
from bench.kills.verdict import Asked, Row, contradictions, runs_by_request


def engine(*, stream: bool, tokens: int, ended: str | None, process: int = 1) -> list[Line]:
    """A token every 100 ms; without ``ended`` the engine was killed after the last one."""
    common: dict[str, Any] = {"number": 1, "process": process, "request": "req_1"}
    lines = [
        Line(at="begin", time=0.0, prompt_tokens=10, cached_tokens=4, stream=stream, **common),
        *(Line(at="token", time=n / 10, tokens=n, **common) for n in range(1, tokens + 1)),
    ]
    if ended:
        lines.append(Line(at="end", time=tokens / 10, tokens=tokens, ended=ended, **common))  # type: ignore[arg-type]
    return lines


def row(completeness: str, output: int, *, billable: bool = True) -> Row:
    return Row("1", completeness, billable, 10, 4, output)


WHOLE_STREAM = Asked("1", is_stream=True, is_whole=True, tokens=50)
CUT_STREAM = Asked("1", is_stream=True, is_whole=False, tokens=30)
WHOLE_PLAIN = Asked("1", is_stream=False, is_whole=True)
CUT_PLAIN = Asked("1", is_stream=False, is_whole=False)
UNSEEN = Asked("", is_stream=True, is_whole=False)


@pytest.mark.parametrize(
    ("asked", "lines", "booked", "is_right"),
    [
        (WHOLE_STREAM, engine(stream=True, tokens=50, ended="finished"), row("final", 50), True),
        (WHOLE_STREAM, engine(stream=True, tokens=50, ended="finished"), row("final", 49), False),
        (WHOLE_STREAM, engine(stream=True, tokens=50, ended="finished"), row("aborted", 50), False),
        (WHOLE_STREAM, engine(stream=True, tokens=50, ended="finished"), None, False),
        (WHOLE_PLAIN, engine(stream=False, tokens=50, ended="finished"), row("final", 50), True),
        (WHOLE_PLAIN, engine(stream=False, tokens=50, ended="finished"), row("unknown", 0), False),
        (
            WHOLE_PLAIN,
            engine(stream=False, tokens=50, ended="finished"),
            row("final", 0, billable=False),
            False,
        ),
        # The engine was killed, the gateway counted on.
        (CUT_STREAM, engine(stream=True, tokens=50, ended=None), row("aborted", 49), True),
        (CUT_STREAM, engine(stream=True, tokens=50, ended=None), row("aborted", 51), False),
        (CUT_STREAM, engine(stream=True, tokens=50, ended=None), row("aborted", 29), False),
        # The gateway was killed: its last checkpoint is at most a second old.
        (UNSEEN, engine(stream=True, tokens=50, ended="aborted"), row("estimated", 41), True),
        (UNSEEN, engine(stream=True, tokens=50, ended="aborted"), row("estimated", 29), False),
        (UNSEEN, engine(stream=True, tokens=50, ended="aborted"), row("estimated", 51), False),
        (UNSEEN, engine(stream=True, tokens=50, ended="aborted"), row("unknown", 0), False),
        (UNSEEN, engine(stream=True, tokens=9, ended="aborted"), row("unknown", 0), True),
        (UNSEEN, engine(stream=True, tokens=9, ended="aborted"), None, False),
        (CUT_PLAIN, engine(stream=False, tokens=0, ended=None), row("unknown", 0), True),
        (CUT_PLAIN, engine(stream=False, tokens=0, ended=None), row("estimated", 0), False),
        (CUT_PLAIN, engine(stream=False, tokens=0, ended=None), row("final", 0), False),
        # It had settled; only the last byte was lost.
        (CUT_PLAIN, engine(stream=False, tokens=9, ended="finished"), row("final", 9), True),
        # Tried on one engine, answered by another.
        (
            WHOLE_PLAIN,
            [
                *engine(stream=False, tokens=0, ended=None),
                *engine(stream=False, tokens=9, ended="finished", process=2),
            ],
            row("final", 9),
            True,
        ),
        (UNSEEN, [], row("unknown", 0), True),
        (UNSEEN, [], row("final", 0, billable=False), True),
        (UNSEEN, [], row("final", 5), False),
        (UNSEEN, [], row("estimated", 5), False),
    ],
)
def test_what_fits_together(
    asked: Asked, lines: list[Line], booked: Row | None, is_right: bool
) -> None:
    rows = {"1": booked} if booked else {}
    assert (contradictions([asked], runs_by_request(lines), rows) == []) is is_right
