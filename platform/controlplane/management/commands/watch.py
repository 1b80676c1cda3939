"""``manage.py watch``: keeps the documents that gateways read up to date."""

from __future__ import annotations

import signal
from threading import Event
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from redis import Redis

from controlplane.publishing import Publisher
from controlplane.watching import watch


class Command(BaseCommand):
    help = "Publish routes and endpoints to the gateways whenever they change, until SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002
        stop = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        publisher = Publisher(
            Redis.from_url(settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=2),
            cell=settings.TESSERA_CELL,
            key=bytes.fromhex(settings.TESSERA_DOCUMENT_KEY),
        )
        watch(publisher, cell=settings.TESSERA_CELL, stop=stop)
