"""Log lines that cannot be forged: one record is one line, whatever a tenant calls itself."""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar

current_request_id: ContextVar[str] = ContextVar("current_request_id", default="-")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class LineFormatter(logging.Formatter):
    """Time, level, logger, request id, message; control characters are shown as escapes.

    A traceback is folded into the same line.
    """

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return _CONTROL.sub(lambda match: repr(match.group())[1:-1], text)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(request_id)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.request_id = current_request_id.get()
        return super().formatMessage(record)
