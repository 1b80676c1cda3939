from __future__ import annotations

from celery import shared_task

from billing.services import partitions_create


@shared_task
def partitions() -> None:
    """Daily: usage of the coming months has a place before it arrives."""
    partitions_create()
