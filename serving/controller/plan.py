"""Compare what should be with what is. Pure, and knows no runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from serving.controller.runtime import Item, ObservedItem, Plan

Difference = Callable[[Item, ObservedItem], str]


def make_plan(
    desired: Iterable[Item], observed: Iterable[ObservedItem], difference: Difference
) -> Plan:
    """What has to happen so that the observed items become the desired ones.

    Applied and observed again, the next plan is empty. Deletions go in the reverse order of
    observation, so that what was created last goes first.
    """
    wanted = {item.key: item for item in desired}
    there = {item.key: item for item in observed}
    create = tuple(item for key, item in wanted.items() if key not in there)
    changes = {
        key: why
        for key in wanted.keys() & there.keys()
        if (why := difference(wanted[key], there[key]))
    }
    update = tuple(item for key, item in wanted.items() if key in changes)
    delete = tuple(key for key in reversed(there) if key not in wanted)
    return Plan(
        create=create,
        update=update,
        delete=delete,
        keep=tuple(key for key in wanted if key in there and key not in changes),
        reasons=(
            *(f"{item.key} is not there" for item in create),
            *(f"{item.key}: {changes[item.key]}" for item in update),
            *(f"{key} should not be there" for key in delete),
        ),
    )
