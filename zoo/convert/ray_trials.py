"""Folders that Ray Tune leaves behind, one per trial: configuration, results, checkpoints.

``params.json`` is the configuration; ``result.json`` has one JSON object per line and training
iteration, which ``progress.csv`` repeats; ``checkpoint_000012`` (``checkpoint_12`` in older
versions) is a folder of the trainable's own files. What Ray pickled beside them is never opened.
"""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARAMS, RESULTS, PROGRESS = "params.json", "result.json", "progress.csv"

_ITERATION = "training_iteration"
_CHECKPOINT = re.compile(r"checkpoint_(\d+)")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the files of one trial say.

    Parameters
    ----------
    config
        Its configuration; ``None`` where neither file has one.
    results
        Per training iteration, ascending, the last line that reports it.
    checkpoints
        Per training iteration, ascending, the folder.
    faults
        ``(file, reason)`` for what is damaged and was left out.
    """

    config: dict[str, Any] | None
    results: dict[int, dict[str, Any]]
    checkpoints: dict[int, Path]
    faults: tuple[tuple[str, str], ...]


def find_trials(path: Path) -> Iterator[Path]:
    """Find folders of trials, sorted; nothing inside them is searched."""
    for root, folders, files in os.walk(path):
        folders.sort()
        if PARAMS in files or any(_CHECKPOINT.fullmatch(folder) for folder in folders):
            folders.clear()
            yield Path(root)


def read_trial(folder: Path) -> Trial:
    """Read what a folder holds beside the trainable's own files."""
    results, faults = _results(folder)
    checkpoints = {
        int(match[1]): each
        for each in folder.iterdir()
        if (match := _CHECKPOINT.fullmatch(each.name)) and each.is_dir()
    }
    return Trial(
        config=_config(folder, results),
        results=dict(sorted(results.items())),
        checkpoints=dict(sorted(checkpoints.items())),
        faults=tuple(faults),
    )


def _config(folder: Path, results: Mapping[int, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Read the configuration, which every line of results repeats."""
    repeated = [line.get("config") for line in results.values()]
    for found in (_json(folder / PARAMS), *reversed(repeated)):
        if isinstance(found, dict):
            return found
    return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _results(folder: Path) -> tuple[dict[int, dict[str, Any]], list[tuple[str, str]]]:
    """Read results from either file, and list lines that are damaged."""
    lines: dict[int, dict[str, Any]] = {}
    faults: list[tuple[str, str]] = []
    path = folder / RESULTS
    texts = path.read_bytes().splitlines() if path.is_file() else []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            lines[int(line[_ITERATION])] = line
        except (ValueError, KeyError, TypeError):
            faults.append((RESULTS, f"line {number} is cut off or no result: left out"))
    return lines or _progress(folder / PROGRESS), faults


def _progress(path: Path) -> dict[int, dict[str, Any]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    return {int(row[_ITERATION]): row for row in rows if (row.get(_ITERATION) or "").isdigit()}
