"""Which weight space each member has, in a regular population as in a ragged one."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import DamagedChunkError, WeightSpaceMismatchError
from zoo.layout import Ragged
from zoo.schema import ARCHITECTURE, COLUMNS, OFFSET, SPACES, PopulationSpec
from zoo.space import WeightSpace

if TYPE_CHECKING:
    from zoo.store.disk.files import PopulationFiles


def space_file(fingerprint: str) -> str:
    """Return the path of a weight space below its ragged population."""
    return f"{SPACES}/{fingerprint}.json"


def space_files(spec: PopulationSpec, spaces: Iterable[WeightSpace]) -> dict[str, str]:
    """Return the files of a ragged population's weight spaces, path below it to text.

    Raises
    ------
    WeightSpaceMismatchError
        If the spaces are not those of the architectures.
    """
    ragged = spec.space.architectures if isinstance(spec.space, Ragged) else ()
    wanted = {each.space: each.num_parameters for each in ragged}
    given = {space.fingerprint: space for space in spaces}
    if wanted != {name: space.num_parameters for name, space in given.items()}:
        raise WeightSpaceMismatchError(
            f"Expected the {len(wanted)} weight spaces of the architectures of population "
            f"{spec.name!r} ({', '.join(wanted) or 'none: its space is in the spec'}), got "
            f"{', '.join(given) or 'none'}. Pass them as `spaces` when the population is created."
        )
    return {space_file(name): space.to_json() for name, space in given.items()}


class Architectures:
    """The architectures of a population's members; one, when it is regular.

    Weight spaces are read, and checked against their fingerprints, when they are first asked for.

    Parameters
    ----------
    files
        The population.
    """

    def __init__(self, files: "PopulationFiles") -> None:
        self._files = files
        self._spaces: dict[str, WeightSpace] = {}

    @property
    def ragged(self) -> Ragged | None:
        """The rows, if members have different architectures."""
        space = self._files.spec.space
        return space if isinstance(space, Ragged) else None

    @cached_property
    def of_member(self) -> np.ndarray:
        """Per member planned, the position of its architecture; int64, -1 when not committed."""
        if self.ragged is None:
            return np.where(self._files.is_committed, 0, -1)
        return self._files.array(f"{COLUMNS}/{ARCHITECTURE}")

    @cached_property
    def sizes(self) -> np.ndarray:
        """Per member planned, the length of its flat vector; int64."""
        if self.ragged is None:
            return np.full(self._files.spec.num_members, self._files.spec.row_length)
        return np.asarray(self.ragged.sizes[self.of_member])

    @cached_property
    def offsets(self) -> np.ndarray:
        """Per member planned, where its flat vector starts in its chunk of weights; int64."""
        if self.ragged is not None:
            return self._files.array(OFFSET)
        spec = self._files.spec
        return np.arange(spec.num_members) % spec.block_size * spec.row_length

    def network_of(self, member_id: int) -> dict[str, Any]:
        """Return the fields that a member's architecture adds to the population's network."""
        if self.ragged is None:
            return {}
        return self.ragged.architectures[int(self.of_member[member_id])].network

    def space(self, position: int) -> WeightSpace:
        """Return the weight space of an architecture.

        Raises
        ------
        DamagedChunkError
            If its file is missing, or holds another space.
        """
        if self.ragged is None:
            return self._files.spec.weight_space
        fingerprint = self.ragged.architectures[position].space
        if fingerprint not in self._spaces:
            self._spaces[fingerprint] = self._read(fingerprint)
        return self._spaces[fingerprint]

    def common_space(self, member_ids: np.ndarray) -> WeightSpace:
        """Return the weight space that members share.

        Raises
        ------
        WeightSpaceMismatchError
            If they have different ones.
        """
        if self.ragged is None:
            return self.space(0)
        found = np.unique(self.of_member[member_ids]).tolist()
        if len({self.ragged.architectures[position].space for position in found}) != 1:
            raise WeightSpaceMismatchError(
                f"Expected one weight space for {len(member_ids)} members of population "
                f"{self._files.name!r}, got {len(found)} architectures. Take the parts of one "
                "space from `by_architecture()`, or mixed members by `vectors(...)`."
            )
        return self.space(found[0])

    def members(self, block: int, chunk: np.ndarray) -> list[np.ndarray]:
        """Cut a chunk of weights into its members' flat vectors, as views."""
        flat = chunk.reshape(-1)
        ids = self._files.spec.members_of(block)
        spans = zip(self.offsets[ids].tolist(), self.sizes[ids].tolist(), strict=True)
        return [flat[start : start + size] for start, size in spans]

    def faults(self) -> Iterator[tuple[str, tuple[int, ...], str]]:
        """Yield weight spaces that cannot be trusted: the file, whose they are, and why."""
        for position, architecture in enumerate(self.ragged.architectures if self.ragged else ()):
            try:
                self.space(position)
            except DamagedChunkError as error:
                yield space_file(architecture.space), self._whose(position), str(error)

    def _whose(self, position: int) -> tuple[int, ...]:
        """Return the members of an architecture; none where the column is damaged itself."""
        try:
            return tuple(np.flatnonzero(self.of_member == position).tolist())
        except DamagedChunkError:
            return ()

    def _read(self, fingerprint: str) -> WeightSpace:
        path = self._files.place / space_file(fingerprint)
        try:
            space = WeightSpace.from_json(self._files.place.read(space_file(fingerprint)).decode())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedChunkError(
                f"Expected weight space {fingerprint} in {path}, got {error!r}. Restore this file "
                "from a backup."
            ) from error
        if space.fingerprint != fingerprint:
            raise DamagedChunkError(
                f"Expected weight space {fingerprint} in {path}, got {space.fingerprint}: its "
                "description was altered. Restore this file from a backup."
            )
        return space
