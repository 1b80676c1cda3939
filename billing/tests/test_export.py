from __future__ import annotations

import csv
import io
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.export import safe_cell, usage_csv
from billing.selectors import Group, Period, Totals, Usage, UsageLine

DAY = Period(date(2026, 3, 1), date(2026, 3, 1))


def one_line(model: str) -> Usage:
    return Usage(
        (Group.MODEL,), DAY, (UsageLine((model,), (model,), Totals(requests=1)),), Totals()
    )


@pytest.mark.parametrize(
    "text",
    [
        "=cmd|' /C calc'!A0",
        "+1",
        "-1+1",
        "@SUM(A1)",
        "|ls",
        "%0A",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1",
        "\ufeff=1",
        "\u200b=1",
        "\uff1d1",
        "\x00=1",
    ],
)
def test_formulas_become_text(text: str) -> None:
    assert safe_cell(text) == "'" + text


@pytest.mark.parametrize("text", ["", "support-desk", "a=b", "2026-03-01", "Ünïcode", "e-mail"])
def test_ordinary_text_stays(text: str) -> None:
    assert safe_cell(text) == text


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_any_name_stays_in_its_cell(model: str) -> None:
    lines = list(csv.reader(io.StringIO(usage_csv(one_line(model)), newline="")))
    assert len(lines) == 2
    assert lines[1][0] in {model, "'" + model}
    assert lines[1][1:3] == ["1", "0"]


def test_ids_carry_their_names() -> None:
    line = UsageLine(("1", "2026-03-01"), ("Default", "2026-03-01"), Totals(output_tokens=5))
    text = usage_csv(Usage((Group.PROJECT, Group.DAY), DAY, (line,), Totals()))
    assert text.splitlines()[0] == (
        "project,project_name,day,requests,input_tokens,cached_input_tokens,output_tokens,"
        "final,aborted,estimated,unknown,cost_nano"
    )
    assert text.splitlines()[1] == "1,Default,2026-03-01,0,0,0,5,0,0,0,0,0"
