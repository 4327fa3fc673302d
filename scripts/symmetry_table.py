"""Write the registry's table into ``docs/symmetry.md``: every architecture, traced and proved.

The architectures are those of the test suite. Times are seconds of this process, export (torch's
part) and analysis (reading the groups off the graph) apart; verification is not in them.
"""

import copy
import gc
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from jsonargparse import auto_cli
from torch import nn
from tqdm import tqdm

from zoo.errors import ZooError
from zoo.networks import CNNConfig, build, example_input
from zoo.space import WeightSpace
from zoo.symmetry import export, interpret, random_weights, trace

ROOT = Path(__file__).parents[1]
HEADER = (
    "architecture", "parameters", "groups", "log10 of the order", "worst deviation",
    "operators without a rule", "export, s", "analysis, s",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What is reported of one architecture."""

    name: str
    space: WeightSpace
    deviation: float
    passed: bool
    export_seconds: float
    analysis_seconds: float

    def cells(self) -> tuple[str, ...]:
        """One line of the table."""
        operators = sorted({item.op for item in self.space.unsupported})
        return (
            self.name,
            f"{self.space.num_trainable:,}",
            f"{sum(group.copies for group in self.space.groups):,}",
            f"{self.space.log10_order:,.1f}",
            f"{self.deviation:.0e}" + ("" if self.passed else " FAILED"),
            ", ".join(f"`{name}`" for name in operators) or "none",
            f"{self.export_seconds:.2f}",
            f"{self.analysis_seconds:.3f}",
        )


def main(*, out: Path = ROOT / "docs/symmetry.md", only: list[str] | None = None) -> int:
    """Trace every architecture and write the table.

    Parameters
    ----------
    out
        Document whose marked part is replaced.
    only
        Names of architectures; then the table is printed and nothing is written.
    """
    warnings.simplefilter("ignore", FutureWarning)
    registry = architectures()
    measure("mlp-relu", registry["mlp-relu"])  # the first export loads half of torch
    names = only or list(registry)
    rows = [measure(name, registry[name]) for name in tqdm(names, disable=None)]
    text = "\n".join([*table(HEADER, [row.cells() for row in rows]), "", summary(rows)])
    if only:
        print(text)
    else:
        write_between(out, "registry", text)
        write_between(out, "speed", "\n".join(speed()))
    return 0 if all(row.passed for row in rows) else 1


def architectures() -> dict[str, Callable[[], tuple[nn.Module, tuple[object, ...]]]]:
    """Return the registry of the test suite."""
    sys.path.insert(0, str(ROOT / "tests/zoo"))
    from architectures import ARCHITECTURES

    return dict(ARCHITECTURES)


def measure(name: str, factory: Callable[[], tuple[nn.Module, tuple[object, ...]]]) -> Row:
    """Trace one architecture, timing the steps, and verify it."""
    torch.manual_seed(0)
    module, inputs = factory()
    module = copy.deepcopy(module).eval()
    gc.collect()
    start = time.process_time()
    program = export(module, inputs)
    exported = time.process_time()
    space = interpret(module, program)
    done = time.process_time()
    result = space.verify(module, *inputs)
    return Row(
        name=name,
        space=space,
        deviation=max(result.deviations.values(), default=0.0),
        passed=result.passed,
        export_seconds=exported - start,
        analysis_seconds=done - exported,
    )


def speed() -> list[str]:
    """Time large networks (analysed, not verified) and the relabelling of many small ones."""
    cells = []
    for name, make in {
        "perceptron": _large_mlp,
        "vision transformer": _large_vit,
        "GPT-2 small": _gpt2,
    }.items():
        module, inputs = make()
        start = time.process_time()
        program = export(module.eval(), inputs)
        exported = time.process_time()
        space = interpret(module, program)
        done = time.process_time()
        cells.append(
            (name, f"{space.num_trainable:,}", f"{exported - start:.1f}", f"{done - exported:.2f}")
        )
    config = CNNConfig(in_channels=1, image_size=28, channels=(16, 16, 16), out_features=10)
    space = trace(build(config), example_input(config))
    generator = torch.Generator().manual_seed(0)
    weights = random_weights(space, generator).float().repeat(1000, 1)
    start = time.process_time()
    moved = torch.stack([space.sample(generator)(row) for row in weights])
    sampled = time.process_time()
    canonical = space.canonical(moved)
    done = time.process_time()
    assert len(canonical.unique(dim=0)) == 1
    header = ("network", "parameters", "export, s", "analysis, s")
    return [
        *table(header, cells),
        "",
        f"1,000 small CNNs of {space.num_parameters:,} numbers, each relabelled at random by "
        f"itself: {sampled - start:.2f} s; all brought to one canonical point: "
        f"{done - sampled:.2f} s.",
    ]


def _large_mlp() -> tuple[nn.Module, tuple[object, ...]]:
    widths = (784, 2048, 2048, 2048, 10)
    layers = [nn.Linear(*pair) for pair in pairwise(widths)]
    return nn.Sequential(*(m for layer in layers for m in (layer, nn.ReLU()))), (
        torch.zeros(2, 784),
    )


def _large_vit() -> tuple[nn.Module, tuple[object, ...]]:
    from architectures.attention import Block, FusedAttention, VisionTransformer

    blocks = [Block(384, 1536, FusedAttention(384, 6, 64)) for _ in range(6)]
    return VisionTransformer(384, blocks, extra=1, patches=16), (torch.zeros(2, 3, 16, 16),)


def _gpt2() -> tuple[nn.Module, tuple[object, ...]]:
    from architectures.pretrained_style import reads

    module, inputs = reads("GPT2LMHeadModel", "GPT2Config", use_cache=False)
    return module, inputs


def summary(rows: list[Row]) -> str:
    """Sum the table up in a sentence."""
    proved = sum(row.passed for row in rows)
    groups = sum(group.copies for row in rows for group in row.space.groups)
    bare = sum(bool(row.space.unsupported) for row in rows)
    return (
        f"{proved} of {len(rows)} architectures pass verification; {groups:,} independent "
        f"symmetric groups in all; worst deviation {max(row.deviation for row in rows):.0e}; "
        f"{bare} with an operator that has no rule (pinned and reported)."
    )


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Format as Markdown, numbers to the right."""
    rule = ["---" if at == 0 else "---:" for at in range(len(header))]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def write_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between a document's two markers of a name."""
    start, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    before, found, rest = path.read_text().partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ZooError(f"Expected the markers {start!r} and {end!r} in {path}.")
    path.write_text(f"{before}{start}\n{text}\n{end}{after}")


if __name__ == "__main__":
    sys.exit(auto_cli(main))
