"""Write the golden archives of the current format version: tiny zoos that must stay readable.

Made once for each released version of the format and never again; ``tests/zoo/test_golden.py``
opens every one of them for ever.
"""

import tempfile
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from jsonargparse import auto_cli

from zoo.layout import TIERS
from zoo.schema import FORMAT_VERSION
from zoo.store import Zoo, create
from zoo.store import open as open_zoo
from zoo.store.upkeep.repack import repack
from zoo.testing import ragged_population, tiny_population


def main(*, out: Path = Path("tests/zoo/golden")) -> None:
    """Write one archive per tier, with a regular and a ragged population in each.

    Parameters
    ----------
    out
        Folder for the archives; one that exists is not touched.
    """
    with tempfile.TemporaryDirectory() as scratch:
        hot = Path(scratch) / "hot.zarr"
        _make(hot)
        for tier in TIERS:
            zoo = hot if tier == "hot" else Path(scratch) / f"{tier}.zarr"
            if tier != "hot":
                repack(hot, zoo, tier=tier)
            _pack(zoo, out / f"v{FORMAT_VERSION}-{tier}.zip")


def _make(path: Path) -> Zoo:
    """Make forty perceptrons, one of them diverged, and twenty of several shapes."""
    tiny_population(path, seed=7, diverged=[21])
    ragged_population(path, of_member=[member % 3 for member in range(20)], seed=7)
    zoo = create(path, exist_ok=True)
    zoo.writer("tiny").create_split(
        "unseen-rates", seed=1, fractions=(0.8, 0.2, 0.0), test="learning_rate > 0.01"
    )
    return zoo


def _pack(zoo: Path, archive: Path) -> None:
    if archive.exists():
        print(f"{archive} exists already; a golden archive is never written again.")
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(archive, "w", ZIP_DEFLATED) as packed:
        for path in sorted(path for path in zoo.rglob("*") if path.is_file()):
            packed.writestr(
                ZipInfo(path.relative_to(zoo).as_posix()), path.read_bytes(), ZIP_DEFLATED
            )
    size = archive.stat().st_size
    print(f"{archive}: {size} bytes, dataset version {open_zoo(zoo).version}")


if __name__ == "__main__":
    auto_cli(main)
