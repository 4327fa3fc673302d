"""Foreign names to ours: equal names, order and shapes, and refusal where a choice is left."""

import pytest

from zoo.convert.matching import MatchingError, match

OURS = (
    ("layers.1.weight", (3, 4)),
    ("layers.1.bias", (3,)),
    ("layers.4.weight", (3, 3)),
    ("layers.4.bias", (3,)),
    ("head.weight", (3, 3)),
    ("head.bias", (3,)),
)


def named(*names):
    return tuple((name, shape) for name, (_, shape) in zip(names, OURS, strict=True))


def test_equal_names_match_in_any_order():
    found = match(tuple(reversed(OURS)), OURS)
    assert found.rule == "names"
    assert all(mine == other for mine, other in found.names)


def test_order_and_shapes_stand_for_names():
    theirs = named("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias")
    found = match(theirs, OURS)
    assert found.rule == "order and shapes"
    assert dict(found.names)["layers.4.bias"] == "2.bias"


def test_other_libraries_words_are_understood():
    theirs = named("a.kernel", "a.b", "b.kernel", "b.b", "c.kernel", "c.b")
    assert dict(match(theirs, OURS).names)["head.weight"] == "c.kernel"


def test_unknown_words_will_do_where_the_shape_is_unique():
    theirs = named("0.matrix", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias")
    assert dict(match(theirs, OURS).names)["layers.1.weight"] == "0.matrix"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("0.weight", "0.bias", "2.p", "2.bias", "4.q", "4.bias"), "do not say which is which"),
        (("0.weight", "2.bias", "2.weight", "0.bias", "4.weight", "4.bias"), "several"),
        (("0.weight", "0.bias", "4.weight", "4.bias", "2.weight", "2.bias"), "higher number"),
    ],
)
def test_what_leaves_a_choice_is_refused(names, reason):
    with pytest.raises(MatchingError, match=reason):
        match(named(*names), OURS)


def test_other_tensors_are_refused():
    with pytest.raises(MatchingError, match="expected 6 tensors, got 5"):
        match(OURS[:-1], OURS)
    swapped = (OURS[1], OURS[0], *OURS[2:])
    theirs = tuple((f"x.{name}", shape) for name, shape in swapped)
    with pytest.raises(MatchingError, match=r"shape \(3, 4\) for 'layers.1.weight'"):
        match(theirs, OURS)
