"""The script that decides, put together from its files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

FILES: Final = (
    "head",
    "epoch",
    "rates",
    "money",
    "treasury",
    "queue",
    "operations",
    "look",
    "tail",
)
_FOLDER = Path(__file__).with_name("lua")

SCRIPT: Final = b"\n".join((_FOLDER / f"{name}.lua").read_bytes() for name in FILES)
SHA: Final = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()
