from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.ids import adapter_name, request_id, short_name, ulid, ulid_time, uuid7


def test_a_uuid7_says_its_version_and_its_time() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_sort_by_the_millisecond_they_were_made_in() -> None:
    first, first_ulid = uuid7(), ulid()
    time.sleep(0.002)
    assert first < uuid7()
    assert first_ulid < ulid()


def test_ids_do_not_repeat() -> None:
    assert len({uuid7() for _ in range(10_000)}) == 10_000
    assert len({ulid() for _ in range(10_000)}) == 10_000


def test_a_request_id_is_a_ulid_with_a_prefix() -> None:
    assert request_id().startswith("req_")
    assert len(request_id()) == 30


@given(st.uuids(), st.uuids())
def test_short_names_never_collide(one: uuid.UUID, other: uuid.UUID) -> None:
    assert (short_name(one) == short_name(other)) == (one == other)
    assert len(short_name(one)) == 26
    assert short_name(one).islower() or short_name(one).isdigit()


def test_an_adapter_is_named_by_tenant_deployment_and_content() -> None:
    organization, deployment = uuid7(), uuid7()
    name = adapter_name(organization, deployment, "0123456789abcdef")
    assert name == f"{short_name(organization)}--{short_name(deployment)}--0123456789ab"


def test_a_ulid_tells_when_it_was_made() -> None:
    made = ulid_time(ulid())
    assert made is not None
    assert abs(time.time() - made) < 60


@pytest.mark.parametrize("text", ["", "x" * 26, "01ARZ3NDEK", "grant-1"])
def test_what_is_no_ulid_tells_no_time(text: str) -> None:
    assert ulid_time(text) is None
