"""What all tests share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Find a folder of real data below ``ZOO_DATA``; the test is skipped where it is not at hand.

    Data sets and other people's weights are not part of the project, and the core suite does
    without them. A ``ZOO_DATA`` that is set but names no folder is a mistake, and fails.
    """

    def find(name: str) -> Path:
        if "ZOO_DATA" not in os.environ:
            pytest.skip("ZOO_DATA is not set: real data are not at hand")
        root = Path(os.environ["ZOO_DATA"])
        assert root.is_dir(), f"ZOO_DATA names no folder: {root}"
        if not (root / name).is_dir():
            pytest.skip(f"{name} is not among the data in ZOO_DATA")
        return root / name

    return find
