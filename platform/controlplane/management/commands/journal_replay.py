"""``manage.py journal_replay``: ship again what lies in this node's journal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from kernel.errors import Unavailable
from serving.journal.replay import replay
from serving.journal.segment import writer_folders
from serving.journal.store import PostgresStore


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

    def handle(self, *args: Any, writer: str, journal: Path, **options: Any) -> None:
        dsn = os.environ.get("TESSERA_DATABASE_SHIPPER_URL", "")
        if not dsn:
            raise CommandError("Set TESSERA_DATABASE_SHIPPER_URL: replay writes as the shipper.")
        known = [folder.name for folder in writer_folders(journal)]
        if writer and writer not in known:
            raise CommandError(f"No writer {writer} in {journal}. There are: {', '.join(known)}.")
        store = PostgresStore(dsn)
        try:
            done = replay(journal, store, writer=writer)
        except Unavailable as error:
            raise CommandError(f"Stopped; run it again when this is mended: {error}") from error
        finally:
            store.close()
        self.stdout.write(
            f"{done.segments} segments: {done.new} facts were missing and are there now, "
            f"{done.known} were there, {done.quarantined} stand in quarantine since now."
        )
