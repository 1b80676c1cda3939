"""``manage.py watch``: keeps the documents that gateways read up to date, and follows engines."""

from __future__ import annotations

import signal
from threading import Event, Thread
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from redis import Redis

from controlplane.following import follow
from controlplane.publishing import Publisher
from controlplane.watching import watch
from controlplane.wiring import local_runtime


class Command(BaseCommand):
    help = "Publish routes and endpoints to the gateways whenever they change, until SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        publisher = Publisher(
            Redis.from_url(settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=2),
            cell=settings.TESSERA_CELL,
            key=bytes.fromhex(settings.TESSERA_DOCUMENT_KEY),
        )
        following = Thread(target=follow, args=(local_runtime(), stop), name="follow")
        following.start()
        try:
            watch(publisher, cell=settings.TESSERA_CELL, stop=stop)
        finally:
            stop.set()
            following.join()
