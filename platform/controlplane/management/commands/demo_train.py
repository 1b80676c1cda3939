"""``manage.py demo_train``: make the demo's two adapters again from their texts."""

from __future__ import annotations

import subprocess
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.engine.base import DEMO, demo_base
from controlplane.engine.environment import EngineUnavailable
from controlplane.engine.install import install_engine

DESKS = ("acme", "globex")


class Command(BaseCommand):
    help = "Train the demo's adapters from examples/demo/*/texts.txt (some minutes on 2 cores)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--out", type=Path, default=DEMO, help="where <desk>/adapter is put")

    def handle(self, *_args: Any, **options: Any) -> None:
        started = time.monotonic()
        try:
            python = install_engine(self.stdout.write)
            base = demo_base(self.stdout.write)
        except EngineUnavailable as error:
            raise CommandError(error.message) from error
        for desk in DESKS:
            self._train(python, base.folder, desk, options["out"])
        self.stdout.write(f"Both trained in {time.monotonic() - started:.0f} s.")

    def _train(self, python: Path, base: Path, desk: str, out: Path) -> None:
        command = [
            str(python), str(DEMO / "train.py"),
            "--base", str(base),
            "--texts", str(DEMO / desk / "texts.txt"),
            "--keep", str(DEMO / "keep.txt"),
            "--out", str((out / desk / "adapter").absolute()),
        ]  # fmt: skip
        if subprocess.run(command, check=False).returncode:
            raise CommandError(f"Training {desk} failed; the trainer's own words are above.")
