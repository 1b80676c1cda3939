"""Numbers, sizes and times as people read them. Pure: the present is an argument."""

from __future__ import annotations

from datetime import datetime

from django.utils.translation import gettext, ngettext

_COMPACT = ((1_000_000_000_000, "T"), (1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K"))
_SIZES = ("B", "KB", "MB", "GB", "TB")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_WEEK = 7 * _DAY


def compact(number: int) -> str:
    """At most four digits and a unit: 950, 1.2K, 34.5M."""
    for size, unit in _COMPACT:
        if abs(number) >= size * 0.9995:  # what would be shown as 1000 of the smaller unit
            return f"{_short(number / size)}{unit}"
    return str(number)


def grouped(number: int) -> str:
    """Every digit, in groups of three."""
    return f"{number:,}"


def dollars(nano: int) -> str:
    """Nano-USD for people: cents, and four decimals below a dollar."""
    amount = nano / 1_000_000_000
    if nano and abs(amount) < 0.0001:
        return gettext("< $0.0001")
    decimals = 2 if nano == 0 or abs(amount) >= 1 else 4
    return f"{'-' if nano < 0 else ''}${abs(amount):,.{decimals}f}"


def duration(seconds: float) -> str:
    """How long something still takes, in the one unit that matters."""
    if seconds < 1:
        return gettext("less than a second") if seconds > 0 else gettext("now")
    if seconds < 90:
        return gettext("%(count)d s") % {"count": round(seconds)}
    return _span(round(seconds))


def file_size(size_bytes: int) -> str:
    """Decimal units, as file managers show them."""
    size = float(size_bytes)
    for unit in _SIZES:
        if size < 1000 or unit == _SIZES[-1]:
            return f"{_short(size)} {unit}"
        size /= 1000
    raise AssertionError("the last unit takes everything")


def plain(value: object) -> str:
    """A value out of JSON as a person would write it."""
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or gettext("none")
    return gettext("none") if value is None else str(value)


def ago(moment: datetime, now: datetime) -> str:
    """How long before or after ``now``, in the one unit that matters; a date after weeks."""
    seconds = round((now - moment).total_seconds())
    distance = abs(seconds)
    if distance >= 4 * _WEEK:
        return moment.strftime("%-d %b %Y")
    if distance < 45:
        return gettext("just now") if seconds >= 0 else gettext("in a moment")
    span = _span(distance)
    return (
        gettext("%(span)s ago") % {"span": span}
        if seconds >= 0
        else gettext("in %(span)s") % {"span": span}
    )


def _span(seconds: int) -> str:
    if seconds < _HOUR - 30:
        count = max(1, round(seconds / _MINUTE))
        return ngettext("%(count)d minute", "%(count)d minutes", count) % {"count": count}
    if seconds < _DAY - 1800:
        count = max(1, round(seconds / _HOUR))
        return ngettext("%(count)d hour", "%(count)d hours", count) % {"count": count}
    count = max(1, round(seconds / _DAY))
    return ngettext("%(count)d day", "%(count)d days", count) % {"count": count}


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if value < 100 else f"{value:.0f}"
