"""Charts as shapes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmrunner.server import charts
from vmrunner.server.charts import ChartColumn

heights = st.floats(min_value=0, max_value=1e12)
columns = st.lists(
    st.fixed_dictionaries({"success": heights, "failure": heights}), min_size=0, max_size=40
)


@given(columns)
def test_every_bar_is_within_its_chart(parts: list[dict[str, float]]) -> None:
    drawn = [ChartColumn(title="t", tick=str(n), parts=part) for n, part in enumerate(parts)]
    chart = charts.chart(drawn, top="", summary="")
    for bar in chart.bars:
        assert 0 <= bar.x <= bar.x + bar.width <= charts.WIDTH + 0.1
        assert 0 <= bar.y < charts.HEIGHT
        assert 0 < bar.height <= charts.HEIGHT
    assert len(chart.bars) == sum(value > 0 for part in parts for value in part.values())


def test_the_highest_column_fills_its_chart() -> None:
    drawn = [
        ChartColumn(title="1", tick="a", parts={"success": 1.0, "failure": 1.0}),
        ChartColumn(title="2", tick="b", parts={"success": 4.0, "failure": 0.0}),
        ChartColumn(title="", tick="c", parts={"success": 0.0}),
    ]
    chart = charts.chart(drawn, top="4", summary="s")
    assert [(bar.kind, bar.y, bar.height) for bar in chart.bars] == [
        ("success", 75.0, 25.0),
        ("failure", 50.0, 25.0),
        ("success", 0.0, 100.0),
    ]
    assert (chart.ticks, chart.rows) == (["a", "b", "c"], [("a", "1"), ("b", "2")])


def test_a_chart_of_nothing_has_no_bars() -> None:
    chart = charts.chart([], top="", summary="")
    assert (chart.bars, chart.ticks, chart.rows) == ([], [], [])
