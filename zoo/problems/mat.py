"""Fields on a grid in MATLAB files: solutions of differential equations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from zoo.errors import MissingDataError
from zoo.problems.parts import DataFormatError, config_of, held_out, values_problem
from zoo.problems.problem import Problem

_WANTED = (
    "Wanted is a .mat file (MATLAB v5) with a solution and its coordinates, such as "
    "burgers_shock.mat from github.com/maziarraissi/PINNs."
)


def mat(
    data: Path | None,
    *,
    file: str = "",
    values: str = "usol",
    coordinates: Sequence[str] = ("x", "t"),
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Problem:
    """Load a regression from places on a grid to the values of a field there.

    Inputs ``[n, coordinates]`` and targets ``[n, values]`` are in the units of the file; a complex
    field has two values, its real and its imaginary part.

    Parameters
    ----------
    data
        The file, or the folder it is in.
    file
        Its name, where the folder holds several.
    values
        Variable with the field, one axis for each coordinate.
    coordinates
        Variables with the places along each axis of the field, in order.
    test_fraction, seed
        The test part: places drawn from the grid.

    Raises
    ------
    MissingDataError
        If there is no such file or variable.
    DataFormatError
        If the file is damaged, or the field and its coordinates do not fit together.
    """
    path = _file(data, file)
    points, field = grid_of(path, values=values, coordinates=coordinates)
    train, test = held_out(len(points), test_fraction=test_fraction, seed=seed)
    options: dict[str, Any] = {"file": file, "values": values, "coordinates": list(coordinates)}
    options |= {"test_fraction": test_fraction, "seed": seed}
    return values_problem(
        (points[train], field[train]),
        (points[test], field[test]),
        where=path,
        name=path.stem,
        config=config_of("mat", mat, options),
    )


def grid_of(
    path: Path, *, values: str = "usol", coordinates: Sequence[str] = ("x", "t")
) -> tuple[np.ndarray, np.ndarray]:
    """Read all places of a grid, ``[n, coordinates]``, and a field there, ``[n, values]``; float64.

    Raises
    ------
    MissingDataError, DataFormatError
        As :func:`mat` does.
    """
    variables = read_mat(path)
    for name in (values, *coordinates):
        if name not in variables:
            listing = ", ".join(f"{key} {array.shape}" for key, array in variables.items())
            raise MissingDataError(
                f"Expected the variable {name!r} in {path}, got {listing}. Name others by the "
                "options values and coordinates."
            )
    field = variables[values]
    axes = [variables[name].ravel() for name in coordinates]
    if field.shape != tuple(len(axis) for axis in axes):
        raise DataFormatError(
            f"Expected {values!r} with an axis for each of {', '.join(coordinates)} in {path}, "
            f"shape {tuple(len(axis) for axis in axes)}, got {field.shape}. Name the coordinates "
            "in the order of its axes."
        )
    points = np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")], axis=1)
    flat = field.reshape(-1, 1)
    parts = [flat.real, flat.imag] if np.iscomplexobj(flat) else [flat]
    return points.astype(np.float64), np.concatenate(parts, axis=1).astype(np.float64)


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """Read the numeric arrays of a MATLAB v4 to v7 file, by name.

    Raises
    ------
    DataFormatError
        If the file is damaged, or of v7.3, which is HDF5.
    """
    try:
        content = loadmat(path)
    except NotImplementedError as error:
        raise DataFormatError(
            f"Expected a MATLAB file of v7 or older, got v7.3 in {path}. Save it with '-v7'."
        ) from error
    except (MatReadError, OSError, ValueError, TypeError, EOFError, KeyError) as error:
        raise DataFormatError(f"Cannot read {path}: {error}. Fetch the file again.") from error
    return {
        name: array
        for name, array in content.items()
        if isinstance(array, np.ndarray) and array.dtype.kind in "fciub"
    }


def _file(data: Path | None, file: str) -> Path:
    if data is not None and data.is_file():
        return data
    names = sorted(data.glob(file or "*.mat")) if data is not None and data.is_dir() else []
    if len(names) != 1:
        listing = ", ".join(path.name for path in names) or "none"
        raise MissingDataError(
            f"Expected one file {file or '.mat'} at {data}, got {listing}. Name it by the option "
            f"file. {_WANTED}"
        )
    return names[0]
