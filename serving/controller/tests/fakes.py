"""A runtime in memory, with switches for what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from threading import Event

from serving.controller.runtime import Item, ItemState, ObservedItem, Plan, Role
from serving.controller.spec import EngineSpec
from serving.errors import RuntimeUnavailable


class Killed(BaseException):
    """What a kill -9 looks like from inside: nobody catches it."""


@dataclass
class FakeRuntime:
    """``steps_left`` counts down with every write; at zero the worker is killed, after the write
    has happened with ``after`` and before it without.
    """

    items: dict[str, Item] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    state: ItemState = ItemState.RUNNING
    writes: int = 0
    away: bool = False
    steps_left: int | None = None
    after: bool = False

    def render(self, spec: EngineSpec) -> tuple[Item, ...]:
        content = {"model": spec.model_name, "profile": asdict(spec.profile)}
        return tuple(
            Item(key=f"{role}-{replica}", owner=replica, role=role, content=content)
            for replica in spec.replicas
            for role in (Role.ENGINE, Role.AGENT)
        )

    def observe(self) -> tuple[ObservedItem, ...]:
        if self.away:
            raise RuntimeUnavailable
        return tuple(
            ObservedItem(
                key=item.key,
                owner=item.owner,
                role=item.role,
                state=self.state,
                failures=self.failures.get(item.key, 0),
                content=item.content,
            )
            for item in self.items.values()
        )

    def difference(self, item: Item, there: ObservedItem) -> str:
        return "" if item.content == there.content else "another description"

    def apply(self, plan: Plan) -> None:
        for item in (*plan.create, *plan.update):
            self._step()
            self.items[item.key] = item
            self._stepped()
        for key in plan.delete:
            self._step()
            self.items.pop(key, None)
            self._stepped()

    def watch(self, stop: Event) -> Iterator[str]:
        yield from ()

    def _step(self) -> None:
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0 and not self.after:
                raise Killed

    def _stepped(self) -> None:
        self.writes += 1
        if self.steps_left is not None and self.steps_left < 0:
            raise Killed
