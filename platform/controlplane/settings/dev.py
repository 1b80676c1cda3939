"""At a developer's desk: debug pages on, secrets that hold until the process ends where none are
given.
"""

from __future__ import annotations

import os
import secrets

for _name in (
    "SECRET_KEY",
    "TESSERA_KEY_PEPPER",
    "TESSERA_DOCUMENT_KEY",
    "TESSERA_SALT_KEY",
    "TESSERA_ENGINE_KEY",
):
    os.environ.setdefault(_name, secrets.token_hex(32))

from .base import *  # noqa: E402, F403

DEBUG = True
