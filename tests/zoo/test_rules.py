"""Every rule: units found through its operator are proved, and a broken rule is found out.

Each operator's case runs once with the true rule (contract) and with three broken ones (mutation).
The broken rules never look at the labels of their inputs' axes, shift them by one position, or pin
them.
"""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from rule_cases import CASES, FILLED
from torch import Tensor
from torch.utils import _pytree as pytree

from zoo.symmetry import export, interpret
from zoo.symmetry.export import operator_name
from zoo.symmetry.labels import Labelled, along
from zoo.symmetry.rules import RULES

WITHOUT_CASE = {
    "_assert_scalar": "a check, makes no tensor",
    "_assert_tensor_metadata": "a check, makes no tensor",
    "sym_constrain_range_for_size": "a check, makes no tensor",
    "sym_size": "makes a number, and shapes are known",
}


@cache
def traced(name):
    """Module, inputs, graph and space of a case; the graph holds the operator under test."""
    case = CASES[name]
    module, inputs = case.build()
    program = torch.export.export(module.eval(), inputs, strict=False)
    if name not in operators(program):
        program = export(module, inputs)
    return module, inputs, program, interpret(module, program)


def operators(program):
    return {operator_name(node) for node in program.graph.nodes if node.op == "call_function"}


def as_tensors(value, make):
    return pytree.tree_map_only(Tensor, make, value)


def forget(scene, node, *_, **__):
    """Return units that nothing is known of."""

    def fresh(value):
        axes = [
            None if length < 2 else along(scene.units.fresh(length), dim, value.ndim)
            for dim, length in enumerate(value.shape)
        ]
        return Labelled(tuple(value.shape), tuple(axes))

    return as_tensors(node.meta["val"], fresh)


def pin_all(scene, node, *_, **__):
    """Return units that never move."""

    def fixed(value):
        rank = value.ndim
        axes = [
            None if length < 2 else scene.fixed(length, dim, rank)
            for dim, length in enumerate(value.shape)
        ]
        return Labelled(tuple(value.shape), tuple(axes))

    return as_tensors(node.meta["val"], fixed)


def shifted(true_rule):
    """Apply the true rule, then move all labels by one position."""

    def shift(value):
        axes = [
            None if labels is None else np.roll(labels, 1, axis=dim)
            for dim, labels in enumerate(value.labels)
        ]
        return Labelled(value.shape, tuple(axes))

    def rule(scene, node, *args, **kwargs):
        found = true_rule(scene, node, *args, **kwargs)
        return pytree.tree_map_only(Labelled, shift, found)

    return rule


def test_every_rule_has_a_case():
    assert set(CASES) | set(WITHOUT_CASE) == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_units_through_the_operator_are_found_and_proved(name):
    module, inputs, program, space = traced(name)
    assert name in operators(program)
    assert sorted((g.size, g.copies) for g in space.groups) == sorted(CASES[name].groups)
    assert space.unsupported == ()
    result = space.verify(module, *inputs)
    assert result.passed
    assert max(result.deviations.values()) <= 1e-9


@pytest.mark.parametrize("name", [name for name in CASES if name not in FILLED])
def test_a_broken_rule_is_refuted(name, monkeypatch):
    module, inputs, program, space = traced(name)
    true_rule, refuted = RULES[name], []
    for broken in (forget, shifted(true_rule)):
        monkeypatch.setitem(RULES, name, broken)
        wrong = dataclasses.replace(space, groups=interpret(module, program).groups)
        if wrong.groups != space.groups:  # else the mistake makes no difference here
            refuted.append(not wrong.verify(module, *inputs).passed)
    assert any(refuted)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_that_pins_too_much_is_seen(name, monkeypatch):
    module, _, program, space = traced(name)
    monkeypatch.setitem(RULES, name, pin_all)
    assert interpret(module, program).groups != space.groups
