"""`check` names everything that is wrong, `repair` mends it, and nothing intact is touched."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zarr

import zoo
from zoo.cli import main
from zoo.errors import StoreError, UnknownNameError
from zoo.store.disk.claims import block_claim
from zoo.store.disk.ledger import LedgerEntry
from zoo.store.disk.place import LocalPlace
from zoo.store.upkeep.check import check
from zoo.store.upkeep.repair import repair
from zoo.store.upkeep.report import cells_text
from zoo.testing import tiny_block, tiny_population, tiny_spec, write_tiny_block

POPULATION = "populations/tiny"
WEIGHTS = f"{POPULATION}/weights/c"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "zoo.zarr"
    tiny_population(path, diverged=(7,))
    return path


@pytest.fixture
def path(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "zoo.zarr")


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 0b100
    file.write_bytes(data)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def make_again(path: Path) -> None:
    """Resume, as a run does."""
    writer = zoo.create(path, exist_ok=True).writer("tiny")
    for block in sorted(set(range(writer.num_blocks)) - writer.committed):
        write_tiny_block(writer, block, diverged=(7,))
    writer.finish()


# ---- blocks -------------------------------------------------------------------------------------
def test_damaged_blocks_are_set_aside_and_made_again(path, pristine):
    flip(path / WEIGHTS / "1/2/0", 99)
    (path / f"{POPULATION}/metrics/test_loss/c/2/0").unlink()
    damaged = (path / WEIGHTS / "1/2/0").read_bytes()
    report = check(path)
    lost = {(m, 5) for m in range(16, 32)} | {(m, e) for m in range(32, 40) for e in (0, 2, 5)}
    assert set(report.populations[0].lost_cells) == lost
    assert cells_text(report.populations[0].lost_cells) == [
        "members 16 to 31 at epoch 5",
        "members 32 to 39 at epochs 0, 2, 5",
    ]

    first, second = repair(path).set_aside
    assert (first.population, first.block, second.block) == ("tiny", 1, 2)
    assert first.cells == tuple((m, e) for m in range(16, 32) for e in (0, 2, 5))
    assert "CRC32C" in first.reasons[0]
    assert second.reasons == ("metrics/test_loss/c/2/0: the file is missing",)
    # Nothing is destroyed: the files and the entry are kept apart.
    assert (first.folder / "weights/c/1/2/0").read_bytes() == damaged
    lines = (pristine / "_ledger/tiny.jsonl").read_text().splitlines()
    kept = LedgerEntry.from_json(first.folder.with_suffix(".json").read_text())
    assert kept == LedgerEntry.from_json(lines[2])
    assert len(list(first.folder.rglob("*/c/**/*"))) > 13

    population = zoo.open(path)["tiny"]
    assert population.member_ids.tolist() == list(range(16))
    wanted = tiny_block(tiny_spec(), range(40), diverged=(7,))["weights"]
    np.testing.assert_array_equal(population.weights(), wanted[:16, 2])
    make_again(path)
    assert check(path).ok
    assert zoo.open(path).version == zoo.open(pristine).version


def test_repair_touches_nothing_intact_and_is_idempotent(path):
    flip(path / WEIGHTS / "1/0/0", 3)
    intact = {k: v for k, v in files_of(path).items() if "/c/0" in k or "/c/2" in k}
    modified = {p: p.stat().st_mtime_ns for p in (path / WEIGHTS / "0").rglob("*")}
    report = repair(path)
    assert [block.block for block in report.set_aside] == [1]
    after = files_of(path)
    assert {k: after[k] for k in intact} == intact
    assert {p: p.stat().st_mtime_ns for p in (path / WEIGHTS / "0").rglob("*")} == modified
    assert check(path).ok
    again = repair(path)
    assert (again.set_aside, again.removed, again.mended, again.left) == ((), (), (), ())
    assert files_of(path) == after


def test_repair_of_a_sound_zoo_changes_nothing(path):
    before = files_of(path)
    report = repair(path)
    assert (report.set_aside, report.removed, report.mended, report.left) == ((), (), (), ())
    assert files_of(path) == before


def test_damaged_lines_and_heads_of_the_ledger(path, pristine):
    gathered = path / "_ledger/tiny.jsonl"
    intact = gathered.read_bytes()
    flip(gathered, 2)  # in the first line: no block is lost
    report = repair(path)
    assert report.set_aside == ()
    assert any("the ledger; its old files" in mended for mended in report.mended)
    assert gathered.read_bytes() == intact

    flip(gathered, intact.index(b'"members":[16,32]') + 12)
    (moved,) = repair(path).set_aside
    assert (moved.block, moved.members) == (1, tuple(range(16, 32)))
    assert (moved.folder / "weights/c/1/0/0").is_file()
    assert not (path / WEIGHTS / "1/0/0").exists()
    assert check(path).ok
    make_again(path)
    assert gathered.read_bytes() == intact
    assert zoo.open(path).version == zoo.open(pristine).version


def test_of_two_entries_the_sound_one_is_kept(path):
    """A block in both ledgers, the single file damaged: the block is intact and stays."""
    entry = LedgerEntry.from_json((path / "_ledger/tiny.jsonl").read_text().splitlines()[2])
    single = path / "_ledger/tiny/000001.json"
    single.parent.mkdir(exist_ok=True)
    single.write_text(entry.to_json())
    flip(single, 200)
    assert not check(path).ok
    report = repair(path)
    assert report.set_aside == ()
    assert not single.exists()
    assert check(path).ok
    assert zoo.open(path)["tiny"].is_complete


def test_leftovers_are_removed(path):
    writer = zoo.create(path, exist_ok=True).create_population(tiny_spec(name="begun"))
    orphan = writer.path / "weights/c/1/0/0"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"half a chunk")
    left = [
        orphan,
        writer.path / "weights/c/1/0/.1.99.tmp",
        path / "_ledger/begun/.000001.json.99.tmp",
        path / "_ledger/begun/.000001.claim.tmp",
        path / "populations/.more.99.tmp",
        path / ".table.parquet.99.tmp",
    ]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    before = check(path)
    assert before.ok
    report = repair(path)
    assert {p.name for p in report.removed} == {p.name for p in left if "claim" not in p.name}
    assert not any(file.exists() for file in left)
    after = check(path)
    assert (after.ok, after.orphans) == (True, ())
    assert all(population.orphans == () for population in after.populations)


def test_repair_keeps_off_while_somebody_writes(path, monkeypatch):
    monkeypatch.setattr("zoo.store.disk.claims.COORDINATOR_SECONDS", 0.0)
    with block_claim(path, "tiny", 1), pytest.raises(StoreError, match="process .* is at work"):
        repair(path)


# ---- metadata -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (f"{POPULATION}/weights/zarr.json", '"float32"', '"float64"'),
        (f"{POPULATION}/weights/zarr.json", "47", "46"),
        (f"{POPULATION}/weights/zarr.json", '"checkpoint"', '"cheekpoint"'),
        (f"{POPULATION}/columns/seed/zarr.json", '"zarr_format": 3', '"zarr_format": 2'),
        (f"{POPULATION}/metrics/zarr.json", "{", "["),
        (f"{POPULATION}/splits/default/zarr.json", '"seed": 0', '"seed": 1'),
        (f"{POPULATION}/zarr.json", '"num_members": 40', '"num_members": 41'),
        (f"{POPULATION}/zarr.json", '"bias"', '"blas"'),
        ("zarr.json", '"dropout": 0.0', '"dropout": 0.5'),
    ],
)
def test_altered_metadata_is_found_and_put_back(path, file, old, new):
    before = files_of(path)
    text = (path / file).read_text()
    assert old in text
    (path / file).write_text(text.replace(old, new, 1))
    assert not check(path).ok
    report = repair(path)
    assert report.mended
    assert (report.set_aside, report.left) == ((), ())
    assert check(path).ok
    assert files_of(path) == before


def test_metadata_that_is_gone_is_put_back(path, pristine):
    for file in ("zarr.json", "weights/zarr.json", "splits/zarr.json", "member/zarr.json"):
        (path / POPULATION / file).unlink()
        assert not check(path).ok
        repair(path)
    assert check(path).ok
    before, after = files_of(pristine), files_of(path)
    assert after == before


def test_what_others_add_is_left_alone(path):
    """Nodes that the format does not name are nobody's damage, and are not put back to anything."""
    group = zarr.open_group(path / POPULATION, mode="r+", use_consolidated=False)
    notes = group.create_array("notes", shape=(3,), dtype="int32")
    zoo.create(path, exist_ok=True).writer("tiny").finish()
    notes.attrs["author"] = "somebody"
    before = files_of(path)
    assert check(path).ok
    assert repair(path).mended == (
        "tiny/zarr.json: the copy of what is below",
        "zarr.json: the copy of what is below",
    )
    after = files_of(path)
    assert after[f"{POPULATION}/notes/zarr.json"] == before[f"{POPULATION}/notes/zarr.json"]


def test_a_root_that_is_no_json_is_written_again(path):
    before = files_of(path)
    flip(path / "zarr.json", 0)
    with pytest.raises(StoreError, match="Expected a zoo"):
        check(path)
    assert repair(path).mended == ("zarr.json: the root",)
    assert files_of(path) == before


def test_a_root_of_a_newer_format_is_left_alone(path):
    file = path / "zarr.json"
    file.write_text(file.read_text().replace('"format_version": "1"', '"format_version": "9"'))
    with pytest.raises(StoreError, match="version 9. Update the package"):
        repair(path)
    with pytest.raises(StoreError, match="Expected a zoo"):
        repair(path / "populations")


def test_the_axis_is_written_again(path):
    file = path / f"{POPULATION}/checkpoint/c/0"
    intact = file.read_bytes()
    flip(file, 8)
    assert "checkpoint axis" in check(path).populations[0].faults[0]
    assert repair(path).mended == ("tiny/checkpoint: the axis",)
    assert file.read_bytes() == intact


def test_a_stale_table_is_written_again(path):
    table = pl.read_parquet(path / "table.parquet")
    table.with_columns(pl.lit(1).alias("seed")).write_parquet(path / "table.parquet")
    report = check(path)
    assert report.is_table_stale
    assert report.ok  # derived: no number of the zoo is in doubt
    assert repair(path).mended == ("table.parquet",)
    assert pl.read_parquet(path / "table.parquet").equals(table)
    (path / "table.parquet").write_bytes(b"PAR1 no more")
    assert check(path).is_table_stale


def test_a_damaged_split_is_reported_and_never_made_again(path):
    file = path / f"{POPULATION}/splits/default/c/0"
    flip(file, 3)
    damaged = file.read_bytes()
    report = repair(path)
    assert "split 'default' of 'tiny': its bytes have CRC32C" in report.left[0]
    assert file.read_bytes() == damaged
    assert not check(path).ok


def test_attributes_without_a_copy_are_reported(path):
    for file in ("zarr.json", f"{POPULATION}/zarr.json"):
        text = (path / file).read_text()
        (path / file).write_text(text.replace('"num_members": 40', '"num_members": 41', 1))
    (name, reason), *_ = check(path).unreadable
    assert (name, "altered" in reason) == ("tiny", True)
    assert "'tiny' cannot be read" in repair(path).left[0]


# ---- the command --------------------------------------------------------------------------------
def test_the_command_lists_and_repairs(path, capsys):
    assert main(["check", str(path)]) == 0
    assert "everything stored is intact" in capsys.readouterr().out
    flip(path / WEIGHTS / "1/2/0", 99)
    assert main(["check", str(path)]) == 1
    out = capsys.readouterr().out
    assert "lost: members 16 to 31 at epoch 5" in out
    assert main(["check", str(path), "--repair"]) == 0
    out = capsys.readouterr().out
    assert "to be made again: members 16 to 31 at epochs 0, 2, 5" in out
    assert main(["check", str(path)]) == 0
    assert "16 members not trained yet, between 16 and 31" in capsys.readouterr().out


# ---- the gathered ledger ------------------------------------------------------------------------
@pytest.mark.parametrize("steps", range(5))
def test_gathering_killed_at_any_step_loses_nothing(tmp_path, pristine, steps, monkeypatch):
    """One rename, then three files removed: killed before each of them, and after all."""
    path = tmp_path / "z.zarr"
    writer = zoo.create(path).create_population(tiny_spec())
    for block in range(3):
        write_tiny_block(writer, block, diverged=(7,))
    count = 0

    def dying(function):
        def step(self, *arguments, **options):
            nonlocal count
            if "claim" not in self.name and (count := count + 1) > steps:
                raise KeyboardInterrupt
            return function(self, *arguments, **options)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying(Path.replace))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        if steps < 4:
            with pytest.raises(KeyboardInterrupt):
                writer.compact()
        else:
            writer.compact()
    assert zoo.open(path)["tiny"].is_complete
    assert zoo.open(path).version == zoo.open(pristine).version
    assert check(path).ok
    with pytest.raises(StoreError, match="already committed"):
        write_tiny_block(writer, 1, seed=1)
    writer.finish()
    assert check(path).populations[0].orphans == ()
    assert not (path / "_ledger/tiny").exists()
    assert (path / "_ledger/tiny.jsonl").read_bytes() == (
        pristine / "_ledger/tiny.jsonl"
    ).read_bytes()


def test_a_gathered_ledger_is_one_read(path, monkeypatch):
    asked = []
    read = LocalPlace.read

    def counting(self, key):
        asked.append(f"{self.path.name}/{key}")
        return read(self, key)

    monkeypatch.setattr(LocalPlace, "read", counting)
    assert len(zoo.open(path)["tiny"].version) == 16
    assert asked == ["_ledger/tiny.jsonl"]


def test_blocks_past_the_plan_are_not_read(path, tmp_path):
    """The ledger of a later state, as between two files of a publication."""
    later = tmp_path / "later.zarr"
    tiny_population(later, num_members=64, diverged=(7,))
    shutil.copy(later / "_ledger/tiny.jsonl", path / "_ledger/tiny.jsonl")
    population = zoo.open(path)["tiny"]
    assert population.spec.num_members == 40
    assert population.weights([3]).shape == (1, 47)
    assert "the ledger lists block 3, past the members planned" in check(path).populations[0].faults


# ---- growth -------------------------------------------------------------------------------------
def test_growth_keeps_what_is_stored(tmp_path):
    path = tmp_path / "z.zarr"
    tiny_population(path, num_members=32)
    before = zoo.open(path)["tiny"].split()
    writer = zoo.create(path, exist_ok=True).writer("tiny")
    writer.grow(40)
    assert (writer.num_blocks, writer.members_of(2)) == (3, range(32, 40))
    assert check(path).ok
    write_tiny_block(writer, 2)
    writer.finish()
    grown = zoo.open(path)["tiny"]
    wanted = tiny_block(tiny_spec(), range(40))["weights"]
    np.testing.assert_array_equal(grown.weights(), wanted[:, 2])
    for part, members in grown.split().items():  # the new members are in no part
        assert members.tolist() == before[part].tolist()
    assert check(path).ok
    whole = tiny_population(tmp_path / "whole.zarr")
    assert grown.version == whole["tiny"].version  # equal data, equal version
    group = json.loads((path / POPULATION / "zarr.json").read_text())
    assert group["consolidated_metadata"]["metadata"]["weights"]["shape"] == [40, 3, 47]


def test_growth_is_refused_where_it_would_change_a_committed_block(tmp_path):
    writer = tiny_population(tmp_path / "z.zarr").writer("tiny")
    before = files_of(tmp_path)
    with pytest.raises(StoreError, match=r"\(32 to 39\) is short and committed.*'tiny-2'"):
        writer.grow(64)
    with pytest.raises(StoreError, match="Expected more than the 40 members"):
        writer.grow(40)
    assert files_of(tmp_path) == before


def test_a_writer_of_the_old_plan_is_refused_only_where_it_matters(tmp_path):
    old = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec())
    zoo.create(tmp_path / "z.zarr", exist_ok=True).writer("tiny").grow(48)
    write_tiny_block(old, 1)  # the same members in both plans
    with pytest.raises(StoreError, match="block 2 .* 16 members, since it grew to 48, got 8"):
        write_tiny_block(old, 2)
    assert zoo.open(tmp_path / "z.zarr")["tiny"].member_ids.tolist() == list(range(16, 32))


@pytest.mark.parametrize("writes", [0, 3, 6, 12, 13, 14])
def test_growth_killed_at_any_write_leaves_the_old_plan_or_the_new(tmp_path, writes, monkeypatch):
    path = tmp_path / "z.zarr"
    writer = zoo.create(path).create_population(tiny_spec(num_members=32))
    write_tiny_block(writer, 0)
    count = 0
    replace = Path.replace

    def die(self, target):
        nonlocal count
        count += 1
        if count > writes:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            writer.grow(40)
    population = zoo.open(path)["tiny"]
    assert population.member_ids.tolist() == list(range(16))
    assert population.spec.num_members in (32, 40)
    assert population.table["seed"].to_list() == [1000 + i for i in range(16)]
    assert not check(path).damaged
    writer = zoo.create(path, exist_ok=True).writer("tiny")
    if writer.spec.num_members == 32:
        writer.grow(40)
    repair(path)
    for block in (1, 2):
        write_tiny_block(writer, block)
    writer.finish()
    assert check(path).ok
    assert zoo.open(path).version == tiny_population(tmp_path / "whole.zarr").version


def test_unknown_blocks_stay_unknown_after_growth(tmp_path):
    writer = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec(num_members=16))
    with pytest.raises(UnknownNameError, match="Known: 0 to 0"):
        writer.members_of(1)
    writer.grow(32)
    assert writer.members_of(1) == range(16, 32)
