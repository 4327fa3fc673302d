"""Commands about zoos and networks: ``zoo info``, ``check``, ``page`` and ``trace``."""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import TraceError, ZooError, unknown_name
from zoo.store import open as open_zoo

if TYPE_CHECKING:
    from torch import nn


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


def convert(source: Path, target: Path) -> None:
    """Turn a zoo into one HDF5 file, or such a file into a zoo.

    Parameters
    ----------
    source
        A zoo, or a file that ends in .h5 or .hdf5.
    target
        The other of the two.
    """
    from zoo.convert import from_hdf5, to_hdf5

    from_file, to_file = (path.suffix in (".h5", ".hdf5") for path in (source, target))
    if from_file == to_file:
        raise ZooError(
            f"Expected one of source and target to end in .h5 or .hdf5, got {source} and {target}."
        )
    zoo = from_hdf5(source, target) if from_file else open_zoo(source)
    if to_file:
        to_hdf5(zoo, target)
    print(f"wrote {target}, dataset version {zoo.version}")


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


def trace(
    factory: str,
    *,
    input_shape: list[int] | None = None,
    strict: bool = False,
    inert: bool = False,
    json: Path | None = None,
) -> int:
    """Find the hidden units of a module that may be relabelled, and prove it on numbers.

    Parameters
    ----------
    factory
        PACKAGE.MODULE:FACTORY, called without arguments: returns the module and a tuple of example
        inputs, or the module alone.
    input_shape
        Shape of the example input, where the factory returns the module alone.
    strict
        Stop at an operator without a rule, instead of pinning what it touches.
    inert
        Look for tensors that the function does not depend on, too: one more run for each tensor.
    json
        File to write the weight space to.
    """
    from zoo.symmetry import inert_tensors
    from zoo.symmetry import trace as trace_module

    module, inputs = _made(factory, input_shape)
    space = trace_module(module, *inputs, strict=strict)
    result = space.verify(module, *inputs)
    print(space.explain())
    count = sum(group.copies for group in space.groups)
    print(f"independent symmetric groups: {count}, of order 10^{space.log10_order:.1f} together")
    worst = max(result.deviations.values(), default=0.0)
    print(f"verified: outputs change by at most {worst:.0e} of their spread")
    print(f"operators without a rule: {len(space.unsupported) or 'none'}")
    if inert:
        print(f"inert tensors: {', '.join(inert_tensors(space, module, *inputs)) or 'none'}")
    if json is not None:
        json.write_text(space.to_json())
        print(f"wrote {json}")
    return 0 if result.passed else 1


def _made(factory: str, input_shape: list[int] | None) -> "tuple[nn.Module, tuple[Any, ...]]":
    """Call a factory; returns the module and its example inputs."""
    import torch

    function = _function(factory)
    try:
        made = function()
    except Exception as error:  # noqa: BLE001 - the factory is the user's; its cause is kept
        raise TraceError(f"{factory} failed: {type(error).__name__}: {error}") from error
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if input_shape is not None:
        inputs = (torch.zeros(input_shape),)
    if not isinstance(module, torch.nn.Module) or inputs is None:
        raise TraceError(
            f"Expected {factory} to return a module and a tuple of example inputs, got "
            f"{type(made).__name__}. For a module alone, give --input-shape '[2, 3, 32, 32]'."
        )
    return module, inputs if isinstance(inputs, tuple) else (inputs,)


def _function(factory: str) -> Any:
    """Import what PACKAGE.MODULE:FACTORY names."""
    package, _, name = factory.partition(":")
    if not package or not name:
        raise TraceError(f"Expected PACKAGE.MODULE:FACTORY, got {factory!r}.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(package)
    except ImportError as error:
        raise TraceError(f"Cannot import {package!r}: {error}.") from error
    if not callable(function := getattr(module, name, None)):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise unknown_name(f"factory in {package}", name, known)
    return function
