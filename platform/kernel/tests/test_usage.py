from __future__ import annotations

from dataclasses import replace

import pytest

from kernel.usage import Completeness, UsageFact, accounts_of, cost_nano, usage_month

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


RATES = {"input": 100, "cached_input": 10, "output": 400}


def test_input_from_the_cache_costs_the_cache_s_rate_alone() -> None:
    quantities = {"input": 50, "cached_input": 20, "output": 3}
    assert cost_nano(quantities, RATES) == 30 * 100 + 20 * 10 + 3 * 400
    assert cost_nano(quantities, {}) == 0


def test_what_is_not_billable_costs_nothing() -> None:
    assert replace(FACT, rates=RATES).cost_nano() == 3 * 100 + 5 * 400
    assert replace(FACT, rates=RATES, billable=False).cost_nano() == 0


def test_a_fact_of_the_schema_before_keeps_its_hash() -> None:
    """It was shipped under that hash; shipped again it must not look like another fact."""
    old = replace(FACT, schema_version=1)
    assert old.fact_hash() == replace(old, rates={"input": 1}).fact_hash()
    assert old.fact_hash() == "d5ee344c67bfc0df704d9686da00f9e5b9bbd3d1905260c6d626c732d6842ef2"
    assert FACT.fact_hash() != replace(FACT, rates={"input": 1}).fact_hash()


@pytest.mark.parametrize(
    ("instant", "month"),
    [(0, "197001"), (1_772_323_199_999_999, "202602"), (1_772_323_200_000_000, "202603")],
)
def test_a_month_ends_at_midnight_in_utc(instant: int, month: str) -> None:
    assert usage_month(instant) == month


def test_a_fact_is_booked_on_its_balance_and_on_three_monthly_accounts() -> None:
    assert accounts_of(FACT) == ("org:o", "org:o:197001", "project:p:197001", "key:k:197001")
