from __future__ import annotations

from django.apps import AppConfig


class PortalConfig(AppConfig):
    """Templates, static files and template tags; the pages have no tables of their own."""

    name = "controlplane.portal"
    label = "portal"
    verbose_name = "Portal"
