"""What is the same for every call of a caller: its limits, packed once."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from serving.admission.values import Money, Subject

NO_LIMIT: Final = -1
_pack = msgspec.msgpack.Encoder().encode


class Prepared:
    """The subjects of a call as the script and the local share read them.

    ``arrivals`` is what Redis said last of each of ``limits``, in the same order: microseconds.
    """

    __slots__ = (
        "accounts", "arrivals", "concurrency", "hard_subject", "ids", "is_settled_by_tokens",
        "limits", "packed",
    )  # fmt: skip

    def __init__(self, subjects: tuple[Subject, ...]) -> None:
        money = [subject.money for subject in subjects if subject.money is not None]
        self.packed = msgspec.Raw(_pack([_compact(subject) for subject in subjects]))
        self.ids = tuple(subject.id for subject in subjects)
        self.accounts = tuple(one.account for one in money)
        hard = [subject.id for subject in subjects if subject.money and subject.money.is_hard]
        self.hard_subject = hard[0] if hard else ""  # somebody whose money must be exact
        self.limits = tuple(_limits(subjects))
        self.concurrency = tuple(
            (subject.id, subject.concurrency)
            for subject in subjects
            if subject.concurrency is not None
        )
        self.is_settled_by_tokens = bool(money) or any(
            subject.tokens_per_minute is not None for subject in subjects
        )
        self.arrivals: list[int] = []


class PreparedSubjects:
    """Found by identity first: whoever asks with the same tuple again costs one look."""

    def __init__(self, size: int = 8192) -> None:
        self._size = size
        self._by_value = lru_cache(maxsize=size)(Prepared)
        self._by_identity: dict[int, tuple[tuple[Subject, ...], Prepared]] = {}

    def of(self, subjects: tuple[Subject, ...]) -> Prepared:
        known = self._by_identity.get(id(subjects))
        if known is not None:  # the entry keeps its tuple alive, so the identity is still its own
            return known[1]
        prepared = self._by_value(subjects)
        if len(self._by_identity) >= self._size:
            self._by_identity.clear()
        self._by_identity[id(subjects)] = (subjects, prepared)
        return prepared

    def all(self) -> list[Prepared]:
        return list({id(prepared): prepared for _, prepared in self._by_identity.values()}.values())


def _compact(subject: Subject) -> list[str | int]:
    money = subject.money or Money(account="", budget_nano=0, is_hard=False)
    return [
        subject.id,
        _or_none(subject.requests_per_minute),
        _or_none(subject.tokens_per_minute),
        _or_none(subject.concurrency),
        money.account,
        money.budget_nano,
        int(money.is_hard),
    ]


def _or_none(limit: int | None) -> int:
    return NO_LIMIT if limit is None else limit


def _limits(subjects: tuple[Subject, ...]) -> list[tuple[str, int, bool, str]]:
    """(key, per minute, whether of tokens, subject) in the order in which the script goes."""
    found = []
    for subject in subjects:
        if subject.requests_per_minute is not None:
            found.append((f"requests:{subject.id}", subject.requests_per_minute, False, subject.id))
        if subject.tokens_per_minute is not None:
            found.append((f"tokens:{subject.id}", subject.tokens_per_minute, True, subject.id))
    return found
