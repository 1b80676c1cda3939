"""The colour schemes a person may choose; without a choice the system's own is followed."""

from __future__ import annotations

THEMES = ("light", "dark")
THEME_COOKIE = "tessera_theme"
