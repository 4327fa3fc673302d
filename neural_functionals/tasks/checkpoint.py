"""Saving a trained task, and loading it without data or pickles."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from neural_functionals.tasks.property import PropertyRegression
from zoo.errors import MissingDataError, StoreError

CHECKPOINTS = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"


def save(task: PropertyRegression, path: Path) -> None:
    """Write a trained task where :func:`load` finds it, at once or not at all."""
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    torch.save(checkpoint, partial)
    partial.replace(path)


def load(run: str | Path) -> PropertyRegression:
    """Restore a trained task in evaluation mode on the CPU.

    Parameters
    ----------
    run
        Directory that ``zoo train`` wrote, or one checkpoint file.

    Raises
    ------
    MissingDataError
        If there is no checkpoint.
    StoreError
        If the file is no checkpoint of a task, or of a model that the registry lacks.
    """
    path = Path(run)
    if path.is_dir():
        path = path / CHECKPOINTS / BEST
    if not path.is_file():
        raise MissingDataError(
            f"Expected a trained run with {CHECKPOINTS}/{BEST} at '{run}', found none. "
            "Finish it with zoo train."
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise StoreError(
            f"'{path}' cannot be read as a checkpoint: it is damaged, or holds more than tensors "
            "and plain values. Train again with zoo train, into another directory."
        ) from error
    description = checkpoint.get("neural_functional") if isinstance(checkpoint, dict) else None
    if not description:
        raise StoreError(
            f"'{path}' does not say which model it holds: another program wrote it, or its model "
            "is not in neural_functionals.models. Load its state_dict into that model yourself."
        )
    task = PropertyRegression.restore(description)
    task.load_state_dict(checkpoint["state_dict"])
    return task.eval()
