"""The two documents that gateways join, kept up to date in Redis: built, numbered, signed,
announced.
"""

from __future__ import annotations

import logging

import msgspec
from django.db import connection
from django.utils import timezone
from redis import Redis

from controlplane.routes import routes_document
from kernel.clock import Clock, wall
from kernel.errors import Invalid
from serving.contracts import (
    EndpointsDocument,
    Kind,
    RoutesDocument,
    SignedDocument,
    cell_stream,
    document_key,
    open_document,
    sign,
)
from serving.models import DocumentSequence
from serving.selectors import fleet
from tenants.scope import platform_scope

_KEPT_ENTRIES = 10_000

log = logging.getLogger(__name__)

Document = RoutesDocument | EndpointsDocument


class Publisher:
    """Writes a cell's documents where they changed.

    What Redis holds decides, so an emptied Redis is filled again at the next look, and a second
    publisher that looks at the same rows writes nothing. Sequences come from PostgreSQL and only
    grow.
    """

    def __init__(self, redis: Redis, *, cell: str, key: bytes, clock: Clock = wall) -> None:
        self._redis = redis
        self._cell = cell
        self._key = key
        self._clock = clock

    def publish(self) -> int:
        """The number of documents that were written. Endpoints go first: a route never leads to an
        unknown engine.
        """
        return sum(self._write(document) for document in documents(self._cell))

    def _write(self, document: Document) -> bool:
        kind, scope = _name(document)
        body = msgspec.json.encode(document).decode()
        there = self._there(kind, scope)
        if there and there.body == body and there.sequence == sequence_now(kind, scope):
            return False
        sequence = sequence_next(kind, scope)
        signed = sign(document, key=self._key, sequence=sequence, issued_at=self._clock())
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.set(document_key(kind, scope), msgspec.json.encode(signed))
            pipeline.xadd(
                cell_stream(self._cell),
                {"kind": kind, "scope": scope, "sequence": sequence},
                maxlen=_KEPT_ENTRIES,
                approximate=True,
            )
            pipeline.execute()
        log.info("published %s of %s, sequence %d", kind, scope, sequence)
        return True

    def _there(self, kind: Kind, scope: str) -> SignedDocument | None:
        raw = self._redis.get(document_key(kind, scope))
        if not isinstance(raw, bytes):
            return None
        try:
            return open_document(raw, key=self._key)[0]
        except Invalid as error:
            log.warning("replacing the %s document of %s: %s", kind, scope, error.message)
            return None


def documents(cell: str) -> list[Document]:
    """What a cell's gateways should know now, in the order in which they should learn it."""
    with platform_scope():
        endpoints = [fleet.endpoints_document(row) for row in fleet.cluster_list_of_cell(cell)]
        return [*endpoints, routes_document(cell, at=timezone.now())]


def sequence_now(kind: Kind, scope: str) -> int:
    row = DocumentSequence.objects.filter(kind=kind, scope=scope).first()
    return row.sequence if row else 0


def sequence_next(kind: Kind, scope: str) -> int:
    """A number that nobody else gets, larger than all before."""
    DocumentSequence.objects.get_or_create(kind=kind, scope=scope)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE serving_documentsequence SET sequence = sequence + 1"
            " WHERE kind = %s AND scope = %s RETURNING sequence",
            [kind, scope],
        )
        (sequence,) = cursor.fetchone()
    return int(sequence)


def _name(document: Document) -> tuple[Kind, str]:
    if isinstance(document, RoutesDocument):
        return "routes", document.cell
    return "endpoints", document.cluster
