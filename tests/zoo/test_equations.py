"""Differential equations: references are exact, residuals vanish where they should."""

from math import pi

import numpy as np
import pytest
import scipy.io
import torch

from zoo.errors import InvalidConfigError
from zoo.problems import burgers_solution, load


def test_the_burgers_solution_is_the_published_one(shared_data):
    """Spectral reference of Raissi et al., burgers_shock.mat."""
    fields = scipy.io.loadmat(shared_data("sciml") / "burgers_shock.mat")
    x, t = np.meshgrid(fields["x"].ravel(), fields["t"].ravel(), indexing="ij")
    own = burgers_solution(x.ravel(), t.ravel(), viscosity=0.01 / pi)
    np.testing.assert_allclose(own.reshape(x.shape), fields["usol"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("speed", [1.0, 30.0])
def test_the_solution_of_convection_has_no_loss(speed):
    problem = load({"name": "convection", "coefficients": [3.0, speed], "num_points": 50})

    def field(points):
        return torch.sin(points[..., :1] - speed * points[..., 1:])

    signals = torch.tensor([1])
    loss = problem.equation.loss(
        field, problem.train_inputs[None], problem.train_targets[signals], signals
    )
    assert float(loss.detach()) < 1e-6
    other = problem.equation.loss(
        field, problem.train_inputs[None], problem.train_targets[:1], torch.tensor([0])
    )
    assert (float(other.detach()) > 0.1) == (speed != 3.0)
    scores = problem.equation.score(problem, field, signals)
    assert float(scores["relative_error"]) < 1e-3


def test_the_residual_of_burgers_is_the_definition():
    """Of u = x^2 t: u_t + u u_x - nu u_xx = x^2 + 2 x^3 t^2 - 2 nu t."""
    problem = load({"name": "burgers", "coefficients": [0.25], "num_points": 20})
    points = problem.train_inputs[None].double()
    x, t = points[..., :1], points[..., 1:]
    found = problem.equation.residual(
        lambda p: p[..., :1] ** 2 * p[..., 1:], points, torch.full((1, 1, 1), 0.25).double()
    )
    torch.testing.assert_close(found.detach(), x**2 + 2 * x**3 * t**2 - 0.5 * t)


def test_members_solve_one_equation_each():
    problem = load({"name": "convection", "coefficients": [1.0, 2.0, 4.0]})
    drawn = problem.assign(np.arange(5))
    assert drawn["signal"].tolist() == [0, 1, 2, 0, 1]
    assert drawn["coefficient"].tolist() == [1, 2, 4, 1, 2]
    chosen = problem.assign(np.arange(2), np.array([2, 2]))
    assert chosen["coefficient"].tolist() == [4, 4]
    with pytest.raises(InvalidConfigError, match="signals from 0 to 2"):
        problem.assign(np.arange(1), np.array([3]))


@pytest.mark.parametrize("options", [{"coefficients": []}, {"num_points": 0}])
def test_bad_options_are_refused(options):
    with pytest.raises(InvalidConfigError, match="at least one finite coefficient"):
        load({"name": "convection", **options})
