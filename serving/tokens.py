"""What an engine agent on one machine shows the control plane."""

from __future__ import annotations

import hashlib
import hmac


def replica_token(secret: bytes, replica: str) -> str:
    """The bearer token of one replica's agent.

    Derived from the installation's engine secret, so that it is the same however often it is
    rendered and lies in no database. An agent cannot compute another's.
    """
    return hmac.new(secret, f"agent:{replica}".encode(), hashlib.sha256).hexdigest()


def replica_token_matches(secret: bytes, replica: str, token: str) -> bool:
    return hmac.compare_digest(replica_token(secret, replica).encode(), token.encode())
