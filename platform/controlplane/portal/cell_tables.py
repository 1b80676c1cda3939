"""The operators' pages of a cell as tables of plain text: one page, its CSV and its JSON agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.utils.translation import gettext as _

from controlplane.cell import CellNow, PoolQueue, Writer
from controlplane.gateways import Gateway
from controlplane.portal import wording


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``key`` names it in addresses; ``empty`` is what stands there instead of no rows."""

    key: str
    title: str
    text: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str

    @property
    def data(self) -> dict[str, Sequence[object]]:
        """As Unfold's table component takes it."""
        return {"headers": self.headers, "rows": self.rows}


def admission_tables(now: CellNow, names: Mapping[str, str]) -> tuple[Table, ...]:
    """``names``: organizations' short names by id."""
    return (
        Table(
            key="queues",
            title=_("Queues"),
            text=_("Calls that wait for a slot of a pool, by tier, the longest wait, and whose."),
            headers=[_("Pool"), _("Tier"), _("Waiting"), _("Longest wait"), _("Organizations")],
            rows=[row for pool in now.pools for row in _queue(pool, names)],
            empty=_("Nothing waits."),
        ),
        Table(
            key="slots",
            title=_("Slots"),
            text=_("What each pool's ready engines offer together, and what is taken of it."),
            headers=[_("Pool"), _("Slots"), _("Taken"), _("Waiting"), _("Bytes waiting")],
            rows=[_slots(pool) for pool in now.pools],
            empty=_("No pool has been called in this epoch."),
        ),
        Table(
            key="writers",
            title=_("Writers and their holds"),
            text=_(
                "Gateway processes that may hold money. Until all of the roster are accounted for,"
                " prepaid calls and hard budgets wait."
            ),
            headers=[
                _("Writer"),
                _("Node"),
                _("State"),
                _("Open holds"),
                _("Held"),
                _("Oldest hold"),
            ],
            rows=[_writer(each) for each in now.writers],
            empty=_("No gateway has entered the roster."),
        ),
    )


def gateway_tables(found: Sequence[Gateway]) -> tuple[Table, ...]:
    return (
        Table(
            key="processes",
            title=_("Processes"),
            text=_("What each process last said of itself; it speaks once a second."),
            headers=[
                _("Process"),
                _("State"),
                _("Up"),
                _("Redis"),
                _("PostgreSQL"),
                _("Routes"),
                _("Connections"),
                _("Streams"),
                _("Slots held"),
                _("Waiting"),
                _("Money"),
            ],
            rows=[_process(each) for each in found],
            empty=_("No gateway has spoken in this cell."),
        ),
        Table(
            key="decisions",
            title=_("Away from Redis, and away from engines"),
            text=_(
                "Calls decided on a process's own share while Redis was away, engines that it"
                " has ejected, and calls tried elsewhere; counted since it was first started."
            ),
            headers=[
                _("Process"),
                _("Admitted alone"),
                _("Refused alone"),
                _("Ejected now"),
                _("Ejections"),
                _("Retries"),
            ],
            rows=[_decisions(each) for each in found],
            empty=_("No gateway has spoken in this cell."),
        ),
        Table(
            key="journals",
            title=_("Journals"),
            text=_("Where each process's usage is on its way to PostgreSQL."),
            headers=[_("Process"), _("Writer"), _("Last shipped"), _("State")],
            rows=[_journal(each) for each in found],
            empty=_("No gateway has spoken in this cell."),
        ),
    )


def instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _queue(pool: PoolQueue, names: Mapping[str, str]) -> list[list[str]]:
    return [
        [
            pool.pool,
            tier.tier,
            str(tier.calls),
            _seconds(tier.oldest_seconds),
            ", ".join(
                f"{names.get(tenant, tenant)} ({calls})"
                for tenant, calls in sorted(tier.tenants.items(), key=lambda item: -item[1])
            ),
        ]
        for tier in pool.tiers
        if tier.calls
    ]


def _slots(pool: PoolQueue) -> list[str]:
    return [
        pool.pool,
        str(pool.slots),
        str(pool.taken),
        str(pool.waiting),
        wording.file_size(pool.waiting_bytes),
    ]


def _writer(each: Writer) -> list[str]:
    if each.is_missing:
        state = _("missing: prepaid calls wait for it")
    elif not each.is_alive:
        state = _("silent: its journal is to be closed")
    else:
        state = _("accounted for")
    return [
        each.id,
        each.node or "-",
        state,
        str(each.holds),
        wording.dollars(each.held_nano),
        _seconds(each.oldest_seconds),
    ]


def _process(each: Gateway) -> list[str]:
    state = (
        _("silent for %(time)s") % {"time": wording.duration(each.silent_seconds)}
        if each.is_silent
        else _("speaks")
    )
    return [
        each.name,
        state,
        wording.duration(each.up_seconds),
        _up(each.gauge("redis_up")),
        _up(each.gauge("database_up")),
        str(each.gauge("routes_sequence")),
        str(each.gauge("connections")),
        str(each.gauge("streams")),
        str(each.gauge("slots_held")),
        str(each.gauge("waiting")),
        _("ready") if each.gauge("money_ready") else _("waits"),
    ]


def _decisions(each: Gateway) -> list[str]:
    return [
        each.name,
        str(each.counter("local_admissions_total")),
        str(each.counter("local_refusals_total")),
        ", ".join(each.ejected) or _("none"),
        str(each.counter("ejections_total")),
        str(each.counter("retries_total")),
    ]


def _journal(each: Gateway) -> list[str]:
    shipped = each.shipped_at.strftime("%Y-%m-%d %H:%M:%S UTC") if each.shipped_at else _("nothing")
    return [each.name, each.writer, shipped, _("closed") if each.is_closed else _("open")]


def _up(value: int) -> str:
    return _("up") if value else _("away")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
