from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.portal import wording

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (1250, "1.2K"),
        (34_500, "34.5K"),
        (345_678, "346K"),
        (999_600, "1M"),
        (2_222_458, "2.2M"),
        (10**12, "1T"),
    ],
)
def test_large_numbers_are_short(number: int, said: str) -> None:
    assert wording.compact(number) == said


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0 B"), (999, "999 B"), (1980, "2 KB"), (212_000_000, "212 MB")]
)
def test_sizes_are_decimal(size: int, said: str) -> None:
    assert wording.file_size(size) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (44, "just now"),
        (60, "1 minute ago"),
        (59 * 60, "59 minutes ago"),
        (3600, "1 hour ago"),
        (23 * 3600, "23 hours ago"),
        (86_400, "1 day ago"),
        (27 * 86_400, "27 days ago"),
        (60 * 86_400, "22 Sep 2026"),
        (-3600, "in 1 hour"),
        (-10, "in a moment"),
    ],
)
def test_times_are_said_in_the_one_unit_that_matters(seconds: int, said: str) -> None:
    assert wording.ago(NOW - timedelta(seconds=seconds), NOW) == said


def test_values_out_of_json_read_as_text() -> None:
    assert wording.plain(["inference", "manage"]) == "inference, manage"
    assert wording.plain([]) == "none"
    assert wording.plain(None) == "none"
    assert wording.plain(7) == "7"


@pytest.mark.parametrize(
    ("nano", "said"),
    [
        (0, "$0.00"),
        (1, "< $0.0001"),
        (123_400_000, "$0.1234"),
        (1_250_500_000_000, "$1,250.50"),
        (-2_000_000_000, "-$2.00"),
    ],
)
def test_dollars(nano: int, said: str) -> None:
    assert wording.dollars(nano) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "now"), (0.2, "less than a second"), (12.4, "12 s"), (600, "10 minutes")],
)
def test_durations(seconds: float, said: str) -> None:
    assert wording.duration(seconds) == said
