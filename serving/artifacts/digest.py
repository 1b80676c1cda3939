"""The name of a set of files: what an artifact's identity is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping


def artifact_digest(files: Mapping[str, str]) -> str:
    """SHA-256 over the canonical JSON list of ``[name, sha256]``, sorted by name."""
    text = json.dumps(sorted(files.items()), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
