"""Starts: populations whose members begin from the stored members of another population."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from zoo.errors import InvalidConfigError, unknown_name


@dataclass(frozen=True, kw_only=True)
class Widen:
    """Every network gets more hidden units and keeps its function (Net2WiderNet [1]_).

    How many is what the recipe's network says. New units are copies of old ones, as many of each as
    possible; what reads a unit is divided among its copies.

    Parameters
    ----------
    even
        Whether all copies of a unit get the same share. By default shares are drawn, since copies
        of equal shares get equal gradients and stay copies for ever.

    References
    ----------
    .. [1] Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016.
    """

    name: ClassVar[str] = "widen"
    even: bool = False


@dataclass(frozen=True, kw_only=True)
class Prune:
    """The smallest weights of every network become 0; biases and normalisation stay.

    Gradual pruning is a chain of populations: each begins from the one before and has a larger
    fraction, such as by the cubic schedule ``s * (1 - (1 - k / n) ** 3)`` of [1]_ (Eq. 1). What was
    0 before is pruned first.

    Parameters
    ----------
    fraction
        Share of the weights, in [0, 1).
    scope
        ``global`` compares all weights of a network, ``layer`` those of one tensor.
    frozen
        Whether they stay 0 while the network is trained on.

    References
    ----------
    .. [1] Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
       compression", ICLR 2018 workshop.
    """

    name: ClassVar[str] = "prune"
    fraction: float
    scope: Literal["global", "layer"] = "global"
    frozen: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1 or self.scope not in ("global", "layer"):
            raise InvalidConfigError(
                f"Expected a fraction in [0, 1) and the scope global or layer, got {self}."
            )


Transform = Widen | Prune
TRANSFORMS: dict[str, type[Any]] = {kind.name: kind for kind in (Widen, Prune)}


@dataclass(frozen=True, kw_only=True)
class Start:
    """Which stored members the members of a recipe begin from.

    Members take the chosen ones in turn: without a grid, member ``m`` begins from the one at
    position ``m % n``; with a grid, all its places from the first, then all from the second.
    The activation is inherited, since with another one the weights would be another function; what
    else belongs to the network and differs between members (dropout, say) is inherited unless the
    recipe spreads it.

    Parameters
    ----------
    zoo
        Path or address of their zoo, empty where whoever runs the recipe says it. Where it lies is
        no part of the recipe's identity, what it holds is.
    population
        Their population.
    checkpoint
        At which of its checkpoints, by position; -1 is the last.
    where
        SQL condition on its table, such as ``"test_accuracy > 0.9"``; all members by default.
        Members that diverged are never taken.
    transform
        What is done to their weights at first.
    """

    zoo: str
    population: str
    checkpoint: int = -1
    where: str | None = None
    transform: Transform | None = None

    @property
    def freezes(self) -> bool:
        """Whether some weights are 0 and stay so."""
        return isinstance(self.transform, Prune) and self.transform.frozen

    def to_json(self) -> dict[str, Any]:
        """Turn into plain values; :meth:`from_json` turns back."""
        plain: dict[str, Any] = asdict(self)
        if self.transform is not None:
            plain["transform"] = {"name": self.transform.name} | plain["transform"]
        return plain

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "Start":
        """Restore a start.

        Raises
        ------
        UnknownNameError
            If there is no such transform.
        """
        values = dict(raw)
        if values.get("transform") is not None:
            about = dict(values["transform"])
            name = about.pop("name", None)
            if name not in TRANSFORMS:
                raise unknown_name("transform", name, TRANSFORMS)
            values["transform"] = TRANSFORMS[name](**about)
        return cls(**values)
