"""Imports point down: zoo knows nobody, data_gen and neural_functionals never meet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "zoo": {"data_gen", "neural_functionals"},
    "data_gen": {"neural_functionals"},
    "neural_functionals": {"data_gen"},
}


def imported_packages(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_only_what_lies_below_them(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    offenders = {
        str(path.relative_to(ROOT)): bad
        for path in files
        if (bad := FORBIDDEN[package] & set(imported_packages(path)))
    }
    assert offenders == {}


def test_help_answers_without_torch():
    code = (
        "import sys; from zoo.cli import main; main(['--help']); "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "generate" in result.stdout
