"""The door to the process environment: every setting that comes from outside enters here."""

from __future__ import annotations

import os
import re
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

_SECRET = re.compile(r"(?:[0-9a-fA-F]{2}){32,}")


def text(name: str, default: str = "") -> str:
    """The variable's value, or ``default`` where it is absent or empty."""
    return os.environ.get(name, "").strip() or default


def number(name: str, default: int) -> int:
    value = text(name)
    try:
        return int(value) if value else default
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {value!r}.") from None


def flag(name: str) -> bool:
    """True for 1, true, yes and on; anything else is false."""
    return text(name).lower() in {"1", "true", "yes", "on"}


def names(name: str, default: str = "") -> list[str]:
    """A list separated by commas."""
    return [item.strip() for item in text(name, default).split(",") if item.strip()]


def folder(name: str, default: Path) -> Path:
    return Path(text(name, str(default))).absolute()


def hexadecimal(*variables: str) -> None:
    """Stop the process at a key that is too short or not hexadecimal, without showing it."""
    for name in variables:
        if _SECRET.fullmatch(text(name)) is None:
            raise ImproperlyConfigured(
                f"{name} must be 32 bytes or more in hexadecimal, as `openssl rand -hex 32` makes."
            )


def required(*variables: str) -> None:
    """Stop the process with one line that names what is missing."""
    missing = [name for name in variables if not text(name)]
    if missing:
        raise ImproperlyConfigured(
            f"Set {', '.join(missing)} in the environment (docs/configuration.md says what for), "
            "or start everything with `make up`, which makes them."
        )
