from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.controller.plan import make_plan
from serving.controller.runtime import Item, ItemState, ObservedItem, Plan, Role

Contents = Mapping[str, int]


def items(contents: Contents) -> tuple[Item, ...]:
    return tuple(
        Item(key=key, owner=key, role=Role.ENGINE, content={"version": version})
        for key, version in contents.items()
    )


def observed(contents: Contents) -> tuple[ObservedItem, ...]:
    return tuple(
        ObservedItem(
            key=key,
            owner=key,
            role=Role.ENGINE,
            state=ItemState.RUNNING,
            content={"version": version},
        )
        for key, version in contents.items()
    )


def difference(item: Item, there: ObservedItem) -> str:
    return "" if item.content == there.content else "another version"


def plan_of(wanted: Contents, there: Contents) -> Plan:
    return make_plan(items(wanted), observed(there), difference)


@pytest.mark.parametrize(
    ("wanted", "there", "done"),  # created, updated, deleted, kept
    [
        ({}, {}, ("", "", "", "")),
        ({"a": 1}, {}, ("a", "", "", "")),
        ({"a": 1}, {"a": 1}, ("", "", "", "a")),
        ({"a": 2}, {"a": 1}, ("", "a", "", "")),
        ({}, {"a": 1, "b": 1}, ("", "", "ba", "")),
        ({"a": 1, "b": 2, "c": 3}, {"b": 1, "c": 3, "d": 4}, ("a", "b", "d", "c")),
    ],
)
def test_what_is_done_with_each_item(
    wanted: Contents, there: Contents, done: tuple[str, str, str, str]
) -> None:
    plan = plan_of(wanted, there)
    created, updated = ("".join(item.key for item in some) for some in (plan.create, plan.update))
    assert (created, updated, "".join(plan.delete), "".join(plan.keep)) == done
    assert len(plan.reasons) == sum(map(len, done[:3]))


def carried_out(plan: Plan, there: Contents) -> Contents:
    after = {key: version for key, version in there.items() if key not in plan.delete}
    return after | {item.key: item.content["version"] for item in (*plan.create, *plan.update)}


_contents = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2))


@given(_contents, _contents)
def test_a_plan_leads_to_what_is_wanted_and_then_nothing_is_left_to_do(
    wanted: Contents, there: Contents
) -> None:
    after = carried_out(plan_of(wanted, there), there)
    assert after == wanted
    assert plan_of(wanted, after).is_empty


def test_owners_of_started_engines_are_named() -> None:
    assert plan_of({"a": 1, "b": 2, "c": 3}, {"b": 1, "c": 3, "d": 1}).renewed == {"a", "b"}
