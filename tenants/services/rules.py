"""Rules that several writes share: how names look, and what a broken constraint means."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import IntegrityError
from django.utils.text import slugify

from kernel.errors import DomainError, Invalid


def name_checked(text: str) -> str:
    """A name for people: some printable text. Control characters would forge lines in logs and
    tables.
    """
    name = text.strip()
    if not name or len(name) > 80:
        raise Invalid("A name has 1 to 80 characters.", param="name", rule="name_length")
    if any(unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"} for character in name):
        raise Invalid("A name has printable characters only.", param="name", rule="name_printable")
    return name


def slug_checked(text: str) -> str:
    if not text or len(text) > 40 or slugify(text) != text:
        raise Invalid(
            "A short name has 1 to 40 lower-case letters, digits and hyphens.",
            param="slug",
            rule="slug_shape",
        )
    return text


@contextmanager
def constraint_becomes(**refusals: DomainError) -> Iterator[None]:
    """The violation of a named constraint, said in our words."""
    try:
        yield
    except IntegrityError as error:
        diagnosis = getattr(error.__cause__, "diag", None)
        refusal = refusals.get(getattr(diagnosis, "constraint_name", None) or "")
        if refusal is None:
            raise
        raise refusal from error
