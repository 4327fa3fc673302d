"""From a population's stored rows to networks, samples and partners that measures look at."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo import problems
from zoo.errors import InvalidConfigError, MissingDataError, UnknownNameError
from zoo.measures.measure import Batch, Measure
from zoo.measures.networks import Networks, Samples, cross_entropy, squared_error
from zoo.measures.partners import choose_partners
from zoo.networks import UNKNOWN, build
from zoo.problems import Problem
from zoo.schema import MEMBER
from zoo.store import Population

_AT_ONCE = 32
_SIGNAL = "signal"
PROBLEM_HASH = "problem_sha256"


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Which samples measures are taken on.

    Parameters
    ----------
    samples
        Samples of each part, all where it has fewer: those at the first places of a shuffle.
    seed
        Of the shuffle, of partners and of everything random in measures.

    Raises
    ------
    InvalidConfigError
        If there is no sample, or the seed is negative.
    """

    samples: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.seed < 0:
            raise InvalidConfigError(
                f"Expected at least one sample and a seed of at least 0, got {self.samples} and "
                f"{self.seed}."
            )


def subset(total: int, samples: int, seed: int) -> torch.Tensor:
    """Choose samples: positions ``[min(samples, total)]``, ascending, int64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:samples].sort().values


def load_problem(
    population: Population,
    *,
    data: Path | None,
    config: Mapping[str, Any] | None = None,
    other_data: bool = False,
) -> Problem:
    """Load what a population's members were trained for.

    Parameters
    ----------
    data
        Folder with the files, for problems that read files.
    config
        The problem, where the population does not say it.
    other_data
        Whether data may differ from what members were trained on.

    Raises
    ------
    InvalidConfigError
        If the problem is not known, or is a differential equation.
    MissingDataError
        If the data are not what members were trained on.
    """
    wanted = dict(population.problem if config is None else config)
    if wanted.get("name") == UNKNOWN["name"]:
        raise InvalidConfigError(
            f"What the members of population {population.name!r} were trained for is not known. "
            'Name it by --problem, such as \'{"name": "cifar10"}\'.'
        )
    problem = _loaded(json.dumps(wanted, sort_keys=True), data)
    if problem.equation is not None:
        raise InvalidConfigError(
            f"Problem {problem.name!r} of population {population.name!r} is a differential "
            "equation: only measures of weights alone are defined for it."
        )
    trained = population.recipe.get(PROBLEM_HASH)
    if trained is not None and trained != problem.sha256 and not other_data:
        raise MissingDataError(
            f"Expected the data that population {population.name!r} was trained on (hash "
            f"{trained[:16]}), got {wanted} from {data} with hash {problem.sha256[:16]}. Give "
            "--data of those files, or --other-data to measure on these."
        )
    return problem


@lru_cache(maxsize=1)
def _loaded(config: str, data: Path | None) -> Problem:
    """Load a problem once for all populations that share it."""
    return problems.load(json.loads(config), data=data)


@dataclass(frozen=True, eq=False)
class Members:
    """The members of one population, ready to be measured.

    Parameters
    ----------
    population
        Every member that is stored.
    samples
        Which samples to take.
    problem
        What members were trained for; ``None`` where weights alone are looked at.
    """

    population: Population
    samples: SampleConfig
    problem: Problem | None = field(default=None, repr=False)

    @cached_property
    def networks(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Which network each member is, as a number ``[num_ids]``, and the networks, as JSON."""
        known: dict[str, int] = {}
        group = np.full(self.population.spec.num_members, -1, dtype=np.int64)
        for member, network in self._configured():
            group[member] = known.setdefault(network, len(known))
        return group, tuple(known)

    def check(self) -> None:
        """Build every network once, and try it on samples where there are any.

        Raises
        ------
        InvalidConfigError
            If a member's network cannot be built, or does not take the samples; names the member.
        """
        group, known = self.networks
        for number, network in enumerate(known):
            try:
                self._try(build(json.loads(network)).eval())
            except (InvalidConfigError, UnknownNameError, RuntimeError, ValueError) as error:
                member = int(np.flatnonzero(group == number)[0])
                raise InvalidConfigError(
                    f"Member {member} of population {self.population.name!r} cannot be measured: "
                    f"{error}"
                ) from error

    def _try(self, module: torch.nn.Module) -> None:
        if self.problem is None:
            return
        with torch.no_grad():
            outputs = module(self.problem.train_inputs[:2])
        if outputs.shape[-1] < self.problem.num_classes:
            raise InvalidConfigError(
                f"Expected outputs for {self.problem.num_classes} classes of problem "
                f"{self.problem.name!r}, got {list(outputs.shape[1:])}. Is it another problem's?"
            )

    @cached_property
    def num_samples(self) -> tuple[int, int]:
        """Training and test samples that are taken."""
        if self.problem is None:
            return 0, 0
        sizes = len(self.problem.train_inputs), len(self.problem.test_inputs)
        train, test = (min(self.samples.samples, size) for size in sizes)
        return train, 0 if self.problem.num_signals else test

    def partners(self, count: int) -> tuple[np.ndarray, str]:
        """Choose partners ``[num_ids, count]``, and say by which rule."""
        if count not in self._partners:
            group = self.networks[0]
            self._partners[count] = choose_partners(
                self.population, group, count=count, seed=self.samples.seed
            )
        return self._partners[count]

    def batches(
        self,
        measure: Measure,
        members: np.ndarray,
        epoch_index: int,
        *,
        stored: Mapping[str, str],
        num_partners: int,
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        """Yield members of one network at a time, and where they stand in ``members``.

        Parameters
        ----------
        members
            Ids ``[n]``, all stored.
        epoch_index
            Index of the checkpoint.
        stored
            What the measure needs to be stored, and under which name it is.
        num_partners
            Partners of each.
        """
        group, known = self.networks
        for number in np.unique(group[members]).tolist():
            places = np.flatnonzero(group[members] == number)
            for start in range(0, len(places), _AT_ONCE):
                here = places[start : start + _AT_ONCE]
                batch = self._batch(members[here], epoch_index, stored)
                if measure.needs != "stored":
                    batch = self._with_networks(batch, known[number], epoch_index)
                    batch = self._with_samples(measure, batch)
                yield here, self._with_partners(batch, epoch_index, num_partners)

    def known(
        self, members: np.ndarray, index: int, stored: Mapping[str, str]
    ) -> dict[str, np.ndarray]:
        """Return what is stored of members at a checkpoint, ``[n]`` each, by the name needed."""
        rows = np.searchsorted(self.population.member_ids, members)
        return {name: self.population.metric(kept)[rows, index] for name, kept in stored.items()}

    def _batch(self, members: np.ndarray, index: int, stored: Mapping[str, str]) -> Batch:
        epoch = int(self.population.epochs[index])
        return Batch(
            members=members,
            epoch=epoch,
            seeds=np.array([self._seed(member, epoch) for member in members.tolist()]),
            known=self.known(members, index, stored),
        )

    def _with_networks(self, batch: Batch, network: str, index: int) -> Batch:
        return replace(batch, networks=self._networks_at(batch.members, network, index))

    def _with_samples(self, measure: Measure, batch: Batch) -> Batch:
        if measure.needs == "weights":
            return batch
        train, test = self._samples(batch.members)
        return replace(batch, train=train, test=test)

    def _with_partners(self, batch: Batch, index: int, count: int) -> Batch:
        if not count:
            return batch
        chosen = self.partners(count)[0][batch.members]
        partners = (self._partner_networks(batch.own, ids, index) for ids in chosen.T)
        return replace(batch, partners=tuple(partners))

    def _networks_at(self, members: np.ndarray, network: str, index: int) -> Networks:
        vectors = self.population.vectors(members, checkpoint=index)
        return Networks(
            module=self._module(network),
            space=self.population.space_of(int(members[0])),
            vectors=torch.from_numpy(np.stack(vectors)),
        )

    def _partner_networks(self, networks: Networks, ids: np.ndarray, index: int) -> Networks:
        vectors = torch.full_like(networks.vectors, torch.nan)
        there = np.flatnonzero(ids >= 0)
        if len(there):
            rows = self.population.vectors(ids[there], checkpoint=index)
            vectors[torch.from_numpy(there)] = torch.from_numpy(np.stack(rows))
        return Networks(module=networks.module, space=networks.space, vectors=vectors)

    def _module(self, network: str) -> torch.nn.Module:
        if network not in self._modules:
            self._modules[network] = build(json.loads(network)).eval()
        return self._modules[network]

    def _samples(self, members: np.ndarray) -> tuple[Samples, Samples | None]:
        problem = self.problem
        assert problem is not None, "a measure that needs samples was given none"
        loss = cross_entropy if problem.num_classes else squared_error
        chosen = subset(len(problem.train_inputs), self.samples.samples, self.samples.seed)
        inputs = problem.train_inputs[chosen]
        if problem.num_signals:
            signals = self.population.table[_SIGNAL].to_numpy()
            rows = np.searchsorted(self.population.member_ids, members)
            targets = problem.train_targets[torch.from_numpy(signals[rows])][:, chosen]
            return Samples(inputs=inputs, targets=targets, loss=loss, own_targets=True), None
        train = Samples(inputs=inputs, targets=problem.train_targets[chosen], loss=loss)
        chosen = subset(len(problem.test_inputs), self.samples.samples, self.samples.seed)
        inputs, targets = problem.test_inputs[chosen], problem.test_targets[chosen]
        return train, Samples(inputs=inputs, targets=targets, loss=loss) if len(chosen) else None

    def _seed(self, member: int, epoch: int) -> int:
        state = np.random.SeedSequence([self.samples.seed, member, epoch]).generate_state(1)
        return int(state[0])

    def _configured(self) -> Iterator[tuple[int, str]]:
        """Yield every member with its network, as JSON to tell networks apart."""
        population = self.population
        names = population.spec.network_columns
        rows = population.table.select(MEMBER, *names).rows(named=True)
        for part in population.by_architecture().values():
            base = population.network_of(int(part.member_ids[0]))
            places = np.searchsorted(population.member_ids, part.member_ids)
            for member, place in zip(part.member_ids.tolist(), places.tolist(), strict=True):
                own = {name: rows[place][name] for name in names}
                yield member, json.dumps(base | own, sort_keys=True)

    @cached_property
    def _modules(self) -> dict[str, torch.nn.Module]:
        return {}

    @cached_property
    def _partners(self) -> dict[int, tuple[np.ndarray, str]]:
        return {}
