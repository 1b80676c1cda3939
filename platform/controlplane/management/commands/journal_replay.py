"""``manage.py journal_replay``: ship again what lies in this node's journal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from kernel.errors import Unavailable
from serving.journal.replay import NothingWritten, Replayed, replay
from serving.journal.segment import SegmentFile, writer_folders
from serving.journal.store import PostgresStore, UsageStore

_PROGRESS_SEGMENTS = 50


class Command(BaseCommand):
    help = (
        "Ship this node's journal again, segments already shipped included (they are kept 72 h). "
        "Facts that the database has are left alone, so this may be run at any time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--writer", default="", help="Only this writer's journal.")
        parser.add_argument(
            "--journal",
            type=Path,
            default=settings.TESSERA_HOME / "journal",
            help="The journal's folder; default: %(default)s.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Only count what is missing; write nothing."
        )

    def handle(self, *args: Any, writer: str, journal: Path, dry_run: bool, **options: Any) -> None:
        dsn = os.environ.get("TESSERA_DATABASE_SHIPPER_URL", "")
        if not dsn:
            raise CommandError("Set TESSERA_DATABASE_SHIPPER_URL: replay writes as the shipper.")
        known = [folder.name for folder in writer_folders(journal)]
        if writer and writer not in known:
            raise CommandError(f"No writer {writer} in {journal}. There are: {', '.join(known)}.")
        store = PostgresStore(dsn)
        target: UsageStore = NothingWritten(store) if dry_run else store
        try:
            done = replay(journal, target, writer=writer, on_segment=self._progress)
        except Unavailable as error:
            raise CommandError(f"Stopped; run it again when this is mended: {error}") from error
        finally:
            store.close()
        aside = f"{done.quarantined} stand in quarantine since now."
        if dry_run:
            aside = f"{done.quarantined} would stand in quarantine. Nothing was written."
        self.stdout.write(
            f"{done.segments} segments: {done.new} facts {'are' if dry_run else 'were'} missing"
            f"{'' if dry_run else ' and are there now'}, {done.known} were there, {aside}"
        )

    def _progress(self, segment: SegmentFile, so_far: Replayed) -> None:
        """Every so many segments: three days of a busy node are thousands."""
        if so_far.segments % _PROGRESS_SEGMENTS == 0:
            self.stderr.write(
                f"{so_far.segments} segments, {so_far.new} facts missing so far: {segment.path}"
            )
