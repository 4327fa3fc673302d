"""Convert real collections of other people's networks, check them, reproduce what was recorded.

The folder holds ``zoos/`` (cifar-lenet-wild, cifar-resnet, robust-lenet, deformation-mlp,
rl-policies, lora) and the data they are measured on (``cifar10/``, ``mnist/``,
``fashion-mnist/``). Every accuracy of the table is measured on networks rebuilt from the store.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import auto_cli
from tqdm import tqdm

import zoo
from zoo.commands import info
from zoo.convert.commands import describe
from zoo.convert.job import SOURCE_NAMES
from zoo.convert.sink import write
from zoo.convert.source import Entry
from zoo.convert.state_dicts import StateDicts
from zoo.convert.torch_files import read_checkpoint
from zoo.problems import Problem, evaluate, load
from zoo.store import Population, Zoo
from zoo.store.commands import check

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CIFAR_JPEG = {"name": "images", "train_every": 100}
LENET = {"name": "lenet", "in_channels": 3, "image_size": 32, "out_features": 10}
WIDTHS = (
    {"channels": [6, 16], "hidden": [120, 84]},
    {"channels": [12, 24], "hidden": [120, 84]},
    {"channels": [6, 16], "hidden": [120, 64]},
    {"channels": [10, 16], "hidden": [120, 84]},
)
ROBUST = LENET | {"in_channels": 1, "image_size": 28, "channels": [16, 32], "hidden": [100]}
ROBUST |= {"kernel_sizes": [4, 4], "strides": [2, 2], "paddings": [1, 1], "pools": [1, 1]}
NO_NETWORKS: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Collection:
    """One folder of networks, what they are, and what was recorded of them."""

    folder: str
    networks: Callable[[Path], tuple[dict[str, Any], ...]] = lambda _: NO_NETWORKS
    problem: dict[str, Any] = field(default_factory=lambda: {"name": "unknown"})
    rename: dict[str, str] = field(default_factory=dict)
    ragged: bool = False
    measure: Callable[[Zoo, Path], "Iterator[Row]"] = lambda *_: iter(())


@dataclass(frozen=True)
class Row:
    """One line of the table: an accuracy as it was recorded, and as the store gives it."""

    member: str
    data: str
    recorded: float
    reproduced: float


def main(data: Path, out: Path) -> None:
    """Convert every collection, check it, and print recorded against reproduced accuracies.

    Parameters
    ----------
    data
        Folder with ``zoos`` and the data sets.
    out
        Folder for the zoos; a conversion that was interrupted goes on.
    """
    rows: list[tuple[str, Row]] = []
    for collection in COLLECTIONS:
        folder = data / "zoos" / collection.folder
        target = out / f"{collection.folder}.zarr"
        source = StateDicts(folder, rename=collection.rename, drop=("shapes",))
        print(f"\n=== {collection.folder}")
        report = write(
            source,
            target,
            name=collection.folder,
            networks=collection.networks(folder),
            problem=collection.problem,
            ragged=collection.ragged,
        )
        print(describe(report, target))
        if check(str(target)):
            raise SystemExit(f"{target} is damaged")
        info(target)
        made = zoo.open(target)
        print(f"bit for bit as in the files: {sum(_is_exact(made, folder))} networks")
        rows += [(collection.folder, row) for row in collection.measure(made, data)]
    _print_table(rows)


def _is_exact(made: Zoo, folder: Path) -> Iterator[bool]:
    """Compare every stored network with its file, read on its own."""
    for name in made.populations:
        population = made[name]
        for member, source in enumerate(population.recipe["text"][SOURCE_NAMES]):
            there = read_checkpoint(folder / source).tensors
            names = _translation(population, set(there))
            stored = population.state_dict(member)
            exact = all(
                np.array_equal(stored[ours].numpy(), there[theirs])
                for ours, theirs in names.items()
            )
            if not exact or len(names) != len(there):
                raise SystemExit(f"{source} differs in {name}")
            yield True


def _translation(population: Population, theirs: set[str]) -> dict[str, str]:
    for each in population.recipe["translated"]:
        if set(each["names"].values()) == theirs:
            return dict(each["names"])
    return {name: name for name in theirs}


def _lenets(made: Zoo, data: Path) -> Iterator[Row]:
    """Every LeNet on every fourth JPEG test image, as the index has it."""
    problem = None
    for name in made.populations:
        population = made[name]
        problem = problem or load(population.problem, data=data / "cifar10")
        recorded = population.metric("test_accuracy")[:, -1]
        for member in tqdm(population.member_ids.tolist(), name, unit="network"):
            accuracy = evaluate(problem, population.module(member))["test_accuracy"]
            source = population.recipe["text"][SOURCE_NAMES][member]
            yield Row(source, "2,500 JPEG", float(recorded[member]), accuracy)


def _resnets(made: Zoo, data: Path) -> Iterator[Row]:
    """Both ResNets on every tenth JPEG test image, and on 1,000 exact training images."""
    folder = data / "cifar10"
    jpeg = load(CIFAR_JPEG | IMAGENET | {"test_every": 10}, data=folder)
    exact = load({"name": "cifar10", "num_test": 1} | IMAGENET, data=folder)
    exact = _on(exact, exact.train_inputs[:1000], exact.train_targets[:1000])
    recorded = {"resnet20": (0.795, 0.999), "resnet32": (np.nan, np.nan)}
    for name in made.populations:
        module = made[name].module(0)
        source = made[name].recipe["text"][SOURCE_NAMES][0]
        known = recorded[source.partition("-")[0]]
        yield Row(source, "1,000 JPEG", known[0], evaluate(jpeg, module)["test_accuracy"])
        yield Row(source, "1,000 exact", known[1], evaluate(exact, module)["test_accuracy"])


def _robust(made: Zoo, data: Path) -> Iterator[Row]:
    """Both robust LeNets on the first 2,000 test images."""
    population = made["robust-lenet"]
    sets = {"mnist.pth": ("mnist", 0.975), "fashion_mnist.pth": ("fashion-mnist", 0.788)}
    for member, source in enumerate(population.recipe["text"][SOURCE_NAMES]):
        folder, recorded = sets[source]
        problem = load({"name": "idx", "mean": 0.0, "std": 1.0}, data=data / folder)
        problem = _on(problem, problem.test_inputs[:2000], problem.test_targets[:2000])
        accuracy = evaluate(problem, population.module(member))["test_accuracy"]
        yield Row(source, f"2,000 {folder}", recorded, accuracy)


def _on(problem: Problem, inputs: Any, targets: Any) -> Problem:
    """Measure on these samples alone."""
    few = {"train_inputs": inputs[:2], "train_targets": targets[:2]}
    return replace(problem, test_inputs=inputs, test_targets=targets, **few)


def _policies(folder: Path) -> tuple[dict[str, Any], ...]:
    """Read the widths of every actor-critic off its tensors; the other policies stay unknown."""
    found: dict[str, dict[str, Any]] = {}
    for entry in StateDicts(folder).scan():
        shapes = dict(entry.shapes) if isinstance(entry, Entry) else {}
        if "mlp_extractor.policy_net.0.weight" in shapes:
            noise = {0: "none", 1: "action", 2: "state"}[len(shapes.get("log_std", ()))]
            fan_in = shapes["mlp_extractor.policy_net.0.weight"][1]
            config = {"name": "actor-critic", "in_features": fan_in, "noise": noise}
            config["num_actions"] = shapes["action_net.weight"][0]
            found.setdefault(str(config), config)
    return tuple(found.values())


def _print_table(rows: list[tuple[str, Row]]) -> None:
    layout = "{:<18}{:<48}{:<21}{:>9}{:>9}{:>9}"
    print("\n" + layout.format("collection", "network", "images", "recorded", "store", "differ"))
    for collection, row in rows:
        numbers = (row.recorded, row.reproduced, row.reproduced - row.recorded)
        shown = ["-" if np.isnan(number) else f"{number:.4f}" for number in numbers]
        print(layout.format(collection, row.member, row.data, *shown))
    differ = [abs(row.reproduced - row.recorded) for _, row in rows if np.isfinite(row.recorded)]
    print(f"{len(differ)} recorded accuracies, largest difference {max(differ):.4f}")


COLLECTIONS = (
    Collection(
        "cifar-lenet-wild",
        networks=lambda _: tuple(LENET | widths for widths in WIDTHS),
        problem=CIFAR_JPEG | {"test_every": 4},
        rename={"acc_jpeg_test2500_norm0.5": "test_accuracy"},
        measure=_lenets,
    ),
    Collection(
        "cifar-resnet",
        networks=lambda _: tuple({"name": "resnet", "depth": depth} for depth in (20, 32)),
        problem=CIFAR_JPEG | IMAGENET,
        measure=_resnets,
    ),
    Collection("robust-lenet", networks=lambda _: (ROBUST,), measure=_robust),
    Collection(
        "deformation-mlp",
        networks=lambda _: (
            {"name": "mlp", "in_features": 17, "hidden": [64, 64, 64], "out_features": 11},
            {"name": "tandem", "num_fractions": 11, "num_choices": 6, "num_outputs": 11},
        ),
    ),
    Collection("rl-policies", networks=_policies, ragged=True),
    Collection("lora"),
)

if __name__ == "__main__":
    auto_cli(main)
