from __future__ import annotations

import pytest

from billing.money import nano_of_usd, nano_per_token, usd, usd_per_million
from kernel.errors import Invalid


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (-1, "-0.000000001"),
        (12_500_000_000, "12.50"),
        (-12_345_678_900, "-12.3456789"),
        (2**53 - 1, "9007199.254740991"),
    ],
)
def test_an_amount_is_shown_exactly_and_read_back(nano: int, text: str) -> None:
    assert usd(nano) == text
    assert nano_of_usd(text) == nano


@pytest.mark.parametrize(
    ("nano", "text"), [(150, "0.15"), (0, "0.00"), (1, "0.001"), (10**9, "1000000.00")]
)
def test_a_price_list_speaks_of_millions(nano: int, text: str) -> None:
    assert usd_per_million(nano) == text
    assert nano_per_token(text) == nano


@pytest.mark.parametrize(
    "text",
    ["", "x", "1,5", "0.0000000001", "1e-10", "9007199.3", "inf", "nan", "-1e400", "1e999999"],
)
def test_what_is_no_exact_amount_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        nano_of_usd(text)
