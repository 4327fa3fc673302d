"""Ray: the same bytes as local processes, workers that die, clusters that do not answer."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

import zoo
from data_gen.cluster import ClusterError, find_cluster
from data_gen.commands import generate
from data_gen.recipes import recipe as find_recipe
from data_gen.runner import Run, carry_out, prepare

pytest.importorskip("ray")

_RECIPE = find_recipe("digits-mlp", num_members=48, epochs=12)


def _generate(run, report=lambda _: None):
    writer, plan, problem = prepare(run)
    carry_out(run, writer, plan, problem, progress=report)
    return zoo.open(run.out)


def _chunks(out):
    files = [path for path in sorted(out.rglob("c/**/*")) if path.is_file()]
    return {path.relative_to(out): path.read_bytes() for path in files}


def _descendants(title):
    """Find processes of ours with a title: other people's clusters are none of our business."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            number = int(folder.name)
            parents[number] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            titles[number] = (folder / "cmdline").read_text()
        except (OSError, ValueError):
            continue

    def is_ours(number):
        while number > 1:
            if number == os.getpid():
                return True
            number = parents.get(number, 0)
        return False

    return [number for number in titles if title in titles[number] and is_ours(number)]


def _kill_a_worker(killed, over):
    """Wait for a worker that trains, and kill it."""
    while not over.wait(0.01) and not killed:
        for number in _descendants("ray::_work")[:1]:
            os.kill(number, signal.SIGKILL)
            killed.append(number)


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_bytes_of_one_process(tmp_path):
    local = _generate(Run(recipe=_RECIPE, out=tmp_path / "local", workers=1))
    killed, done, over = [], [], threading.Event()
    killer = threading.Thread(target=_kill_a_worker, args=(killed, over))
    killer.start()
    run = Run(recipe=_RECIPE, out=tmp_path / "ray", workers=2, ray="local")
    try:
        cluster = _generate(run, done.append)
    finally:
        over.set()
        killer.join()
    assert len(killed) == 1
    assert sum(done) == 48 * 12
    assert cluster.version == local.version
    assert _chunks(tmp_path / "ray") == _chunks(tmp_path / "local") != {}
    assert not _descendants("ray::")


def test_a_cluster_that_is_not_there_is_named_in_seconds(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(ClusterError, match=r"No Ray cluster is running .* 'ray start --head'"):
        find_cluster("auto")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ClusterError, match=f"answers at '{address}'.*--ray local"):
            generate("digits-mlp", out=tmp_path / "zoo", ray=address)
        assert time.monotonic() - start < 10
    assert not (tmp_path / "zoo").exists()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1")
    with pytest.raises(ClusterError, match=r"answers at '127\.0\.0\.1'"):
        find_cluster("auto")
