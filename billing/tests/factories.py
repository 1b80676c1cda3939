"""Usage for tests, written as the product writes it: by the shipper's role."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from kernel.ids import ulid, uuid7
from kernel.usage import Completeness

ORGANIZATION = UUID(int=1)
NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)


def make_event(**fields: Any) -> dict[str, Any]:
    """One committed row of ``usage_event``."""
    row: dict[str, Any] = {
        "event_id": ulid(),
        "occurred_at": NOON,
        "organization_id": ORGANIZATION,
        "project_id": UUID(int=2),
        "key_id": UUID(int=3),
        "deployment_id": uuid7(),
        "version_id": uuid7(),
        "input_tokens": 10,
        "cached_input_tokens": 4,
        "output_tokens": 3,
        "cost_nano": 0,
        "kind": "tokens",
        "completeness": Completeness.FINAL.value,
        "billable": True,
        "model": "support",
        "pool": "",
        "replica": "",
        "incarnation": "",
        "cluster": "local",
        "tier": "standard",
        "finish_reason": "stop",
        "schema_version": 1,
        "fact_hash": "0" * 64,
        **fields,
    }
    names = ", ".join(row)
    values = ", ".join(f"%({name})s" for name in row)
    with psycopg.connect(os.environ["TESSERA_DATABASE_SHIPPER_URL"]) as connection:
        connection.execute(f"INSERT INTO usage_event ({names}) VALUES ({values})", row)
    return row
