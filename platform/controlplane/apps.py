from __future__ import annotations

from django.apps import AppConfig


class ControlPlaneConfig(AppConfig):
    """The project as an app: its commands, its pages, and the Celery app that ``shared_task`` binds
    to.
    """

    name = "controlplane"
    verbose_name = "Control plane"

    def ready(self) -> None:
        # Here and not in the package, so that importing one class from it costs no Celery.
        from controlplane.celery import app  # noqa: PLC0415

        app.set_default()
