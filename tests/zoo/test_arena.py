import gc
import os
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import StoreError
from zoo.store.reading.arena import Arena

SIZES = (12, 5000, 4096)  # below a page, above, and just one


def num_mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize("size", SIZES)
def test_files_stand_side_by_side(tmp_path, size):
    rng = np.random.default_rng(0)
    written = rng.integers(256, size=(3, size), dtype=np.uint8)
    arena = Arena(5, size)
    view = arena.view((2, 3), np.dtype("<u2"))
    for position, values in zip((4, 0, 2), written, strict=True):
        (tmp_path / str(position)).write_bytes(values.tobytes())
        arena.map(position, tmp_path / str(position))
    assert view.shape == (5, 2, 3)
    for position, values in zip((4, 0, 2), written, strict=True):
        np.testing.assert_array_equal(view[position], values[:12].view("<u2").reshape(2, 3))
    assert not view[[1, 3]].any()
    assert not view.flags.writeable
    got = view[[2, 4], [1, 0]]
    np.testing.assert_array_equal(got[0], written[2][6:12].view("<u2"))


def test_no_file_stays_open_and_all_is_released(tmp_path):
    (tmp_path / "a").write_bytes(b"abcd")
    gc.collect()
    handles, mappings = len(os.listdir("/proc/self/fd")), num_mappings()  # noqa: PTH208
    arena = Arena(64, 4)
    for position in range(0, 64, 2):
        arena.map(position, tmp_path / "a")
    assert len(os.listdir("/proc/self/fd")) == handles  # noqa: PTH208
    assert num_mappings() >= mappings + 32
    view = arena.view((4,), np.dtype("u1"))
    del arena
    assert bytes(view[62]) == b"abcd"  # arrays keep it
    del view
    gc.collect()
    assert num_mappings() <= mappings + 1


def test_a_file_of_another_size_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(StoreError, match="Expected 4 bytes in .*/a, got 3"):
        Arena(2, 4).map(0, tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        Arena(2, 4).map(0, tmp_path / "b")


def test_an_arena_of_nothing(tmp_path):
    assert Arena(0, 4).view((1,), np.dtype("<f4")).shape == (0, 1)
