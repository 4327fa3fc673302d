"""Which network members are, for models that run them."""

import json
from collections.abc import Mapping
from typing import Any

from neural_functionals.models import NeuralFunctional, runs_members
from zoo.errors import InvalidConfigError, WeightSpaceMismatchError
from zoo.store import Members

_TRAINING_ONLY = ("dropout",)  # fields of configurations that networks in evaluation ignore


def common_network(members: Members) -> dict[str, Any]:
    """Return the network that all members are in evaluation, as ``zoo.networks.build`` takes it.

    Raises
    ------
    InvalidConfigError
        If members differ in more than their weights.
    """
    networks = [_evaluated(members.network_of(member)) for member in members.member_ids.tolist()]
    found = {json.dumps(network, sort_keys=True): network for network in networks}
    if len(found) != 1:
        differing = _differing(list(found.values()))
        kind = " and ".join(f"{name} = {value!r}" for name, value in differing.items())
        raise InvalidConfigError(
            f"Expected members of one network for a model that runs them, got {len(found)} in "
            f"population {members.name!r}, which differ in {', '.join(differing)}. Keep those of "
            f'one kind, as in --where "{kind}", or use a model that reads weights.'
        )
    return networks[0]


def check_network(model: NeuralFunctional, members: Members) -> None:
    """Raise :class:`WeightSpaceMismatchError` if a model runs members as another network."""
    if not runs_members(model.config):
        return
    expected = _evaluated(model.config.network)  # type: ignore[attr-defined]
    if (came := common_network(members)) != expected:
        raise WeightSpaceMismatchError(
            f"Expected members of network {expected} for this model, got {came} in population "
            f"{members.name!r}. Train a model on that population."
        )


def _differing(networks: list[dict[str, Any]]) -> dict[str, Any]:
    """Fields that networks differ in, with the value of the first of them."""
    first, *others = networks
    names = sorted({name for network in networks for name in network})
    return {
        name: first.get(name)
        for name in names
        if any(network.get(name) != first.get(name) for network in others)
    }


def _evaluated(network: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what makes no difference once a network is trained."""
    return {field: value for field, value in network.items() if field not in _TRAINING_ONLY}
