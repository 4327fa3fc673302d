"""Errors and warnings of the platform: each is a :class:`ZooError` and the builtin it means."""

from collections.abc import Iterable


class ZooError(Exception):
    """Base of every error raised on purpose; its message says what to do next."""

    def __str__(self) -> str:
        # KeyError would show the message quoted; ours are sentences.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class WeightSpaceMismatchError(ZooError, ValueError):
    """Weights, a module or an action do not belong to the weight space at hand."""


class TraceError(ZooError, ValueError):
    """A module cannot be traced into a weight space."""


class UnknownNameError(ZooError, KeyError):
    """A name (population, column, split, recipe, model, ...) that does not exist."""


class InvalidConfigError(ZooError, ValueError):
    """A configuration whose fields contradict each other or leave their range."""


class MissingDataError(ZooError, FileNotFoundError):
    """Data files of a problem that are not where they were looked for."""


class StoreError(ZooError, OSError):
    """A zoo on disk that cannot be opened, created or written as asked."""


class DamagedChunkError(StoreError):
    """A stored chunk that is truncated, altered or missing: never read as numbers."""


class ZooWarning(UserWarning):
    """Something was left out or changed on the way; the result is still sound."""


def unknown_name(kind: str, name: object, known: Iterable[object]) -> UnknownNameError:
    """Build the error for a name that does not exist, listing those that do.

    >>> str(unknown_name("model", "mpl", ["nfn", "statnn"]))
    "Unknown model 'mpl'. Known: nfn, statnn."
    """
    listing = ", ".join(str(item) for item in known) or "none"
    return UnknownNameError(f"Unknown {kind} {str(name)!r}. Known: {listing}.")
