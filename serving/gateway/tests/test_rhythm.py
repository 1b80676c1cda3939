"""Work on a crowd leaves room for everybody else."""

from __future__ import annotations

from collections.abc import Iterator

from serving.gateway.rhythm import PIECE_SECONDS, REST_SECONDS, in_pieces


class Clock:
    """Time that passes only by what is done."""

    def __init__(self) -> None:
        self.now = 100.0
        self.rests: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def rest(self, seconds: float) -> None:
        self.rests.append(self.now)
        self.now += seconds

    def work(self, steps: int, seconds: float) -> Iterator[None]:
        for _ in range(steps):
            self.now += seconds
            yield


async def test_a_crowd_is_worked_on_a_millisecond_at_a_time() -> None:
    clock = Clock()
    await in_pieces(clock.work(1000, PIECE_SECONDS / 10), clock=clock, rest=clock.rest)
    starts = [100.0, *(at + REST_SECONDS for at in clock.rests)]
    pieces = [rest - start for start, rest in zip(starts, clock.rests, strict=False)]
    assert 90 <= len(pieces) <= 100
    assert max(pieces) < PIECE_SECONDS * 1.2


async def test_a_few_are_done_at_once() -> None:
    clock = Clock()
    await in_pieces(clock.work(5, PIECE_SECONDS / 10), clock=clock, rest=clock.rest)
    assert not clock.rests
