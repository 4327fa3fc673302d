"""The Hub layout: files as they are, a data card that says what is in them."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from zoo.convert import hub
from zoo.errors import InvalidConfigError, MissingDataError, StoreError
from zoo.store import create
from zoo.store.upkeep.check import check
from zoo.store.upkeep.repack import repack
from zoo.testing import tiny_population


@pytest.fixture
def zoo(tmp_path):
    return tiny_population(tmp_path / "tiny.zarr", num_members=20, diverged=(3,))


def test_layout_opens_again_with_the_same_version_and_numbers(zoo, tmp_path):
    (zoo.path / "populations/tiny/weights/c/0/0/.0.17.tmp").write_bytes(b"left by a killed writer")
    folder = hub.export(zoo, tmp_path / "published")
    opened = hub.open(folder)
    assert opened.version == zoo.version
    np.testing.assert_array_equal(opened["tiny"].weights(), zoo["tiny"].weights())
    assert check(folder / hub.STORE).ok
    assert not list(folder.rglob("*.tmp"))


def test_card_states_licence_columns_making_and_limits(zoo, tmp_path):
    folder = hub.export(
        zoo, tmp_path / "published", licence="cc-by-4.0", name="Tiny: a zoo", tags=("mlp",)
    )
    text = (folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["license"] == "cc-by-4.0"
    assert values["pretty_name"] == "Tiny: a zoo"
    assert values["size_categories"] == ["n<1K"]
    assert {"model-zoo", "zarr", "mlp"} <= set(values["tags"])
    shown = values["configs"][0]["data_files"]
    assert (folder / shown).is_file()
    assert f"| tiny | 20 | 3 | 47 | mlp | `{zoo['tiny'].version}` |" in body
    for column in zoo["tiny"].columns:
        assert f"| `{column.name}`" in body
    assert "relu, tanh, gelu" in body
    assert "1 members that diverged" in body
    assert '"seed": 0' in body  # the recipe


def test_git_keeps_chunks_out_of_its_history(zoo, tmp_path):
    folder = hub.export(zoo, tmp_path / "published")
    rules = (folder / ".gitattributes").read_text().splitlines()
    assert "zoo.zarr/**/c/** filter=lfs diff=lfs merge=lfs -text" in rules
    assert "*.parquet filter=lfs diff=lfs merge=lfs -text" in rules


def test_second_export_copies_only_what_is_missing(zoo, tmp_path):
    folder = hub.export(zoo, tmp_path / "published")
    lost, kept = (folder / f"zoo.zarr/populations/tiny/weights/c/{i}/0/0" for i in (0, 1))
    before = kept.stat().st_mtime_ns
    lost.unlink()
    calls = []
    hub.export(zoo, folder, progress=lambda done, total: calls.append((done, total)))
    assert lost.is_file()
    assert kept.stat().st_mtime_ns == before
    assert calls[-1][0] == calls[-1][1] > 20 * 3 * 47 * 4


def test_another_zoo_is_never_mixed_in(zoo, tmp_path):
    folder = hub.export(zoo, tmp_path / "published")
    other = tiny_population(tmp_path / "other.zarr", num_members=33)
    with pytest.raises(StoreError, match="another population 'tiny'"):
        hub.export(other, folder)
    with pytest.raises(StoreError, match="got an empty zoo"):
        hub.export(create(tmp_path / "empty.zarr"), tmp_path / "nothing")


def test_pointers_and_absent_zoos_are_told_apart(zoo, tmp_path):
    with pytest.raises(MissingDataError, match="snapshot_download"):
        hub.open(tmp_path)
    folder = hub.export(zoo, tmp_path / "published")
    (folder / "zoo.zarr/populations/tiny/weights/c/0/0/0").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3012\n"
    )
    with pytest.raises(MissingDataError, match="git lfs pull"):
        hub.open(folder)


@pytest.mark.parametrize("repo_id", ["name", "/name", "owner/", "a/b/c"])
def test_upload_refuses_names_the_hub_would(zoo, tmp_path, repo_id):
    folder = hub.export(zoo, tmp_path / "published")
    with pytest.raises(InvalidConfigError, match="owner/name"):
        hub.upload(folder, repo_id)


def test_archives_stay_archives(zoo, tmp_path):
    archive = repack(zoo.path, tmp_path / "archive.zarr", tier="archive")
    folder = hub.export(archive, tmp_path / "published")
    opened = hub.open(folder)
    assert opened.version == archive.version
    assert opened["tiny"].spec.storage == archive["tiny"].spec.storage
    np.testing.assert_array_equal(opened["tiny"].weights(), zoo["tiny"].weights())
    compact = repack(
        tiny_population(tmp_path / "b.zarr", num_members=16).path,
        tmp_path / "compact.zarr",
        tier="compact",
    )
    card = (hub.export(compact, tmp_path / "rounded") / "README.md").read_text()
    assert "weights were rounded to float16" in card


def test_upload_needs_an_exported_folder(tmp_path):
    with pytest.raises(MissingDataError):
        hub.upload(tmp_path, "owner/name")
    assert not Path(tmp_path, "README.md").exists()
