"""Engine ``native``: kernels that train one member from its first step to its last."""

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

import numpy as np

from data_gen.engines.members import MASK, BlockResult
from data_gen.engines.native.rows import NoKernelError
from data_gen.recipe import Recipe
from zoo.errors import InvalidConfigError
from zoo.problems import Problem
from zoo.space import WeightSpace

_MEMBERS_PER_THREAD = 16
_NO_MASKS = "engine 'native' has no kernels that keep pruned weights at 0; use engine 'stacked'"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NativeEngine:
    """Trains one member per thread with compiled kernels, its numbers in the processor's cache.

    A member alone and in any population is the same bit for bit, on one kind of processor and one
    version of numba. Members may differ in all hyper-parameters without loss of speed.

    Parameters
    ----------
    device
        ``cpu``; there are no kernels for others.
    threads
        Members side by side. A run has processes instead, with a thread each.
    reason
        Why this engine was chosen, where it was not named.

    Raises
    ------
    InvalidConfigError
        If the device is another, or numba is not installed.
    """

    name: ClassVar[str] = "native"
    device: str = "cpu"
    threads: int = 1
    reason: str = ""

    def __post_init__(self) -> None:
        if self.device != "cpu":
            raise InvalidConfigError(
                f"Engine 'native' runs on the cpu, got {self.device!r}; use engine 'stacked'."
            )
        if self.threads < 1:
            raise InvalidConfigError(f"Expected at least one thread, got {self.threads}.")
        if not is_installed():
            raise InvalidConfigError(
                "Engine 'native' needs numba, which is not installed. Install it with "
                "pip install \"weight-zoo[native]\", or use engine 'stacked'."
            )

    def members_per_call(self, recipe: Recipe) -> int:  # noqa: ARG002
        """Return how many members keep all threads busy."""
        return self.threads * _MEMBERS_PER_THREAD

    def train(
        self,
        recipe: Recipe,
        problem: Problem,
        space: WeightSpace,
        members: np.ndarray,  # noqa: ARG002
        hyperparameters: Mapping[str, np.ndarray],
        *,
        progress: Callable[[float], None] | None = None,
    ) -> BlockResult:
        """Train members; see :class:`data_gen.engines.Engine`.

        Raises
        ------
        NoKernelError
            If the recipe's network has an operator that no kernel computes.
        """
        if MASK in hyperparameters:
            raise NoKernelError(_NO_MASKS)
        load_kernels()
        from data_gen.engines.native.training import train_members

        return train_members(
            recipe,
            problem,
            space,
            hyperparameters,
            threads=self.threads,
            progress=progress or (lambda _: None),
        )


def obstacle_of(recipe: Recipe, *, device: str) -> str:
    """Say why this engine cannot train a recipe; empty if it can."""
    if device != "cpu":
        return f"engine 'native' has no kernels for {device}"
    if not is_installed():
        return 'numba is not installed (pip install "weight-zoo[native]")'
    if recipe.start is not None and recipe.start.freezes:
        return _NO_MASKS
    from data_gen.engines.native.compiling import check_recipe

    try:
        check_recipe(recipe)
    except NoKernelError as error:
        return str(error)
    return ""


def is_installed() -> bool:
    """Say whether numba can be imported."""
    return find_spec("numba") is not None


def load_kernels() -> None:
    """Load the kernels; compiles them, and says so, if no process of this version has before."""
    name = "data_gen.engines.native.kernels"
    if name in sys.modules:
        return
    from data_gen.engines.native import jit

    if not any(jit.folder().iterdir()):
        _log.warning(
            "Compiling the kernels of engine 'native' for this processor, about half a minute; "
            "they are kept in %s.",
            jit.folder(),
        )
    import data_gen.engines.native.kernels  # noqa: F401
