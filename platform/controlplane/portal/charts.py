"""Stacked bars as plain geometry: a template draws them, and a table beside them says the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEIGHT = 100.0
_STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10)
_LINES = 4
_GAP = 0.28  # of a day's width


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of the stack: ``number``, from 1, names it; ``values`` has one per column."""

    number: int
    label: str
    values: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.values)


@dataclass(frozen=True, slots=True)
class Segment:
    series: Series
    value: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """One bar; the drawing is as many units wide as there are columns."""

    label: str
    x: float
    width: float
    segments: tuple[Segment, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Line:
    """A horizontal line of the scale."""

    y: float
    value: int


@dataclass(frozen=True, slots=True)
class Chart:
    columns: tuple[Column, ...]
    series: tuple[Series, ...]
    lines: tuple[Line, ...]

    @property
    def width(self) -> int:
        return len(self.columns)

    @property
    def total(self) -> int:
        return sum(each.total for each in self.series)


def stacked(
    labels: Sequence[str], values: Mapping[str, Sequence[int]], *, rest: str, most: int = 8
) -> Chart:
    """Bars for ``labels``, one colour per entry of ``values``.

    Beyond ``most`` colours the smallest share one, called ``rest``.
    """
    series = _series(values, rest, most)
    totals = [sum(each.values[place] for each in series) for place in range(len(labels))]
    top = scale_top(max(totals, default=0))
    columns = tuple(
        Column(
            label=label,
            x=place + _GAP / 2,
            width=1 - _GAP,
            segments=_stack(series, place, top),
            total=totals[place],
        )
        for place, label in enumerate(labels)
    )
    lines = tuple(
        Line(HEIGHT * (1 - step / _LINES), top * step // _LINES) for step in range(_LINES + 1)
    )
    return Chart(columns, series, lines)


def scale_top(highest: int) -> int:
    """The round number at or above ``highest`` that four lines divide evenly."""
    needed = max(highest / _LINES, 1)
    magnitude = 1
    while magnitude * 10 <= needed:
        magnitude *= 10
    sizes = (size for step in _STEPS if (size := step * magnitude) >= needed and size == int(size))
    return int(next(sizes)) * _LINES


def _series(values: Mapping[str, Sequence[int]], rest: str, most: int) -> tuple[Series, ...]:
    ranked = sorted(values.items(), key=lambda item: (-sum(item[1]), item[0]))
    if len(ranked) > most:
        kept, others = ranked[: most - 1], ranked[most - 1 :]
        summed = [sum(column) for column in zip(*(row for _, row in others), strict=True)]
        ranked = [*kept, (rest, summed)]
    return tuple(Series(number, label, tuple(row)) for number, (label, row) in enumerate(ranked, 1))


def _stack(series: Sequence[Series], place: int, top: int) -> tuple[Segment, ...]:
    segments = []
    below = 0
    for each in series:
        value = each.values[place]
        below += value
        if value:
            segments.append(Segment(each, value, HEIGHT * (1 - below / top), HEIGHT * value / top))
    return tuple(segments)
