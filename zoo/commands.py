"""Commands about zoos: ``info``, ``split``, ``repack``, ``page``, ``card``; and ``trace``."""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import TraceError, ZooError, unknown_name
from zoo.grouping import DEFAULT_FRACTIONS
from zoo.layout import Tier
from zoo.store import create as create_zoo
from zoo.store import open as open_zoo

if TYPE_CHECKING:
    from torch import nn


def info(path: str) -> None:
    """Describe a zoo: populations, members, checkpoints, spaces, columns, splits, version.

    Parameters
    ----------
    path
        A zoo.
    """
    from zoo.page.html import facts_of
    from zoo.page.score import score_of

    zoo = open_zoo(path)
    print(f"{path}: {len(zoo.populations)} population(s), dataset version {zoo.version}")
    for name in zoo.populations:
        population = zoo[name]
        print(f"\n{name}")
        for label, text in facts_of(population):
            print(f"  {label:<24}{text}")
        if (cost := population.cost) is not None:
            print(f"  {'training took':<24}{cost}")
        score = score_of(population)
        if score is not None and population.num_members:
            values = population.table[score.name].drop_nans().to_numpy()
            if len(values):
                print(
                    f"  {score.text:<24}minimum {values.min():.3f}, median "
                    f"{np.median(values):.3f}, maximum {values.max():.3f}"
                )


def split(
    path: Path,
    name: str,
    *,
    population: str | None = None,
    by: str | list[str] = "lineage",
    validation: str | None = None,
    test: str | None = None,
    fractions: tuple[float, float, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> None:
    """Freeze a split of a finished population into train, validation and test.

    Parameters
    ----------
    path
        A zoo.
    name
        Name of the split; it never changes afterwards.
    population
        Which to split, where the zoo holds several.
    by
        One column, or several: members with equal values share a part. Relatives always do.
    validation
        SQL condition, such as "learning_rate > 0.01": the part is made of these members alone.
    test
        The same for the test part.
    fractions
        Shares of train, validation and test among the members that no condition takes.
    seed
        Seed of the shuffle.
    """
    open_zoo(path)  # refuses what is no zoo; creating would make one in an empty folder
    zoo = create_zoo(path, exist_ok=True)
    if population is None and len(zoo.populations) > 1:
        raise ZooError(f"Expected --population, one of: {', '.join(zoo.populations)}.")
    writer = zoo.writer(population or "".join(zoo.populations))
    writer.create_split(
        name, seed=seed, fractions=fractions, by=by, validation=validation, test=test
    )
    split_population = zoo[writer.name]
    parts = split_population.split(name)
    print(f"split {name!r} of population {writer.name!r}, frozen")
    for part, members in parts.items():
        print(f"  {part:<12}{len(members):>10,} members")
    left_out = split_population.num_members - sum(map(len, parts.values()))
    if left_out:
        print(f"  {'no part':<12}{left_out:>10,} members, outside of the regions but related")


def repack(
    source: str,
    target: Path,
    *,
    tier: Tier,
    populations: list[str] | None = None,
    block_size: int = 0,
) -> None:
    """Write a finished zoo again in another tier; run again, it goes on where it was interrupted.

    Parameters
    ----------
    source
        A zoo, here or elsewhere; it is not changed.
    target
        A new zoo.
    tier
        hot: float32, read fastest. compact: float16, half the size, rounded. archive: float32,
        compressed, the same bits.
    populations
        Which to repack; all by default.
    block_size
        Members per block; as in the source by default, in an archive at least 64.
    """
    from tqdm import tqdm

    from zoo.store.upkeep.repack import repack as run_repack

    with tqdm(unit="block", leave=False) as bar:

        def show(name: str, block: int, num_blocks: int) -> None:
            bar.total, bar.n = num_blocks, block
            bar.set_description(name)

        zoo = run_repack(
            source,
            target,
            tier=tier,
            populations=populations or (),
            block_size=block_size,
            progress=show,
        )
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


def card(path: str, *, population: str | None = None, out: Path | None = None) -> None:
    """Describe a zoo as a data card in Markdown: what, how, which data, cost, measures, limits.

    Parameters
    ----------
    path
        A zoo.
    population
        Which to describe; all by default.
    out
        File to write; printed by default.
    """
    from zoo.cards import zoo_card

    text = zoo_card(open_zoo(path), [population] if population else [])
    if out is None:
        print(text, end="")
    else:
        out.write_text(text)
        print(f"wrote {out}")


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

    module, inputs = make_module(factory, input_shape)
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


def make_module(factory: str, input_shape: list[int] | None) -> "tuple[nn.Module, tuple[Any, ...]]":
    """Call a factory that a command named; returns the module and its example inputs."""
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
