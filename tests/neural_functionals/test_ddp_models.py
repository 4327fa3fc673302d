"""Every model under distributed training: two real processes, joined by gloo, under Lightning."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ddp_models_run import trained

from zoo.testing import tiny_population

SCRIPT = Path(__file__).with_name("ddp_models_run.py")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Per rank, what it says of each model."""
    folder = tmp_path_factory.mktemp("ddp")
    tiny_population(folder / "zoo.zarr", network_columns=())
    environment = {k: v for k, v in os.environ.items() if k not in ("MASTER_PORT", "MASTER_ADDR")}
    finished = subprocess.run(
        [sys.executable, SCRIPT, folder / "zoo.zarr", folder],
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", trained())
def test_ranks_agree_after_an_epoch(name, reports):
    """All parameters get gradients on every rank: ddp does not look for unused ones."""
    first, second = (report[name] for report in reports)
    assert first["steps"] == second["steps"] > 1
    assert first["state"] == second["state"]
    assert first["finite"]
