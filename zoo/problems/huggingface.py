"""Data sets in the format of Hugging Face: images, texts and tables, with classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import InvalidConfigError, MissingDataError, unknown_name
from zoo.problems.parts import DataFormatError, class_ids, classes_problem, config_of, held_out
from zoo.problems.pixels import HALF, scaled
from zoo.problems.problem import Problem
from zoo.problems.text import tokenised


def huggingface(
    data: Path | None,
    *,
    dataset: str = "",
    subset: str = "",
    revision: str = "",
    inputs: str | Sequence[str] = "image",
    target: str = "label",
    train: str = "train",
    test: str = "test",
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    vocabulary_size: int = 4096,
    context_length: int = 256,
    truncate: bool = False,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Problem:
    """Load classes to tell apart from a data set of Hugging Face's package ``datasets``.

    One column of images becomes ``[n, channel, y, x]``, one of text tokens ``[n, length]``, and one
    or several of numbers ``[n, values]``, float32. No code of a data set is run.

    Parameters
    ----------
    data
        Folder written by ``Dataset.save_to_disk``, where no ``dataset`` is named.
    dataset, subset, revision
        Name on the hub, which is then asked, as ``datasets.load_dataset`` has it; fix the revision
        so that the problem stays the same.
    inputs, target
        Columns.
    train, test
        Splits. A test split that is not there is drawn from the training split.
    mean, std
        Normalisation of images; see :func:`zoo.problems.pixels.scaled`.
    vocabulary_size, context_length, truncate
        Of texts; see :func:`zoo.problems.text.tokenised`.
    test_fraction, seed
        The test part, where it is drawn.

    Raises
    ------
    MissingDataError
        If there is no such data set.
    UnknownNameError
        If it has no such split or column.
    DataFormatError
        If columns hold something else.
    InvalidConfigError
        If ``datasets`` is not installed.
    """
    splits, title = _splits(data, dataset, subset, revision)
    columns = [inputs] if isinstance(inputs, str) else list(inputs)
    parts = _parts(splits, train, test, columns=[*columns, target], where=title)
    licence = parts[0].info.license or ""
    rows = [[part[column][:] for column in (*columns, target)] for part in parts]
    if len(rows) == 1:
        chosen = held_out(len(rows[0][-1]), test_fraction=test_fraction, seed=seed)
        rows = [[[values[k] for k in each] for values in rows[0]] for each in chosen]
    options: dict[str, Any] = {"dataset": dataset, "subset": subset, "revision": revision}
    options |= {"inputs": inputs if isinstance(inputs, str) else columns, "target": target}
    options |= {"train": train, "test": test, "mean": list(mean), "std": list(std)}
    of_texts: dict[str, Any] = {
        "vocabulary_size": vocabulary_size,
        "context_length": context_length,
    }
    of_texts |= {"truncate": truncate}
    options |= of_texts | {"test_fraction": test_fraction, "seed": seed}
    about: dict[str, Any] = {
        "name": title,
        "config": config_of("huggingface", huggingface, options),
    }
    about |= {"where": title, "licence": licence, "source": dataset}
    names, *labels = class_ids(*(np.array(part[-1]) for part in rows), where=title)
    if rows[0][-1] and isinstance(rows[0][0][0], str):
        texts = [(part[0], part[-1]) for part in rows]
        return tokenised(texts[0], texts[1], **of_texts, **about)
    arrays = [_numbers(part[:-1], title, mean=mean, std=std) for part in rows]
    samples = zip(arrays, labels, strict=True)
    return classes_problem(*samples, classes=names, **about)


def _splits(data: Path | None, dataset: str, subset: str, revision: str) -> tuple[Any, str]:
    """Return the splits by name, and what to call them."""
    try:
        import datasets
    except ImportError as error:
        raise InvalidConfigError(
            'Data sets of Hugging Face need the package datasets: pip install "weight-zoo['
            'huggingface]".'
        ) from error
    if not dataset and (data is None or not data.is_dir()):
        raise MissingDataError(
            f"Expected the name of a data set by the option dataset, or a folder written by "
            f"Dataset.save_to_disk at --data, got {data}."
        )
    try:
        if dataset:
            loaded = datasets.load_dataset(dataset, subset or None, revision=revision or None)
        else:
            loaded = datasets.load_from_disk(str(data))
    except (OSError, ValueError) as error:
        raise MissingDataError(
            f"Cannot load the data set {dataset or data}: {str(error).splitlines()[0]}. Is its "
            "name spelled as on huggingface.co, and is there a network?"
        ) from error
    splits = loaded if isinstance(loaded, dict) else {"train": loaded}
    return splits, dataset.rpartition("/")[2] or Path(data or "").resolve().name


def _parts(splits: Any, train: str, test: str, *, columns: Sequence[str], where: str) -> list[Any]:
    """Return the training split and, where it is there, the test split."""
    if train not in splits:
        raise unknown_name(f"split of {where}", train, splits)
    parts = [splits[name] for name in (train, test) if name in splits]
    for part in parts:
        for column in columns:
            if column not in part.column_names:
                raise unknown_name(f"column of {where}", column, part.column_names)
    return parts


def _numbers(
    columns: Sequence[Sequence[Any]], where: str, *, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """Turn one column of images, or columns of numbers, into inputs ``[n, ...]``."""
    first = columns[0][0]
    if hasattr(first, "convert"):
        kind = "L" if first.mode in ("1", "L", "I;16") else "RGB"
        pixels = [np.asarray(image.convert(kind)) for image in columns[0]]
        if len({image.shape for image in pixels}) > 1:
            raise DataFormatError(
                f"Expected images of one size in {where}, got {pixels[0].shape[:2]} and others. "
                "Resize them first."
            )
        stacked = np.stack(pixels)
        planes = stacked[:, None] if kind == "L" else stacked.transpose(0, 3, 1, 2)
        return np.asarray(scaled(planes, mean=mean, std=std))
    try:
        values = [np.array(column, np.float32) for column in columns]
        return np.concatenate([each.reshape(len(each), -1) for each in values], axis=1)
    except (TypeError, ValueError) as error:
        raise DataFormatError(
            f"Expected images, text or numbers as inputs in {where}, got "
            f"{type(first).__name__}: {error}."
        ) from error
