"""A real installation: nothing has a default that would weaken it."""

from __future__ import annotations

from . import environment
from .base import *  # noqa: F403

_KEYS = ("TESSERA_KEY_PEPPER", "TESSERA_DOCUMENT_KEY", "TESSERA_SALT_KEY", "TESSERA_ENGINE_KEY")

environment.required("SECRET_KEY", *_KEYS)
environment.hexadecimal(*_KEYS)
