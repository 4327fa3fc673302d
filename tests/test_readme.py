"""README's Python blocks run, on a small population."""

import re
from pathlib import Path

import pytest

from zoo.cli import VERBS, main

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_every_command_named_exists():
    assert set(re.findall(r"^zoo (\w+)", README, re.MULTILINE)) <= set(VERBS)


def test_own_module():
    exec(compile(BLOCKS[1], "README", "exec"), {})


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*logging interval")
@pytest.mark.filterwarnings("ignore:.*tensorboardX")
@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_population(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = ["generate", "digits-mlp", "--members", "96", "--epochs", "6", "--workers", "1"]
    assert main([*made, "--out", "digits.zarr"]) == 0
    block = BLOCKS[0].replace("max_epochs=50", "max_epochs=1, enable_progress_bar=False")
    names = {}
    exec(compile(block, "README", "exec"), names)
    assert names["weights"].shape == (names["population"].num_members, 3466)
