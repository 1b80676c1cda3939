from __future__ import annotations

from dataclasses import replace

import pytest

from kernel.usage import Completeness, UsageFact

FACT = UsageFact(
    event_id="01J0000000000000000000000A",
    occurred_at=1,
    organization="o",
    project="p",
    key="k",
    deployment="d",
    version="v",
    quantities={"input": 3, "output": 5},
)


def test_the_same_fact_has_the_same_hash_in_whatever_order_it_was_written() -> None:
    other = replace(FACT, quantities={"output": 5, "input": 3})
    assert FACT.fact_hash() == other.fact_hash()


@pytest.mark.parametrize(
    "other",
    [
        replace(FACT, quantities={"input": 3, "output": 6}),
        replace(FACT, completeness=Completeness.ABORTED),
        replace(FACT, billable=False),
        replace(FACT, model="other"),
    ],
)
def test_another_fact_has_another_hash(other: UsageFact) -> None:
    assert FACT.fact_hash() != other.fact_hash()
