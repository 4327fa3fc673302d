"""Commands about zoos as they are: ``zoo info``, ``zoo check``, ``zoo page``."""

from pathlib import Path

import numpy as np

from zoo.errors import ZooError
from zoo.store import open as open_zoo


def info(path: Path) -> None:
    """Describe a zoo: populations, members, checkpoints, spaces, columns, splits, version.

    Parameters
    ----------
    path
        A zoo.
    """
    from zoo.page.html import facts_of

    zoo = open_zoo(path)
    print(f"{path}: {len(zoo.populations)} population(s), dataset version {zoo.version}")
    for name in zoo.populations:
        population = zoo[name]
        print(f"\n{name}")
        for label, text in facts_of(population):
            print(f"  {label:<24}{text}")
        if "test_accuracy" in population.metrics and population.num_members:
            accuracy = population.table["test_accuracy"].drop_nans().to_numpy()
            print(
                f"  {'test accuracy':<24}minimum {accuracy.min():.3f}, median "
                f"{np.median(accuracy):.3f}, maximum {accuracy.max():.3f}"
            )


def check(path: Path) -> int:
    """Verify every stored byte against checksums and ledger; list what is damaged or missing.

    Parameters
    ----------
    path
        A zoo; it is not changed.
    """
    from zoo.store.check import check as run_check

    report = run_check(path)
    for population in report.populations:
        print(
            f"{population.name}: {population.blocks_committed} of {population.blocks_planned} "
            f"blocks stored, {population.num_bytes / 2**20:.1f} MiB checked"
        )
        for damage in population.damaged:
            print(f"  damaged {damage}")
        for split, reason in population.splits:
            print(f"  split {split!r}: {reason}")
        for member, epoch in population.not_finite:
            print(f"  member {member}, epoch {epoch}: weights are not finite")
        if population.missing_members:
            first, last = population.missing_members[0], population.missing_members[-1]
            count = len(population.missing_members)
            print(f"  {count} members not trained yet, between {first} and {last}")
    if leftovers := [*report.orphans, *(o for p in report.populations for o in p.orphans)]:
        print(f"{len(leftovers)} files of an interrupted writer (harmless): {leftovers[0]} ...")
    print("everything stored is intact" if report.ok else "DAMAGED: do not trust what is listed")
    return 0 if report.ok else 1


def page(path: Path, *, out: Path | None = None, predictions: list[Path] | None = None) -> None:
    """Write a zoo as one self-contained HTML page.

    Parameters
    ----------
    path
        A zoo.
    out
        File to write; beside the zoo, with the same name, by default.
    predictions
        Files ``predictions.parquet`` of training runs, to show predicted against true.
    """
    from zoo.page import write_page

    if missing := [file for file in predictions or [] if not file.is_file()]:
        raise ZooError(f"No such predictions: {', '.join(map(str, missing))}.")
    written = write_page(
        open_zoo(path), out or path.with_suffix(".html"), predictions=predictions or []
    )
    print(f"wrote {written} ({written.stat().st_size / 2**20:.1f} MiB)")
