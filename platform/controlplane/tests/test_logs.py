from __future__ import annotations

import logging
import sys

import pytest

from controlplane.logs import LineFormatter, current_request_id


def _line(message: str, **fields: object) -> str:
    record = logging.LogRecord("tenants", logging.INFO, "", 0, message, (), None)
    record.__dict__.update(fields)
    return LineFormatter().format(record)


@pytest.mark.parametrize(
    "name", ['x\n{"level":"error"}', "\x1b[31mred", "a\r\nb", "\x00", "\u2028next", "\x85"]
)
def test_a_name_cannot_forge_a_line(name: str) -> None:
    """A29."""
    line = _line(f"project {name} made")
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_a_traceback_stays_in_its_line() -> None:
    try:
        int("first\nsecond")
    except ValueError:
        line = _line("failed", exc_info=sys.exc_info())
    assert len(line.splitlines()) == 1
    assert "ValueError" in line


def test_a_line_names_its_request() -> None:
    token = current_request_id.set("req_1")
    try:
        assert " req_1 " in _line("hello")
    finally:
        current_request_id.reset(token)
