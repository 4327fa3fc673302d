"""Signals that are computed: distances from surfaces, and families of functions."""

import numpy as np
import pytest
import torch

from zoo.errors import InvalidConfigError, MissingDataError
from zoo.problems import DataFormatError, load
from zoo.problems.surfaces import distance, read_obj, signed_distance, winding_number

CORNERS = [(x, y, z) for x in (0, 2) for y in (0, 4) for z in (0, 6)]
SIDES = ["1 2 4 3", "5 7 8 6", "1 5 6 2", "3 4 8 7", "1 3 7 5", "2 6 8 4"]
"""Quadrilaterals of a box of 2 by 4 by 6, all turned the same way."""


def obj(path, sides=SIDES, corners=CORNERS):
    lines = ["# a box", "o box", *("v {} {} {}".format(*corner) for corner in corners)]
    path.write_text("\n".join([*lines, "vt 0 0", *(f"f {side}" for side in sides)]) + "\n")
    return path


def box_distance(points, half):
    """Signed distance to a box around 0, in closed form."""
    beyond = np.abs(points) - half
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=1)
    return outside + np.minimum(beyond.max(1), 0)


def test_distances_of_a_box_are_exact(tmp_path):
    box = read_obj(obj(tmp_path / "box.obj"))
    assert box.faces.shape == (12, 3)
    assert box.num_open_edges() == 0
    points = np.random.default_rng(0).uniform(-4, 8, (500, 3))
    wanted = box_distance(points - [1, 2, 3], np.array([1, 2, 3]))
    assert 5 < (wanted < 0).sum() < 100
    np.testing.assert_allclose(signed_distance(box, points), wanted, atol=1e-12)
    np.testing.assert_allclose(distance(box, points), np.abs(wanted), atol=1e-12)
    turns = winding_number(box, points)
    np.testing.assert_allclose(np.abs(turns), wanted < 0, atol=1e-9)
    other_way = read_obj(obj(tmp_path / "r.obj", [" ".join(s.split()[::-1]) for s in SIDES]))
    np.testing.assert_allclose(winding_number(other_way, points), -turns, atol=1e-9)
    np.testing.assert_allclose(signed_distance(other_way, points), wanted, atol=1e-12)


def test_ways_to_write_corners(tmp_path):
    box = read_obj(obj(tmp_path / "a.obj"))
    slashed = ["/".join(["{}", "1", "2"]), "{}//3", "{}/1", "{}", "{}", "{}"]
    sides = [
        " ".join(form.format(corner) for corner in side.split())
        for form, side in zip(slashed, SIDES, strict=True)
    ]
    sides[3] = " ".join(str(int(corner) - 9) for corner in SIDES[3].split())
    same = read_obj(obj(tmp_path / "b.obj", sides))
    assert same.faces.tolist() == box.faces.tolist()
    unwelded = [CORNERS[int(k) - 1] for side in SIDES for k in side.split()]
    split = [" ".join(str(4 * k + j + 1) for j in range(4)) for k in range(6)]
    welded = read_obj(obj(tmp_path / "c.obj", split, unwelded))
    assert welded.vertices.shape == (8, 3)
    assert welded.num_open_edges() == 0


def test_signals_are_distances_in_the_unit_ball(tmp_path):
    obj(tmp_path / "a.obj")
    obj(tmp_path / "b.obj", corners=[(x, 5 * y, z) for x, y, z in CORNERS])
    problem = load({"name": "mesh", "num_points": 301, "near": 0.4, "seed": 2}, data=tmp_path)
    assert problem.train_targets.shape == (2, 301, 1)
    points = problem.train_inputs.double().numpy()
    assert np.abs(points).max() <= 1
    for signal, sides in ((0, [2, 4, 6]), (1, [2, 20, 6])):
        half = np.array(sides) / np.linalg.norm(sides)
        wanted = box_distance(points, half)
        np.testing.assert_allclose(problem.train_targets[signal, :, 0], wanted, atol=1e-6)
        near = np.abs(wanted[60 * signal : 60 * (signal + 1)])
        assert near.max() < 0.25
        assert 0.1 > np.median(near) > 0.005
    assert problem.peak == 2 * problem.train_targets.abs().max()
    again = load(problem.config, data=tmp_path)
    assert again.sha256 == problem.sha256
    only = load({"name": "mesh", "files": ["b.obj"], "num_points": 7}, data=tmp_path)
    assert only.train_targets.shape == (1, 7, 1)


def test_open_surfaces_have_no_inside(tmp_path):
    obj(tmp_path / "lid.obj", SIDES[:5])
    with pytest.raises(DataFormatError, match=r"closed surface in .*lid\.obj.*got 4 open edges"):
        load({"name": "mesh"}, data=tmp_path)
    problem = load({"name": "mesh", "unsigned": True, "num_points": 50}, data=tmp_path)
    assert (problem.train_targets > 0).all()
    assert problem.config["unsigned"] is True
    obj(tmp_path / "lid.obj", [*SIDES[:5], "4 8 6 2"])  # one side turned the other way
    with pytest.raises(DataFormatError, match="got 4 open edges"):
        load({"name": "mesh"}, data=tmp_path)
    obj(tmp_path / "lid.obj", [*SIDES, "1 2 4"])  # a third face at two edges
    with pytest.raises(DataFormatError, match="got 3 open edges"):
        load({"name": "mesh"}, data=tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("f 1 2 9", "line 18 .*no vertex 9 among the 8"),
        ("f 1 2 0", "no vertex 0"),
        ("v 1 2", "line 18 "),
        ("f a b c", "line 18 "),
    ],
)
def test_damaged_meshes_are_refused(tmp_path, line, message):
    path = obj(tmp_path / "m.obj")
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataFormatError, match=message):
        load({"name": "mesh"}, data=tmp_path)


def test_what_is_no_mesh_is_refused(tmp_path):
    with pytest.raises(MissingDataError, match=r"\.obj meshes"):
        load({"name": "mesh"}, data=tmp_path)
    obj(tmp_path / "m.obj", [])
    with pytest.raises(DataFormatError, match="vertices and faces"):
        load({"name": "mesh"}, data=tmp_path)
    with pytest.raises(MissingDataError, match=r"cow\.obj"):
        load({"name": "mesh", "files": ["m.obj", "cow.obj"]}, data=tmp_path)
    with pytest.raises(InvalidConfigError, match="fraction near"):
        load({"name": "mesh", "near": 1.5}, data=tmp_path)


def test_real_meshes(shared_data):
    folder = shared_data("mesh")
    opened = {path.stem: read_obj(path).num_open_edges() for path in sorted(folder.glob("*.obj"))}
    assert opened == {"beetle": 343, "fandisk": 0, "spot": 0, "suzanne": 43, "teapot": 160}
    spot = read_obj(folder / "spot.obj").normalised()
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (60, 3))
    turns = winding_number(spot, points)
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-6)
    assert 0 < turns.sum() < 60
    nearest = np.linalg.norm(points[:, None] - spot.corners.mean(1), axis=2).min(1)
    found = distance(spot, points)
    assert (found <= nearest).all()
    assert (nearest - found).max() < 0.02  # no triangle is larger
    problem = load({"name": "mesh", "files": ["spot.obj"], "num_points": 200}, data=folder)
    assert (problem.train_targets < 0).float().mean() > 0.1


# Families of functions


def test_sines_are_those_of_their_parameters():
    problem = load({"name": "sines", "num_signals": 400, "num_points": 11, "seed": 3})
    amplitude, phase = (problem.signal_columns[name].numpy() for name in ("amplitude", "phase"))
    assert 0.1 <= amplitude.min() < 0.3
    assert 4.8 < amplitude.max() <= 5
    assert 0 <= phase.min() < 0.1
    assert 3.0 < phase.max() <= np.pi
    x = 5 * (2 * np.arange(11) + 1 - 11) / 11
    np.testing.assert_allclose(problem.train_inputs[:, 0], x / 5, atol=1e-6)
    for k in (0, 7, 399):
        wanted = amplitude[k] * np.sin(x - phase[k])
        np.testing.assert_allclose(problem.train_targets[k, :, 0], wanted, atol=1e-5)
    assert problem.peak == 10
    assigned = problem.assign(np.array([7, 407]))
    assert assigned["amplitude"].tolist() == [amplitude[7]] * 2
    fewer = load({"name": "sines", "num_signals": 5, "num_points": 11, "seed": 3})
    torch.testing.assert_close(fewer.train_targets, problem.train_targets[:5], rtol=0, atol=0)
    assert load(problem.config).sha256 == problem.sha256
    assert load({"name": "sines"}).config == {"name": "sines"}


def test_polynomials_are_those_of_their_coefficients():
    config = {"name": "polynomials", "degree": 2, "num_signals": 6, "num_points": 9}
    problem = load(config)
    c0, c1, c2 = (problem.signal_columns[f"coefficient_{k}"][:, None] for k in range(3))
    x = problem.train_inputs[:, 0].double()
    wanted = c0 + c1 * x + c2 * (3 * x**2 - 1) / 2
    torch.testing.assert_close(problem.train_targets[..., 0].double(), wanted, atol=1e-5, rtol=0)
    assert problem.config == config
    assert load(config).sha256 == problem.sha256


def test_processes_have_their_covariance():
    config = {"name": "gaussian-process", "num_signals": 40_000, "num_points": 8}
    problem = load(config)
    scale = problem.signal_columns["length_scale"].numpy()
    assert scale.min() >= 0.1
    assert scale.max() <= 1
    values = problem.train_targets[..., 0].double().numpy()
    x = problem.train_inputs[:, 0].double().numpy()
    lag = np.sqrt(3) * np.abs(x[:, None] - x) / scale[:, None, None]
    wanted = ((1 + lag) * np.exp(-lag)).mean(0)  # Matern 3/2
    found = np.einsum("ki,kj->ij", values, values) / len(values)
    np.testing.assert_allclose(found, wanted, atol=0.04)  # five standard errors
    short = scale < np.quantile(scale, 0.5)
    product = values[:, 3] * values[:, 4]
    assert product[short].mean() < product[~short].mean() - 0.2
    assert load(config).sha256 == problem.sha256


def test_families_need_signals_and_points():
    with pytest.raises(InvalidConfigError, match="one signal and one point"):
        load({"name": "sines", "num_signals": 0})
    with pytest.raises(InvalidConfigError, match="degree from 0"):
        load({"name": "polynomials", "degree": -1})
