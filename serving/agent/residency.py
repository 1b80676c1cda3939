"""What should happen next to each adapter of an engine. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from serving.contracts import AdapterReport, AdapterState, WantedAdapter

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
LASTING_RETRY_SECONDS = 60.0
PATIENCE = 3  # failures in a row that may pass by themselves before they are shown as one


@dataclass(frozen=True)
class Resident:
    """One adapter as far as it came on this incarnation."""

    adapter: WantedAdapter
    state: AdapterState = "fetching"
    reason: str = ""
    failures: int = 0
    again_at: float = 0.0  # not before this instant of the monotonic clock

    @property
    def is_settled(self) -> bool:
        """Nothing more to do on this incarnation, whatever comes."""
        return self.state in ("proven", "no_effect")

    def report(self) -> AdapterReport:
        return AdapterReport(
            name=self.adapter.name,
            digest=self.adapter.digest,
            state=self.state,
            reason=self.reason,
        )


@dataclass(frozen=True)
class Changes:
    """What to do now: bring these in this order, drop those names, and look again at an instant."""

    bring: tuple[Resident, ...]
    drop: tuple[str, ...]
    look_again_at: float | None


def changes(
    wanted: tuple[WantedAdapter, ...], residents: Mapping[str, Resident], *, now: float
) -> Changes:
    """Compare orders with what is there. An adapter whose digest changed is another adapter."""
    names = {adapter.name: adapter for adapter in wanted}
    drop = tuple(
        name for name, resident in residents.items() if names.get(name) != resident.adapter
    )
    kept = {name: resident for name, resident in residents.items() if name not in drop}
    open_ones = [kept.get(adapter.name, Resident(adapter)) for adapter in wanted]
    open_ones = [resident for resident in open_ones if not resident.is_settled]
    later = [resident.again_at for resident in open_ones if resident.again_at > now]
    return Changes(
        bring=tuple(resident for resident in open_ones if resident.again_at <= now),
        drop=drop,
        look_again_at=min(later, default=None),
    )


def failed(resident: Resident, reason: str, *, lasting: bool, now: float) -> Resident:
    """After a failure: shown as failed if it is lasting or keeps happening, and tried again."""
    failures = resident.failures + 1
    wait = LASTING_RETRY_SECONDS
    if not lasting:
        wait = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 10))
    return replace(
        resident,
        state="failed" if lasting or failures >= PATIENCE else resident.state,
        reason=reason,
        failures=failures,
        again_at=now + wait,
    )
