"""The command ``zoo convert``."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.convert.job import Converted
from zoo.convert.sink import ConversionReport, Progress
from zoo.errors import InvalidConfigError, ZooError, unknown_name
from zoo.networks import UNKNOWN

if TYPE_CHECKING:
    from zoo.store import Zoo

_HDF5 = (".h5", ".hdf5")


def convert(
    source: Path,
    target: Path,
    *,
    from_: str | None = None,
    to: str | None = None,
    network: str | None = None,
    factory: str | None = None,
    input_shape: list[int] | None = None,
    name: str | None = None,
    problem: str | None = None,
    ragged: bool = False,
    options: str | None = None,
) -> int:
    """Convert other people's networks into a zoo, or a zoo into another format.

    A zoo becomes one HDF5 file where the target ends in .h5; such a file, and a folder of ours of
    safetensors, becomes the same zoo again. Inputs of other people that cannot be read are listed
    and left out. What was interrupted goes on where it stopped.

    Parameters
    ----------
    source
        File, folder or zoo to read.
    target
        Zoo, file or folder to write.
    from_
        Format of the source (--from); recognised where it is unmistakable.
    to
        Format of the target, where it is no zoo.
    network
        Network of the members, as JSON or @FILE, as zoo.networks.build takes it, or a list of
        them; needed where the source does not know it.
    factory
        PACKAGE.MODULE:FACTORY instead of network: returns the module and its example inputs.
    input_shape
        Shape of the example input, where the factory returns the module alone.
    name
        Name of the population; that of the source by default.
    problem
        What the networks were trained for, as JSON or @FILE.
    ragged
        Make one population of all architectures, instead of one each.
    options
        Options of the format's reader or writer, as JSON or @FILE.
    """
    if to is not None or target.suffix in _HDF5:
        return _export(source, target, to, _json(options, "options", dict))
    if (restore := _restorer(source, from_)) is not None:
        print(f"wrote {target}, dataset version {restore(source, target).version}")
        return 0
    from zoo.convert.formats import open_source
    from zoo.convert.sink import write
    from zoo.convert.source import Source

    reader: Source = open_source(source, from_, **_json(options, "options", dict))
    networks = _json(network, "network", dict, list)
    with _bar() as progress:
        report = write(
            reader,
            target,
            name=name or _name(source),
            networks=networks if isinstance(networks, list) else [networks] if networks else [],
            blueprints=_blueprints(factory, input_shape),
            problem=_json(problem, "problem", dict) or None,
            ragged=ragged,
            progress=progress,
        )
    print(describe(report, target))
    return 0 if report.populations else 1


def describe(report: ConversionReport, target: Path) -> str:
    """Describe a conversion for people: what was written, and what was not."""
    lines = [_line(population) for population in report.populations]
    if report.populations:
        lines.append(f"wrote {target}, dataset version {report.version}")
    else:
        lines.append("nothing could be converted")
    if report.skipped:
        lines.append(f"skipped {len(report.skipped)}:")
        lines += [f"  {each.name}: {each.reason}" for each in report.skipped]
    return "\n".join(lines)


def _line(population: Converted) -> str:
    members = f"{population.num_members} member{'s' * (population.num_members > 1)}"
    checkpoints = f"{len(population.epochs)} checkpoint{'s' * (len(population.epochs) > 1)}"
    said = [f"{population.name}: {members}", checkpoints]
    names = [network["name"] for network in population.networks]
    if len(names) > 1:
        said.append(f"{len(names)} architectures")
    if not population.is_known:
        which = f"{names.count(UNKNOWN['name'])} of them" if len(names) > 1 else "architecture"
        why = f" ({population.reason})" if population.reason else ""
        said.append(f"{which} unknown: names and shapes only, no symmetry{why}")
    else:
        said.append(f"network {' or '.join(sorted(set(names)))}")
    if population.num_translated:
        said.append(f"{population.num_translated} with other names, told by order and shapes")
    if population.num_diverged:
        said.append(f"{population.num_diverged} diverged")
    return ", ".join(said)


def _export(source: Path, target: Path, to: str | None, options: dict[str, Any]) -> int:
    from zoo.convert.formats import writer_of
    from zoo.convert.hdf5 import to_hdf5
    from zoo.store import open as open_zoo

    if source.suffix in _HDF5:
        raise ZooError(
            f"Expected one of source and target to end in .h5 or .hdf5, got {source} and {target}."
        )
    zoo = open_zoo(source)
    if to is None or to == "hdf5":
        to_hdf5(zoo, target)
    else:
        writer = writer_of(to)
        known = signature(writer).parameters
        if unknown := [name for name in options if name not in known]:
            raise unknown_name(f"option of format {to!r}", unknown[0], list(known)[2:])
        with _bar(unit="") as progress:
            writer(zoo, target, progress=partial(progress, "writing"), **options)
    print(f"wrote {target}, dataset version {zoo.version}")
    return 0


def _restorer(source: Path, from_: str | None) -> "Callable[[Path, Path], Zoo] | None":
    """Return what makes a zoo again of files that we wrote; ``None`` for other people's."""
    from zoo.convert import hdf5, safetensors

    if from_ == "hdf5" or (from_ is None and source.suffix in _HDF5 and hdf5.is_ours(source)):
        return hdf5.from_hdf5
    if from_ in (None, "safetensors") and safetensors.is_ours(source):
        return safetensors.from_safetensors
    return None


def _blueprints(factory: str | None, input_shape: list[int] | None) -> Sequence[Any]:
    if factory is None:
        return []
    from zoo.commands import make_module
    from zoo.convert.blueprint import of_factory

    return [of_factory(factory, *make_module(factory, input_shape))]


def _json(text: str | None, what: str, *kinds: type) -> Any:
    """Read an option given as JSON or ``@FILE``; an empty dict where it is not given."""
    if text is None:
        return {}
    try:
        value = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise InvalidConfigError(
            f"Expected --{what} as JSON or @FILE, got {text!r}: {error}."
        ) from error
    if not isinstance(value, kinds):
        raise InvalidConfigError(
            f"Expected --{what} as a JSON {' or '.join(each.__name__ for each in kinds)}, "
            f"got {text!r}."
        )
    return value


def _name(source: Path) -> str:
    from zoo.convert.columns import stored_name

    return stored_name(source.resolve().stem if source.is_file() else source.resolve().name)


@contextmanager
def _bar(unit: str = "network") -> Iterator[Progress]:
    """Show one progress bar per stage."""
    from tqdm import tqdm

    with tqdm(unit=unit, smoothing=0.1) as bar:

        def progress(stage: str, done: int, total: int) -> None:
            if bar.desc.rstrip(": ") != stage:
                bar.reset(total=total or None)
                bar.set_description_str(stage)
            bar.update(done - bar.n)

        yield progress
