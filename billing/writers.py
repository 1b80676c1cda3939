"""Journals' writers as operators see them, and writing one off.

A writer ends by itself: its process dies, its node's shipper closes its journal. Only where the
disk is lost does an operator end it, knowing what may be lost with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from django.db import IntegrityError
from django.utils import timezone

from billing.models import GatewayRoster, JournalPosition
from kernel.errors import Conflict, Invalid, NotFound
from tenants.access import Caller, Permission
from tenants.scope import platform_scope
from tenants.services import audit_record

SILENT_AFTER = timedelta(minutes=1)  # a shipper speaks every ten seconds
_ULID_LENGTH = 26
MAX_REASON = 500


class WriterState(StrEnum):
    LIVING = "living"
    DEAD = "dead"  # its journal is being shipped, and is closed soon
    HELD = "held"  # a later release wrote it: upgrade its node's shipper
    SILENT = "silent"  # nobody has spoken of it: its node is away, or its disk lost
    CLOSED = "closed"
    WRITTEN_OFF = "written off"


@dataclass(frozen=True, slots=True)
class WriterLoss:
    """What PostgreSQL knows of a writer that is to be written off."""

    writer: str
    state: WriterState
    segment: int
    offset: int
    shipped_at: datetime | None
    seen_at: datetime | None
    entered_at: datetime | None  # into the roster of those who may hold prepaid money


def writer_state(writer: JournalPosition, *, now: datetime) -> WriterState:
    """Pure."""
    if writer.written_off_at is not None:
        return WriterState.WRITTEN_OFF
    if writer.closed_at is not None:
        return WriterState.CLOSED
    if writer.seen_at is None or now - writer.seen_at > SILENT_AFTER:
        return WriterState.SILENT
    if writer.held_because:
        return WriterState.HELD
    return WriterState.LIVING if writer.is_living else WriterState.DEAD


def writer_loss(writer: str) -> WriterLoss:
    """What would be written off. Raises ``NotFound``, and ``Conflict`` where nothing may be."""
    with platform_scope():
        position = JournalPosition.objects.filter(pk=writer).first()
        entry = GatewayRoster.objects.filter(pk=writer).first()
    if position is None and entry is None:
        raise NotFound(f"No writer '{writer}' has ever been heard of.")
    if position is None:
        position = JournalPosition(writer=writer, segment=0, offset=0)
    state = writer_state(position, now=timezone.now())
    _refuse(writer, state)
    return WriterLoss(
        writer=writer,
        state=state,
        segment=position.segment,
        offset=position.offset,
        shipped_at=position.updated_at if position.segment else None,
        seen_at=position.seen_at,
        entered_at=entry.entered_at if entry else None,
    )


def writer_write_off(writer: str, *, caller: Caller, reason: str) -> WriterLoss:
    """Say that nothing follows of a writer whose disk is lost, so that nobody waits for it.

    Should the disk be found, the shipper still books what is on it. Raises ``Conflict`` for a
    writer that somebody has seen within the last minute.
    """
    caller.require(Permission.OPERATE)
    reason = reason.strip()
    if not 0 < len(reason) <= MAX_REASON:
        raise Invalid(
            f"A reason of 1 to {MAX_REASON} characters is needed.", param="reason", rule="reason"
        )
    loss = writer_loss(writer)
    now = timezone.now()
    ending = {
        "closed_at": now,
        "updated_at": now,
        "written_off_at": now,
        "written_off_by": caller.label,
        "written_off_reason": reason,
    }
    with platform_scope():
        silent = JournalPosition.objects.filter(pk=writer, closed_at=None, seen_at=loss.seen_at)
        if not silent.update(**ending) and not _entered(writer, ending):
            raise Conflict(f"'{writer}' was heard of just now; look again.")
        audit_record(
            caller,
            "journal.write_off",
            target_type="journal_writer",
            target_id=writer[-_ULID_LENGTH:],
            organization_id=None,
            detail={
                "writer": writer,
                "reason": reason,
                "shipped_to": [loss.segment, loss.offset],
                "seen_at": loss.seen_at and loss.seen_at.isoformat(),
            },
        )
    return loss


def _refuse(writer: str, state: WriterState) -> None:
    match state:
        case WriterState.WRITTEN_OFF | WriterState.CLOSED:
            raise Conflict(f"'{writer}' is {state} already.")
        case WriterState.HELD:
            raise Conflict(f"The journal of '{writer}' is there: upgrade its node's shipper.")
        case WriterState.LIVING | WriterState.DEAD:
            raise Conflict(
                f"The journal of '{writer}' is there: its node's shipper has just seen it."
            )
        case WriterState.SILENT:
            return


def _entered(writer: str, ending: dict[str, object]) -> bool:
    """For one that stands in the roster alone: nothing of it was ever shipped."""
    if JournalPosition.objects.filter(pk=writer).exists():
        return False
    try:
        JournalPosition.objects.create(writer=writer, segment=0, offset=0, **ending)
    except IntegrityError:
        return False
    return True
