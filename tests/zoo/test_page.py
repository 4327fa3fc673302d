"""The page: every figure is there, labelled, and nothing is fetched from elsewhere."""

import re

import numpy as np
import polars as pl
import pytest

import zoo
from zoo.page import figures, write_page
from zoo.page.score import score_of
from zoo.testing import tiny_population, tiny_spec, write_tiny_block


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_population(tmp_path_factory.mktemp("page") / "tiny.zarr")


@pytest.fixture
def predictions(tmp_path):
    rows = [
        {"member": member, "split": split, "target": member / 10, "prediction": member / 9}
        | {"model": model, "seed": seed}
        for member, split in ((1, "train"), (2, "test"), (3, "test"), (5, "test"))
        for model in ("statnn", "nfn")
        for seed in (0, 1)
    ]
    path = tmp_path / "predictions.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


def test_every_panel_is_titled_captioned_and_has_labelled_axes(tiny):
    panels = figures.panels(tiny[tiny.populations[0]])
    assert [panel.title for panel in panels] == [
        "Test accuracy",
        "Learning curves",
        "Hyper-parameters against test accuracy",
        "Weight space",
    ]
    for panel in panels:
        assert len(panel.caption) > 40
        used = [trace.xaxis or "x" for trace in panel.figure.data]
        for name in used:
            assert panel.figure.layout["xaxis" + name[1:]].title.text, panel.title
        assert panel.figure.layout.yaxis.title.text, panel.title


def test_pca_agrees_with_the_singular_value_decomposition(tiny):
    population = tiny[tiny.populations[0]]
    weights = population.weights().astype(np.float64)
    _, singular, right = np.linalg.svd(weights - weights.mean(0), full_matrices=False)
    trace = figures.pca(population, score_of(population)).figure.data[0]
    scores = (weights - weights.mean(0)) @ right[:2].T
    np.testing.assert_allclose(np.abs(trace.x), np.abs(scores[:, 0]), atol=1e-6)
    np.testing.assert_allclose(np.abs(trace.y), np.abs(scores[:, 1]), atol=1e-6)
    share = singular[0] ** 2 / (singular**2).sum()
    panel = figures.pca(population, score_of(population))
    assert f"{share:.1%}" in panel.figure.layout.xaxis.title.text


def test_predictions_show_the_test_part_only(predictions):
    panel = figures.predictions(pl.read_parquet(predictions))
    points = [trace for trace in panel.figure.data if trace.mode == "markers"]
    assert len(points) == 4
    assert all(len(trace.x) == 3 for trace in points)
    assert panel.caption.startswith("3 members")


def test_page_is_self_contained(tiny, predictions, tmp_path):
    results = pl.DataFrame({"model": ["<nfn>"], "Kendall tau": ["0.9"]})
    page = write_page(tiny, tmp_path / "page.html", predictions=[predictions], results=results)
    text = page.read_text()
    assert "Predicted against true" in text
    assert "&lt;nfn&gt;" in text
    assert tiny.version in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)\s*=", text)


def test_page_of_an_unfinished_zoo(tmp_path):
    writer = zoo.create(tmp_path / "part.zarr").create_population(tiny_spec())
    write_tiny_block(writer, 1)
    text = write_page(zoo.open(tmp_path / "part.zarr"), tmp_path / "page.html").read_text()
    assert "16 so far" in text
