from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.usage import UsageFact
from serving.journal.record import (
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    Gap,
    QuickFact,
    RecordKind,
    decode_checkpoint,
    decode_fact,
    encode_checkpoint,
    encode_fact,
    frame,
    record_at,
    scan,
)
from serving.journal.tests.facts import draft

DEFAULTS = {one.name: one.default for one in dataclasses.fields(UsageFact)}

# As payloads are: UTF-8, so without the byte 0xFF.
payloads = st.text(max_size=200).map(lambda text: text.encode(errors="replace"))
kinds = st.sampled_from(RecordKind)
instants = st.integers(min_value=0, max_value=2**64 - 1)
frames = st.builds(
    lambda kind, payload, at: (kind, payload, at, frame(kind, payload, written_at=at)),
    kinds,
    payloads,
    instants,
)


@pytest.mark.parametrize("some", [{}, {"rollout": "r", "rates": {"input": 3}, "billable": False}])
def test_a_quick_fact_is_the_same_bytes_and_the_same_cost(some: dict[str, Any]) -> None:
    slow = draft(**some)
    values = {name: getattr(slow, name) for name in DEFAULTS}
    given_only = {name: value for name, value in values.items() if value != DEFAULTS[name]}
    quick = QuickFact(**given_only)
    assert encode_fact(quick) == encode_fact(slow)
    assert decode_fact(encode_fact(quick)) == slow
    assert quick.cost_nano() == slow.cost_nano()


@given(st.lists(frames, max_size=8), st.integers(min_value=0, max_value=64))
def test_what_is_framed_is_read_back(
    written: list[tuple[RecordKind, bytes, int, bytes]], zeros: int
) -> None:
    data = b"".join(each[3] for each in written)
    found = scan(data + bytes(zeros))
    assert [(r.kind, r.payload, r.written_at) for r in found.records] == [e[:3] for e in written]
    assert found.gaps == ()
    assert found.tail is None
    assert found.end == len(data)


@given(frames, frames, frames, st.data())
def test_a_flipped_bit_loses_one_record_and_no_other(
    first: tuple[RecordKind, bytes, int, bytes],
    middle: tuple[RecordKind, bytes, int, bytes],
    last: tuple[RecordKind, bytes, int, bytes],
    data: st.DataObject,
) -> None:
    bit = data.draw(st.integers(min_value=0, max_value=8 * len(middle[3]) - 1))
    damaged = bytearray(middle[3])
    damaged[bit // 8] ^= 1 << bit % 8
    found = scan(first[3] + bytes(damaged) + last[3])
    assert [r.payload for r in found.records] == [first[1], last[1]]
    start = len(first[3])
    assert found.gaps == (Gap(start, start + len(damaged)),)


@given(st.lists(frames, min_size=1, max_size=4), st.data())
def test_a_cut_anywhere_leaves_the_whole_records_before_it(
    written: list[tuple[RecordKind, bytes, int, bytes]], data: st.DataObject
) -> None:
    whole = b"".join(each[3] for each in written)
    cut = data.draw(st.integers(min_value=0, max_value=len(whole)))
    found = scan(whole[:cut])
    ends = [record.end for record in scan(whole).records]
    assert len(found.records) == sum(end <= cut for end in ends)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_never_a_record(data: bytes) -> None:
    assert scan(data).records == ()


@given(frames, frames)
def test_a_record_inside_a_payload_is_not_found(
    inner: tuple[RecordKind, bytes, int, bytes], outer: tuple[RecordKind, bytes, int, bytes]
) -> None:
    """A customer's text that looks like a record cannot become one, even where its carrier is damaged."""
    carrier = encode_fact(draft(model=inner[3].decode("latin-1")))
    damaged = bytearray(frame(RecordKind.INTENT, carrier, written_at=1))
    damaged[HEADER_BYTES - 1] ^= 1
    found = scan(bytes(damaged) + outer[3])
    assert [r.payload for r in found.records] == [outer[1]]


@given(
    st.dictionaries(
        st.text(max_size=12), st.integers(min_value=-(2**63), max_value=2**63 - 1), max_size=5
    ),
    st.text(max_size=30),
)
def test_facts_and_checkpoints_survive_the_journal(quantities: dict[str, int], name: str) -> None:
    fact = draft(quantities=quantities, model=name, rollout=name, arm=None)
    again: UsageFact = decode_fact(encode_fact(fact))
    assert again == fact
    assert again.fact_hash() == fact.fact_hash()
    assert decode_checkpoint(encode_checkpoint(name, quantities)) == (name, quantities)


def test_a_payload_that_is_too_long_is_refused() -> None:
    frame(RecordKind.INTENT, bytes(MAX_PAYLOAD_BYTES), written_at=0)
    with pytest.raises(ValueError, match="at most 65536 bytes"):
        frame(RecordKind.INTENT, bytes(MAX_PAYLOAD_BYTES + 1), written_at=0)


def test_a_length_that_promises_more_than_there_is_waits() -> None:
    data = frame(RecordKind.INTENT, b"{}", written_at=0)
    assert record_at(data[:-1], 0) is None
    assert record_at(data, 0) is not None
    assert record_at(data, 1) is None
    assert record_at(data, len(data)) is None
