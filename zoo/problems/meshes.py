"""Shapes as signals: one network per mesh maps a place to its distance from the surface."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.errors import InvalidConfigError, MissingDataError
from zoo.problems.parts import DataFormatError, config_of, folder_of, signals_problem
from zoo.problems.problem import Problem
from zoo.problems.surfaces import Surface, distance, read_obj, sample, signed_distance

_WANTED = "Wanted are .obj meshes, such as those of github.com/alecjacobson/common-3d-test-models."


def mesh(
    data: Path | None,
    *,
    files: Sequence[str] = (),
    unsigned: bool = False,
    num_points: int = 4096,
    near: float = 0.5,
    spread: float = 0.05,
    seed: int = 0,
) -> Problem:
    """Take the signed distance function [1]_ of every mesh in a folder as a signal.

    Each mesh is moved and scaled into the unit ball. All signals share one set of points: a part
    lies near the surfaces, the same number at each mesh, shifted by Gaussian noise and clipped to
    the cube; the rest is even in the cube ``[-1, 1]^3``. Of many meshes, each has few points.

    Parameters
    ----------
    data
        The folder.
    files
        Names of the meshes, in order; by default all ``.obj`` files by name.
    unsigned
        Distances without a sign, for surfaces that are not closed.
    num_points, near
        Points, and which fraction of them is near surfaces.
    spread
        Standard deviation of the noise in each coordinate.
    seed
        Of the points.

    Raises
    ------
    MissingDataError
        If a mesh is not there.
    DataFormatError
        If a mesh is damaged, or not closed.
    InvalidConfigError
        If there are no points, or no such fraction.

    References
    ----------
    .. [1] Park et al., "DeepSDF: Learning continuous signed distance functions for shape
       representation", CVPR 2019.
    """
    if num_points < 1 or not 0 <= near <= 1 or spread < 0:
        raise InvalidConfigError(
            "Expected at least one point, a fraction near in [0, 1] and a spread of 0 or more, got "
            f"{num_points}, {near} and {spread}."
        )
    folder = folder_of(data, _WANTED)
    surfaces = [_surface(path, unsigned=unsigned) for path in _paths(folder, files)]
    points = _points(surfaces, num_points, near=near, spread=spread, seed=seed)
    measure = distance if unsigned else signed_distance
    values = np.stack([measure(surface, points) for surface in surfaces])
    options = {"files": list(files), "unsigned": unsigned, "num_points": num_points}
    options |= {"near": near, "spread": spread, "seed": seed}
    config = config_of("mesh", mesh, options)
    return signals_problem(points, values[..., None], name=folder.resolve().name, config=config)


def _paths(folder: Path, files: Sequence[str]) -> list[Path]:
    paths = [folder / name for name in files] or sorted(folder.glob("*.obj"))
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        raise MissingDataError(
            f"Expected {', '.join(missing) or 'meshes'} in {folder}, got none. {_WANTED}"
        )
    return paths


def _surface(path: Path, *, unsigned: bool) -> Surface:
    surface = read_obj(path)
    num_open = 0 if unsigned else surface.num_open_edges()
    if num_open:
        raise DataFormatError(
            f"Expected a closed surface in {path}, every edge shared by two faces, got {num_open} "
            "open edges: it has no inside. Take distances without a sign by the option "
            "unsigned=True, or choose meshes by the option files."
        )
    return surface.normalised()


def _points(
    surfaces: Sequence[Surface], count: int, *, near: float, spread: float, seed: int
) -> np.ndarray:
    """Draw the points, ``[count, 3]``: near each surface in turn, then even in the cube."""
    rng = np.random.default_rng(seed)
    each = round(count * near) // len(surfaces)
    close = [sample(surface, each, rng) for surface in surfaces]
    shifted = [on + spread * rng.standard_normal(on.shape) for on in close]
    even = rng.uniform(-1, 1, (count - each * len(surfaces), 3))
    points = np.concatenate([np.clip(part, -1, 1) for part in [*shifted, even]])
    return points.astype(np.float32).astype(np.float64)  # distances are those of the inputs
