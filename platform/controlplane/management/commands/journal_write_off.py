"""``manage.py journal_write_off``: nothing follows of a writer whose disk is lost."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

from billing.writers import WriterLoss, writer_loss, writer_write_off
from controlplane.management.plain import PlainCommand
from kernel.errors import Conflict
from serving.journal.segment import writer_folders
from tenants.access import Caller


class Command(PlainCommand):
    help = (
        "Write off a gateway process's journal whose disk is lost: it counts as closed, and "
        "prepaid money that waits for it goes on. What it had not shipped is not billed. "
        "Recorded with the reason; refused while anybody still sees the journal."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("writer", help="as the operators' page 'Journal positions' shows it")
        parser.add_argument("--reason", required=True, help="what happened to the disk")
        parser.add_argument("--dry-run", action="store_true", help="only show what is lost")

    def handle(self, *_args: Any, **options: Any) -> None:
        writer = options["writer"]
        if writer in {folder.name for folder in writer_folders(settings.TESSERA_HOME / "journal")}:
            raise Conflict(f"The journal of '{writer}' is on this node: let its shipper close it.")
        if options["dry_run"]:
            self.say(f"{_in_words(writer_loss(writer))} Nothing was written off.")
            return
        caller = Caller.system(f"journal_write_off by {getpass.getuser()}")
        loss = writer_write_off(writer, caller=caller, reason=options["reason"])
        self.say(f"{_in_words(loss)} It is written off, and recorded.")


def _in_words(loss: WriterLoss) -> str:
    if loss.shipped_at is None:
        shipped = "Nothing of its journal was ever shipped"
    else:
        shipped = (
            f"Its journal is shipped up to byte {loss.offset} of segment {loss.segment},"
            f" {_ago(loss.shipped_at)}"
        )
    seen = "its node's shipper never spoke of it"
    if loss.seen_at is not None:
        seen = f"its node's shipper last saw it {_ago(loss.seen_at)}"
    prepaid = " It may have held prepaid money." if loss.entered_at else ""
    return (
        f"{loss.writer}: {shipped[0].lower()}{shipped[1:]}; {seen}."
        f" What came after is lost.{prepaid}"
    )


def _ago(instant: datetime) -> str:
    seconds = int((timezone.now() - instant).total_seconds())
    hours, rest = divmod(seconds, 3600)
    return f"{hours} h {rest // 60} min ago" if hours else f"{rest // 60} min {rest % 60} s ago"
