from __future__ import annotations

import pytest

from kernel.errors import (
    Conflict,
    DomainError,
    Forbidden,
    Invalid,
    NotFound,
    QuotaExceeded,
    Unavailable,
)


@pytest.mark.parametrize(
    ("kind", "status", "retryable"),
    [
        (Invalid, 422, False),
        (Forbidden, 403, False),
        (NotFound, 404, False),
        (Conflict, 409, False),
        (QuotaExceeded, 429, True),
        (Unavailable, 503, True),
    ],
)
def test_a_refusal_says_whose_fault_it_is_and_whether_to_try_again(
    kind: type[DomainError], status: int, retryable: bool
) -> None:
    refusal = kind()
    assert (refusal.status, refusal.retryable) == (status, retryable)
    assert refusal.message == str(refusal) == kind.default_message


def test_a_refusal_can_be_more_precise_than_its_class() -> None:
    refusal = Invalid("No.", code="too_long", param="name", rule="name_length")
    assert (refusal.code, refusal.param, refusal.rule) == ("too_long", "name", "name_length")
    assert Invalid.code == "invalid"
