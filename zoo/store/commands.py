"""Commands about zoos as files: ``zoo check`` and ``zoo publish``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zoo.errors import ZooError
from zoo.store.root import open as open_zoo
from zoo.store.upkeep.report import CheckReport, PopulationReport, cells_text


def check(path: str, *, repair: bool = False) -> int:
    """Verify every stored byte against checksums and ledger; list what is damaged or missing.

    Parameters
    ----------
    path
        A zoo, or the URL of one.
    repair
        Remove what killed writers left, put back metadata, set damaged blocks aside so that
        resuming the run that made them makes them again. Nothing intact is touched.
    """
    from zoo.store.upkeep.check import check as run_check

    if repair:
        return _repair(path)
    with _bar(path, "checking") as progress:
        report = run_check(path, progress=progress)
    for population in report.populations:
        _print_population(population)
    for name, reason in report.unreadable:
        print(f"{name}: cannot be read: {reason}")
    for fault in report.faults:
        print(f"metadata: {fault}")
    _print_leftovers(report)
    if report.ok:
        print("everything stored is intact")
        return 0
    print("DAMAGED: do not trust what is listed; `zoo check --repair` mends what can be mended")
    return 1


def publish(source: str, target: str) -> None:
    """Copy a finished zoo to a folder or a bucket, for others to open; resumes when run again.

    Parameters
    ----------
    source
        A zoo.
    target
        s3://bucket/zoo.zarr, a folder, or icechunk+file:///folder for a repository of versions.
        Keys and endpoint of S3 are taken from the environment (AWS_ACCESS_KEY_ID,
        AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL).
    """
    from zoo.store.upkeep.publish import publish as run_publish
    from zoo.store.upkeep.versions import PREFIX, publish_version

    with _bar(source, "publishing") as progress:
        if target.startswith(PREFIX):
            done = publish_version(source, target, progress=progress)
        else:
            done = run_publish(source, target, progress=progress)
    print(
        f"published {done.target}, dataset version {done.version}: "
        f"{done.num_bytes / 2**20:.1f} MiB copied, {done.num_present} files were there"
    )


def _repair(path: str) -> int:
    from zoo.store.upkeep.repair import repair as run_repair

    with _bar(path, "repairing") as progress:
        report = run_repair(path, progress=progress)
    for mended in report.mended:
        print(f"written again: {mended}")
    if report.removed:
        print(f"removed {len(report.removed)} files of interrupted writers")
    for block in report.set_aside:
        print(f"{block.population}, block {block.block}: set aside in {block.folder}")
        for reason in block.reasons:
            print(f"  {reason}")
        for text in cells_text(block.cells):
            print(f"  to be made again: {text}")
    if report.set_aside:
        print("resume what made them: the same command trains or measures these blocks again")
    for left in report.left:
        print(f"NOT REPAIRED: {left}")
    if not report.left:
        print("everything stored is intact")
    return 1 if report.left else 0


def _print_population(population: PopulationReport) -> None:
    print(
        f"{population.name}: {population.blocks_committed} of {population.blocks_planned} "
        f"blocks stored, {population.num_bytes / 2**20:.1f} MiB checked"
    )
    for damage in population.damaged:
        print(f"  damaged {damage}")
    for damage in population.measures:
        print(f"  damaged measure {damage}")
    for text in cells_text(population.lost_cells):
        print(f"  lost: {text}")
    for split, reason in population.splits:
        print(f"  split {split!r}: {reason}")
    for member, epoch in population.not_finite:
        print(f"  member {member}, epoch {epoch}: weights are not finite")
    for fault in population.faults:
        print(f"  {fault}")
    if population.missing_members:
        first, last = population.missing_members[0], population.missing_members[-1]
        count = len(population.missing_members)
        print(f"  {count} members not trained yet, between {first} and {last}")


def _print_leftovers(report: CheckReport) -> None:
    left = [*report.orphans, *(o for p in report.populations for o in p.orphans)]
    if left:
        print(f"{len(left)} files of an interrupted writer (harmless): {left[0]} ...")
    if report.is_table_stale:
        print("table.parquet is older than the arrays (derived; --repair writes it again)")


@contextmanager
def _bar(path: str, what: str) -> Iterator[Callable[[int], object]]:
    """Show the bytes of chunk files that are done."""
    from tqdm import tqdm

    from zoo.store.upkeep.publish import num_chunk_bytes

    try:
        total = num_chunk_bytes(open_zoo(path))
    except (ZooError, ValueError):
        total = None  # damaged: the report will say it
    with tqdm(total=total, desc=what, unit="B", unit_scale=True, delay=1, leave=False) as bar:
        yield bar.update
