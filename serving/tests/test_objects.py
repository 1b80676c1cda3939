"""Who may remove an object, and what is not held up while the store is asked."""

from __future__ import annotations

import threading
from pathlib import Path
from uuid import UUID

import pytest
from django.db import connection

from serving.artifacts.store import FolderStore
from serving.models import Artifact
from serving.services import artifact_validate
from serving.services.locks import object_locked
from serving.services.objects import objects_release
from serving.tests import uploads
from serving.tests.test_api import client_of
from tenants.scope import platform_scope
from tenants.tests.factories import make_organization

pytestmark = pytest.mark.django_db(transaction=True)


class FarStore(FolderStore):
    """Notes of every question whether a transaction was open meanwhile."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.in_transaction: list[bool] = []

    def _path(self, sha256: str) -> Path:
        self.in_transaction.append(connection.in_atomic_block)
        return super()._path(sha256)


def test_no_transaction_waits_for_the_store(tmp_path: Path) -> None:
    store = FarStore(tmp_path / "objects")
    uploads.base()
    files = uploads.adapter_bytes(tmp_path)
    artifact = UUID(uploads.upload(client_of(make_organization("acme")), files))
    artifact_validate(artifact, store=store)
    with platform_scope():
        made = Artifact.objects.get(id=artifact)
        digests = [file.sha256 for file in made.files.all()]
        made.delete()
    assert all(map(store.exists, digests))
    objects_release(digests, store)
    assert not any(map(store.exists, digests))
    assert set(store.in_transaction) == {False}


def test_one_at_a_time_decides_about_an_object() -> None:
    other = threading.Event()

    def wait_for_it() -> None:
        with object_locked("a"):
            other.set()
        connection.close()

    with object_locked("a"):
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        with object_locked("b"):
            assert not other.wait(0.3)
    assert other.wait(10)
    waiting.join()
