"""Phase diagrams: cells are means over members of a place; phases are the most frequent ones."""

import polars as pl
import pytest

from zoo.page.diagrams import phase_diagrams


class Grid:
    """A population as far as diagrams look at it: its table."""

    def __init__(self, table):
        self.table = table


@pytest.fixture
def table():
    rows = [
        {"width": width, "batch_size": batch, "test_accuracy": width / batch + seed}
        | {"hessian_trace": 10.0**seed, "phase": phases[seed]}
        for width, phases in ((2, ("I", "I", "II")), (4, ("II", "IV-B", "IV-B")))
        for batch in (8, 32, 64)
        for seed in (0, 1, 2)
    ]
    return pl.DataFrame(rows)


def test_cells_are_means_and_most_frequent_phases(table):
    (panel,) = phase_diagrams(Grid(table))
    accuracy, trace, phase = panel.figure.data
    assert accuracy.z[1][2] == pytest.approx(4 / 64 + 1)
    assert accuracy.z[0][0] == pytest.approx(2 / 8 + 1)
    assert trace.z[0][0] == pytest.approx(1)
    names = list(phase.colorbar.ticktext)
    assert [names[int(row[0])] for row in phase.z] == ["I", "IV-B"]
    assert "3 members" in panel.caption
    assert list(accuracy.y) == ["2", "4"]
    assert list(accuracy.x) == ["8", "32", "64"]


def test_what_is_no_grid_has_no_diagram(table):
    assert phase_diagrams(Grid(table.drop("width"))) == []
    assert phase_diagrams(Grid(table.with_columns(batch_size=pl.lit(8)))) == []


def test_diverged_members_leave_their_cell_empty(table):
    broken = table.with_columns(
        test_accuracy=pl.when(pl.col("width") == 2).then(float("nan")).otherwise("test_accuracy")
    )
    (panel,) = phase_diagrams(Grid(broken.drop("phase")))
    assert list(panel.figure.data[0].y) == ["4"]
    assert panel.title == "Load and temperature"
