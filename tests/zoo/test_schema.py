import json

import numpy as np
import pytest

from zoo.errors import InvalidConfigError, WeightSpaceMismatchError
from zoo.layout import TIERS, Architecture, Ragged, Source, Storage, balanced_order
from zoo.schema import ARCHITECTURE_COLUMN, CHECKSUM, PopulationSpec, checksum
from zoo.space import TensorSpec, WeightSpace
from zoo.testing import RAGGED_HIDDEN, TINY_COLUMNS, ragged_spaces, ragged_spec, tiny_spec

SIZES = (47, 51, 51)


# ---- tiers --------------------------------------------------------------------------------------
def test_tiers():
    assert TIERS["hot"] == Storage(dtype="float32", compressor=None)
    assert TIERS["compact"] == Storage(dtype="float16", compressor=None)
    assert TIERS["archive"] == Storage(dtype="float32", compressor="blosc-lz4-bitshuffle")
    assert [storage.tier for storage in TIERS.values()] == ["hot", "compact", "archive"]
    assert [storage.itemsize for storage in TIERS.values()] == [4, 2, 4]
    both = Storage(dtype="float16", compressor="blosc-lz4-bitshuffle")
    assert both.tier == "float16, blosc-lz4-bitshuffle"


def test_only_what_differs_from_the_hot_tier_is_written():
    assert not {"storage", "sources"} & set(tiny_spec().to_attributes())
    spec = tiny_spec(
        storage=TIERS["archive"], sources=(Source(version="0123456789abcdef", dtype="float16"),)
    )
    attributes = spec.to_attributes()
    assert attributes["storage"] == {"dtype": "float32", "compressor": "blosc-lz4-bitshuffle"}
    assert attributes["sources"] == [{"version": "0123456789abcdef", "dtype": "float16"}]
    assert PopulationSpec.from_attributes("tiny", json.loads(json.dumps(attributes))) == spec


def test_blocks_of_half_precision_hold_twice_the_members():
    tensor = TensorSpec(
        name="weight", shape=(5018,), kind="parameter", role="other", layer="", axes=()
    )
    fields = {"space": WeightSpace(tensors=(tensor,), groups=()), "num_members": 10**5}
    assert tiny_spec(**fields, block_size=0).block_size == 256
    assert tiny_spec(**fields, block_size=0, storage=TIERS["compact"]).block_size == 512
    assert tiny_spec(**fields, block_size=0, storage=TIERS["archive"]).block_size == 256


def test_attributes_it_does_not_know_are_ignored():
    spec = tiny_spec()
    body = {k: v for k, v in spec.to_attributes().items() if k != CHECKSUM} | {"later": [1]}
    attributes = body | {CHECKSUM: checksum(body)}
    assert PopulationSpec.from_attributes("tiny", attributes) == spec


# ---- ragged rows --------------------------------------------------------------------------------
def architectures(*sizes):
    return [
        Architecture(network={"width": size}, space=f"{size:012x}", num_parameters=size)
        for size in sizes
    ]


def test_a_row_is_as_long_as_the_largest_block():
    plan = Ragged.plan(architectures(2, 3, 50), [0, 1, 1, 2, 0, 0, 1, 0, 2, 2], block_size=4)
    assert (plan.block_size, plan.row_length) == (4, 100)  # 2+3+3+50, 2+2+3+2, 50+50
    assert plan.sizes.tolist() == [2, 3, 50]
    assert Ragged.plan(architectures(2, 3), [1, 1, 0], block_size=2).row_length == 6
    assert Ragged.plan(architectures(2, 3), [1], block_size=16).row_length == 3


def test_the_mean_network_decides_the_block_size():
    few = Ragged.plan(architectures(2 * 10**5, 100), [0] + [1] * 1999)
    assert few.block_size == 128  # 4 MiB / (4 * 199.9) is far more; 2000 / 8 = 250
    large = Ragged.plan(architectures(10**5), [0] * 2000)
    assert large.block_size == 16


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
def test_a_balanced_order_leaves_little_room(count):
    rng = np.random.default_rng(count)
    sizes = np.exp(rng.uniform(np.log(6e3), np.log(8e4), count)).astype(int)
    order = balanced_order(sizes, 64)
    assert sorted(order.tolist()) == list(range(count))
    plan = Ragged.plan(architectures(*sizes.tolist()), order, block_size=64)
    full = count // 64 * 64
    if full:
        assert plan.row_length * full / 64 <= 1.03 * sizes[order[:full]].sum()


def test_an_order_of_nothing():
    assert balanced_order([], 4).tolist() == []


@pytest.mark.parametrize("of_member", [[], [0, 2], [-1]])
def test_a_member_names_an_architecture(of_member):
    with pytest.raises(InvalidConfigError, match="one of 2 architectures by position"):
        Ragged.plan(architectures(2, 3), of_member, block_size=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ()}, "got 0 architectures"),
        ({"row_length": 0}, "blocks of 2 and rows of 0"),
        ({"block_size": 0}, "blocks of 0"),
    ],
)
def test_rows_hold_something(changes, message):
    fields = {"architectures": tuple(architectures(2, 5)), "block_size": 2, "row_length": 10}
    with pytest.raises(InvalidConfigError, match=message):
        Ragged(**fields | changes)


def test_networks_of_architectures_are_json():
    tuples = Architecture(network={"hidden": (3, 5)}, space="0" * 12, num_parameters=2)
    with pytest.raises(InvalidConfigError, match="network to be plain JSON"):
        Ragged(architectures=(tuples,), block_size=2, row_length=10)


def test_ragged_specs_round_trip_without_their_spaces():
    spec = ragged_spec()
    attributes = spec.to_attributes()
    assert "space" not in attributes
    assert attributes["row_length"] == spec.row_length == max(5 * 47 + 11 * 51, 6 * 47 + 10 * 51)
    assert attributes["architectures"] == [
        {"network": {"hidden": list(hidden)}, "space": space.fingerprint, "num_parameters": size}
        for hidden, space, size in zip(RAGGED_HIDDEN, ragged_spaces(), SIZES, strict=True)
    ]
    assert PopulationSpec.from_attributes("ragged", json.loads(json.dumps(attributes))) == spec
    assert len(json.dumps(attributes["architectures"])) < 500


def test_ragged_identity_is_the_order_of_spaces():
    one = ragged_spec().space
    swapped = Ragged.plan(one.architectures[::-1], np.arange(40) % 3, block_size=16)
    assert len({one.fingerprint, swapped.fingerprint, ragged_spaces()[0].fingerprint}) == 3
    more = Ragged.plan(one.architectures, [0, 1], block_size=16)
    assert more.fingerprint == one.fingerprint


def test_altered_architectures_are_refused():
    body = {k: v for k, v in ragged_spec().to_attributes().items() if k != CHECKSUM}
    body["architectures"][0]["space"] = "0" * 12
    with pytest.raises(InvalidConfigError, match="its description was altered"):
        PopulationSpec.from_attributes("ragged", body | {CHECKSUM: checksum(body)})


def test_ragged_specs_are_checked():
    with pytest.raises(InvalidConfigError, match="Expected columns architecture"):
        ragged_spec(columns=TINY_COLUMNS)
    with pytest.raises(InvalidConfigError, match="blocks of 16 members.*got 8"):
        tiny_spec(space=ragged_spec().space, block_size=8, columns=ragged_spec().columns)
    assert ragged_spec().columns[-1] == ARCHITECTURE_COLUMN


def test_one_space_for_all_is_refused_with_a_way_out():
    assert tiny_spec().weight_space == ragged_spaces()[0]
    with pytest.raises(WeightSpaceMismatchError, match=r"3 architectures.*by_architecture\(\)"):
        _ = ragged_spec().weight_space
