"""The seam between what should run and who runs it.

A runtime turns an ``EngineSpec`` into *items* with keys, tells which items there are, carries a
plan out, and reports changes. Above this seam nobody knows whether an item is a child process of
the supervisor or an object in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from threading import Event
from typing import Any, Protocol

from serving.controller.spec import EngineSpec


class Role(StrEnum):
    ENGINE = "engine"
    AGENT = "agent"
    SUPPORT = "support"  # whatever else a runtime needs around an engine


class ItemState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    STOPPED = (
        "stopped"  # it ended, and whoever keeps it running will start it again or has given up
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that should exist. The same key means the same thing, with the same owner.

    ``owner`` is the replica it belongs to. ``content`` is the runtime's own description, complete.
    """

    key: str
    owner: str
    role: Role
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedItem:
    """One thing that exists. ``detail`` is a sentence where ``state`` alone does not say enough.

    ``content`` is what the runtime needs to tell a difference, and means nothing to others.
    """

    key: str
    owner: str
    role: Role
    state: ItemState
    failures: int = 0  # in a row
    detail: str = ""
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do, in this order: create, update, delete. ``keep`` needs nothing."""

    create: tuple[Item, ...] = ()
    update: tuple[Item, ...] = ()
    delete: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.create or self.update or self.delete)

    @property
    def renewed(self) -> frozenset[str]:
        """The owners whose engine this plan starts: what was known of an earlier one is void."""
        started = (*self.create, *self.update)
        return frozenset(item.owner for item in started if item.role is Role.ENGINE)


class Runtime(Protocol):
    """Failures leave as ``kernel.errors.Unavailable`` with a sentence for people."""

    def render(self, spec: EngineSpec) -> tuple[Item, ...]:
        """The items of a spec, in the order in which they should be created. Asks nobody."""

    def observe(self) -> tuple[ObservedItem, ...]:
        """Everything of ours that exists in this cluster, whoever it belongs to."""

    def difference(self, item: Item, there: ObservedItem) -> str:
        """Why what is there is not what should be, as a short sentence; empty where it is. Pure."""

    def apply(self, plan: Plan) -> None:
        """Carry a plan out. What exists already and what is gone already are success."""

    def watch(self, stop: Event) -> Iterator[str]:
        """The owners of items that changed, until ``stop``. A hint: some changes may be missed."""
