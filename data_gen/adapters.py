"""The one stored network that adapters are trained on: chosen, and kept in the zoo's own folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import zoo
from data_gen.ancestors import choose
from data_gen.recipe import Recipe
from data_gen.run import Run
from zoo.errors import InvalidConfigError, MissingDataError, StoreError
from zoo.networks import LoRAConfig, from_dict
from zoo.networks.frozen import save_base
from zoo.schema import PopulationSpec
from zoo.store import Population
from zoo.store.disk.chunks import replace_file

BASES = "_bases"
"""Folder of a zoo with the networks that adapters belong to."""


def with_base(run: Run) -> Run:
    """Give a run of adapters their base: the first member that its recipe's start chooses.

    The base's tensors are written into the zoo, as ``_bases/HASH.npz``, unless they are there. All
    members get this one base and begin from it, for their adapters are 0 at first; they descend
    from nobody, since no number of theirs is taken from another network. Runs of other networks,
    and of adapters that have their base, are returned as they are.

    Raises
    ------
    MissingDataError
        If the recipe does not say which zoo the base is in.
    StoreError, UnknownNameError, InvalidConfigError
        If it is not there, or no base of adapters.
    """
    recipe = run.recipe
    if not _lacks_base(recipe):
        return run
    chosen = choose(recipe)
    if chosen is None:
        raise _no_base(recipe)
    assert recipe.start is not None
    if recipe.start.transform is not None:
        raise InvalidConfigError(
            f"Expected a start without a transform, got {recipe.start.transform} in recipe "
            f"{recipe.name!r} of adapters. Prune or widen in a population of its own, and take "
            "that one as --start."
        )
    network, state = _base_of(chosen, recipe.start.checkpoint)
    data, sha256 = save_base(state)
    path = run.out.resolve() / BASES / f"{sha256[:16]}.npz"
    adapters: Any = recipe.network
    filled = replace(adapters, base=network, weights=str(path), sha256=sha256)
    zoo.create(run.out, exist_ok=True)
    _write(path, data)
    about = f"{recipe.description}; base: member {int(chosen.member_ids[0])} of {chosen.name}"
    return replace(
        run,
        recipe=replace(
            recipe,
            network=filled,
            start=None,
            description=f"{about}, version {chosen.version}",
        ),
    )


def check_base(recipe: Recipe) -> None:
    """Raise :class:`MissingDataError` if the recipe is of adapters that have no base yet."""
    if _lacks_base(recipe):
        raise _no_base(recipe)


def portable(spec: PopulationSpec, out: Path) -> PopulationSpec:
    """Say where a base lies: relative to the zoo if it lies within, so that both may be moved."""

    def relative(network: dict[str, Any]) -> dict[str, Any]:
        if not network.get("weights"):
            return network
        path, root = Path(network["weights"]).resolve(), out.resolve()
        place = path.relative_to(root) if path.is_relative_to(root) else path
        return network | {"weights": place.as_posix()}

    recipe = spec.recipe | {"network": relative(spec.recipe["network"])}
    return replace(spec, network=relative(spec.network), recipe=recipe)


def _lacks_base(recipe: Recipe) -> bool:
    return isinstance(recipe.network, LoRAConfig) and not recipe.network.weights


def _no_base(recipe: Recipe) -> MissingDataError:
    return MissingDataError(
        f"Members of recipe {recipe.name!r} are adapters of one stored network: name its zoo by "
        "--start ZOO, or fill in the recipe with data_gen.adapters.with_base."
    )


def _base_of(chosen: Population, checkpoint: int) -> tuple[Any, dict[str, Any]]:
    """Return the first member's network, without dropout, and its tensors."""
    member = int(chosen.member_ids[0])
    network = chosen.network_of(member)
    off = {"dropout": 0.0} if "dropout" in network else {}
    return from_dict(network | off), chosen.state_dict(member, checkpoint=checkpoint)


def _write(path: Path, data: bytes) -> None:
    if not path.exists():
        replace_file(path, data)
    elif path.read_bytes() != data:
        raise StoreError(
            f"Expected the base network of adapters in {path}, got an altered file. Remove it and "
            "run again: it is written anew from the zoo it came from."
        )
