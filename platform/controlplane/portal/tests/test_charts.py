from __future__ import annotations

import pytest

from controlplane.portal.charts import scale_top, stacked


@pytest.mark.parametrize(
    ("highest", "top"),
    [
        (0, 4),
        (1, 4),
        (4, 4),
        (5, 8),
        (7, 8),
        (10, 12),
        (99, 100),
        (136_000, 160_000),
        (10**9, 10**9),
    ],
)
def test_the_scale_ends_on_a_round_number_that_four_lines_divide(highest: int, top: int) -> None:
    assert scale_top(highest) == top
    assert top % 4 == 0


def test_bars_are_as_high_as_their_sums() -> None:
    chart = stacked(["Mon", "Tue"], {"a": [30, 0], "b": [70, 50]}, rest="others")
    monday, tuesday = chart.columns
    assert [segment.series.label for segment in monday.segments] == ["b", "a"]
    assert monday.total == 100
    assert sum(segment.height for segment in monday.segments) == pytest.approx(100)
    assert [segment.value for segment in tuesday.segments] == [50]
    assert tuesday.segments[0].y == pytest.approx(50)


def test_segments_stand_on_each_other() -> None:
    (column,) = stacked(["Mon"], {"a": [3], "b": [2]}, rest="others").columns
    lower, upper = column.segments
    assert lower.y + lower.height == pytest.approx(100)
    assert upper.y + upper.height == pytest.approx(lower.y)


def test_beyond_eight_colours_the_smallest_share_one() -> None:
    values = {f"model-{number}": [number, number] for number in range(1, 12)}
    chart = stacked(["Mon", "Tue"], values, rest="others")
    assert len(chart.series) == 8
    assert chart.series[-1].label == "others"
    assert chart.series[-1].values == (1 + 2 + 3 + 4, 1 + 2 + 3 + 4)
    assert chart.total == 2 * sum(range(1, 12))


def test_nothing_at_all_is_a_chart_too() -> None:
    chart = stacked(["Mon"], {}, rest="others")
    assert chart.total == 0
    assert [line.value for line in chart.lines] == [0, 1, 2, 3, 4]
