from __future__ import annotations

from celery import shared_task

from controlplane.key_use import key_use_note


@shared_task
def key_use() -> None:
    """Every minute: show when each key was last used."""
    key_use_note()
