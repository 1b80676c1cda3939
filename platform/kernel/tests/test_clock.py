from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kernel.clock import from_micros, micros


def test_micros_are_whole_microseconds() -> None:
    assert micros(1.5) == 1_500_000


@given(st.integers(min_value=0, max_value=2**52))
def test_an_instant_survives_the_way_to_a_datetime_exactly(value: int) -> None:
    found = from_micros(value)
    assert found.tzinfo is UTC
    assert (found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == value
