"""The page on configuration names every variable that the product reads, and no other."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "configuration.md"
ROOMS = ("platform", "tenants", "serving", "billing", "examples")
NAME = re.compile(
    r"\b(TESSERA_[A-Z][A-Z_]+[A-Z]|AWS_[A-Z][A-Z0-9_]+|DATABASE_URL|REDIS_URL|CELERY_BROKER_URL)\b"
)
# Django settings of ours that carry the prefix but come from no environment.
NOT_FROM_OUTSIDE = {"TESSERA_KEY_REVOKED_RECEIVER"}
READ_BY_BOTO3 = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def _sources() -> list[Path]:
    return [
        path
        for room in ROOMS
        for path in (PROJECT / room).rglob("*.py")
        if "tests" not in path.parts and path.name not in {"test.py", "conftest.py"}
    ]


def _read() -> set[str]:
    quoted = re.compile(r"[\"']" + NAME.pattern + r"[\"'=]")
    return {match for path in _sources() for match in quoted.findall(path.read_text())}


def test_every_variable_is_documented() -> None:
    documented = set(NAME.findall(PAGE.read_text()))
    assert _read() - NOT_FROM_OUTSIDE - documented == set()


def test_no_variable_is_documented_that_nobody_reads() -> None:
    assert set(NAME.findall(PAGE.read_text())) - _read() - READ_BY_BOTO3 == set()
