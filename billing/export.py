"""Usage as CSV, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, fields

from billing.selectors import LABELLED_GROUPS, Group, Totals, Usage, UsageLine


def usage_csv(usage: Usage) -> str:
    """A header, then a line per usage line; what is an id has its name in the next column.

    No line of sums: the columns add up to it, and whoever sums them would count it twice.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(_header(usage))
    for line in usage.lines:
        named = _named(usage.groups, line)
        writer.writerow([*map(safe_cell, named), *astuple(line.totals)])
    return file.getvalue()


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet runs: an apostrophe makes text of what starts like a formula.

    Formulas start with ``= + - @``, their full-width forms, or blanks and invisible characters
    before them; what starts with a letter or a digit never is one.
    """
    return text if not text or text[0].isalnum() else "'" + text


def _header(usage: Usage) -> list[str]:
    columns: list[str] = []
    for group in usage.groups:
        columns += [group.value, f"{group}_name"] if group in LABELLED_GROUPS else [group.value]
    return [*columns, *(field.name for field in fields(Totals))]


def _named(groups: Iterable[Group], line: UsageLine) -> list[str]:
    cells: list[str] = []
    for group, value, label in zip(groups, line.values, line.labels, strict=True):
        cells += [value, label] if group in LABELLED_GROUPS else [value]
    return cells
