import shutil
from dataclasses import replace

import pytest

from data_gen.plan import Plan, Task
from data_gen.resources import (
    MemoryNeededError,
    check_memory,
    check_space,
    data_bytes,
    free_memory,
    memory_needed,
)
from data_gen.testing import small_digits
from zoo.errors import StoreError

_PLAN = Plan(
    tasks=(Task((0, 1), 32), Task((2,), 16)),
    num_members=48,
    num_done=0,
    epochs=2,
    num_parameters=1000,
    num_checkpoints=3,
    bytes_needed=5 * 2**20,
)


def test_memory_grows_with_what_must_be_held():
    problem = small_digits()
    assert data_bytes(problem) == (83 + 41) * (64 * 4 + 8)
    one = memory_needed(_PLAN, problem, workers=1)
    assert memory_needed(_PLAN, problem, workers=2) == 2 * one
    assert memory_needed(_PLAN, problem, workers=9) == 2 * one
    more = memory_needed(replace(_PLAN, num_checkpoints=4), problem, workers=1)
    assert more - one == 32 * 1000 * 2 * 4
    bigger = small_digits(num_train=84)
    assert memory_needed(_PLAN, bigger, workers=1) - one == 64 * 4 + 8
    assert memory_needed(replace(_PLAN, tasks=()), problem, workers=2) == 0


def test_a_run_that_does_not_fit_is_refused_with_numbers(tmp_path, monkeypatch):
    huge = replace(_PLAN, num_parameters=10**10)
    with pytest.raises(
        MemoryNeededError, match=r"MiB of free memory for 2 workers .* 32 members .*--workers"
    ):
        check_memory(huge, small_digits(), workers=2)
    check_memory(replace(_PLAN, tasks=()), small_digits(), workers=2)
    check_space(_PLAN, tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 2**20 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match=r"5\.0 MiB of free disk space"):
        check_space(_PLAN, tmp_path)


def test_free_memory_is_the_least_of_machine_and_control_group(tmp_path):
    assert free_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    7 kB\n")
    assert free_memory(tmp_path) == 7 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1000\n")
    (group / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) == 7 * 1024
    (group / "memory.max").write_text("3000\n")
    assert free_memory(tmp_path) == 2000
    (group / "memory.max").write_text("500\n")
    assert free_memory(tmp_path) == 0
