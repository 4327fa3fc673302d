"""Kill `zoo generate` again and again at random moments, resume it, and compare every byte.

Each round generates a population from nothing. Its processes are killed by SIGKILL (all of them at
once, or one worker alone) after a random delay, and the run is started again, until a run comes to
its end undisturbed. Dataset version and all chunk files must equal those of a run that nobody
disturbed. Prints a line per kill and a summary; exit code 1 if any byte differs.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

from jsonargparse import auto_cli
from tqdm import tqdm

import zoo

_TRAINS = {"local": "spawn_main", "ray": "ray::_work"}
"""What is in the command line of a process that trains."""
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def fingerprint(out: Path) -> tuple[str, str]:
    """Return a zoo's dataset version and a hash of all its chunk files, names included."""
    digest = sha256()
    for path in sorted(path for path in out.rglob("c/**/*") if path.is_file()):
        digest.update(str(path.relative_to(out)).encode() + b"\0" + path.read_bytes())
    return zoo.open(out).version, digest.hexdigest()


def family(root: int) -> dict[int, str]:
    """Return the command lines of a process and of all below it, by process id."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().split(")")[-1].split()[1])
            titles[int(folder.name)] = (folder / "cmdline").read_text()
        except (OSError, ValueError):
            continue
    found, growing = {root}, True
    while growing:
        more = {child for child, parent in parents.items() if parent in found} - found
        found, growing = found | more, bool(more)
    return {number: titles[number] for number in found if number in titles}


def kill(process: "subprocess.Popen[bytes]", way: str, *, workers_only: bool) -> str:
    """Kill one worker, or the command and everything it started; says what was killed."""
    below = family(process.pid)
    workers = [number for number, title in below.items() if _TRAINS[way] in title]
    if workers_only and workers:
        os.kill(random.choice(workers), signal.SIGKILL)  # noqa: S311
        return "one worker"
    for number in below:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return f"all {len(below)} processes"


def start(command: list[str]) -> "subprocess.Popen[bytes]":
    """Start `zoo generate`."""
    return subprocess.Popen(
        [sys.executable, "-m", "zoo.cli", *command],
        env=os.environ | _ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def disturbed_run(
    command: list[str], way: str, longest: float, kills: int, rng: random.Random
) -> list[str]:
    """Generate with ``kills`` kills on the way; returns what was done, too few if it was faster."""
    log: list[str] = []
    began = time.monotonic()
    while True:
        process = start(command)
        if len(log) < kills:
            delay = rng.uniform(0, longest)
            try:
                process.wait(timeout=delay)
            except subprocess.TimeoutExpired:
                log.append(f"{delay:.1f} s: {kill(process, way, workers_only=rng.random() < 0.4)}")
        if process.wait() == 0:
            return [*log, f"finished after {time.monotonic() - began:.1f} s"]
        if len(log) >= kills and process.returncode not in (-signal.SIGKILL, 2):
            raise RuntimeError(f"zoo generate failed by itself, exit code {process.returncode}")


def campaign_round(
    command: list[str], way: str, longest: float, kills: int, rng: random.Random, out: Path
) -> list[str]:
    """Generate into ``out`` until a run was killed as often as wanted before it was done."""
    while True:
        log = disturbed_run([*command, "--out", str(out)], way, longest, kills, rng)
        if len(log) > kills:
            return log
        shutil.rmtree(out)
        longest *= 0.7


def main(
    *,
    rounds: int = 20,
    kills: int = 1,
    ways: tuple[str, ...] = ("local", "ray"),
    recipe: str = "digits-mlp",
    members: int = 128,
    epochs: int = 20,
    engine: str = "stacked",
    workers: int = 2,
    seed: int = 0,
) -> None:
    """Run the campaign.

    Parameters
    ----------
    rounds
        Populations that are generated, for each way.
    kills
        Kills per population.
    ways
        local, ray (a local cluster), or both.
    recipe, members, epochs, engine, workers
        What is generated.
    seed
        Seed of the delays.
    """
    rng, failures = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as folder:
        base = ["generate", recipe, "--members", str(members), "--epochs", str(epochs)]
        base += ["--engine", engine, "--workers", str(workers)]
        for way in ways:
            own = [*base, *(["--ray", "local"] if way == "ray" else [])]
            whole = Path(folder) / f"whole-{way}"
            began = time.monotonic()
            if start([*own, "--out", str(whole)]).wait() != 0:
                raise RuntimeError(f"'zoo {' '.join(own)}' fails without being killed")
            duration, wanted = time.monotonic() - began, fingerprint(whole)
            print(f"{way}: undisturbed in {duration:.1f} s, dataset version {wanted[0]}")
            for number in tqdm(range(rounds), desc=way):
                out = Path(folder) / f"{way}-{number}"
                log = campaign_round(own, way, duration, kills, rng, out)
                same = fingerprint(out) == wanted
                failures += not same
                verdict = "same bytes" if same else "OTHER BYTES"
                tqdm.write(f"{way} {number + 1}/{rounds}: {'; '.join(log)}: {verdict}")
                shutil.rmtree(out)
    total = rounds * len(ways)
    print(f"{total - failures} of {total} killed and resumed runs gave the same bytes.")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    auto_cli(main)
