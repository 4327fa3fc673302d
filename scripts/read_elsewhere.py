"""Read a zoo without this package, by every Zarr reader that is installed, and compare bit by bit.

Needs nothing but the readers themselves, so that it also runs where the package does not: write
digests with one Python, and check them with another version of a reader in another.

    python scripts/read_elsewhere.py zoo.zarr --save digests.json
    other/bin/python scripts/read_elsewhere.py zoo.zarr --compare digests.json
"""

import argparse
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Digests = dict[str, str]


def arrays(root: Path) -> Iterator[str]:
    """Yield the path of every array below a group, by the files that Zarr v3 prescribes."""
    for node in sorted(root.rglob("zarr.json")):
        if json.loads(node.read_text())["node_type"] == "array":
            yield node.parent.relative_to(root).as_posix()


def by_zarr(root: Path) -> Digests:
    """Read by zarr-python."""
    import zarr

    return {name: digest(zarr.open_array(root / name, mode="r")[...]) for name in arrays(root)}


def by_tensorstore(root: Path) -> Digests:
    """Read by TensorStore."""
    import tensorstore

    def read(name: str) -> np.ndarray:
        store = {"driver": "file", "path": str(root / name)}
        array = tensorstore.open({"driver": "zarr3", "kvstore": store}, open=True).result()
        return np.asarray(array.read().result())

    return {name: digest(read(name)) for name in arrays(root)}


def by_xarray(root: Path) -> Digests:
    """Read by xarray: every group as a data set, nothing decoded, nothing masked."""
    import xarray

    found = {}
    for group in sorted({str(Path(name).parent) for name in arrays(root)}):
        data = xarray.open_zarr(
            root,
            group=group,
            chunks=None,
            consolidated=False,
            decode_cf=False,
            mask_and_scale=False,
        )
        found |= {f"{group}/{name}": digest(data[name].values) for name in data.variables}
    return found


READERS: dict[str, Callable[[Path], Digests]] = {
    "zarr": by_zarr,
    "tensorstore": by_tensorstore,
    "xarray": by_xarray,
}


def digest(values: Any) -> str:
    """Return a hash of an array's type, shape and bits."""
    array = np.ascontiguousarray(values)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    what = f"{array.dtype.str} {array.shape}"
    return what + " " + hashlib.sha256(array.tobytes()).hexdigest()[:32]


def installed() -> dict[str, str]:
    """Return the versions of the readers at hand."""
    found = {}
    for name in READERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            print(f"{name}: not installed", file=sys.stderr)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Read, compare, and return the exit status: 1 where readers differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--save", type=Path, help="write what the first reader found")
    parser.add_argument("--compare", type=Path, help="compare with what another run saved")
    options = parser.parse_args(arguments)
    wanted: Digests = json.loads(options.compare.read_text()) if options.compare else {}
    status = 0
    for name, version in installed().items():
        found = READERS[name](options.zoo)
        wanted = wanted or found
        different = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
        print(f"{name} {version}: {len(found)} arrays, {len(different)} different")
        for key in different:
            print(f"  {key}: {found.get(key)}, expected {wanted.get(key)}")
            status = 1
    if options.save:
        options.save.write_text(json.dumps(wanted, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
