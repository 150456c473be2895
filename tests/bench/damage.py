"""Part ``damage``: what each engine says about a file that was damaged after a commit.

Entries are committed one by one, the files are copied as a crash would leave them, one bit of the
copy is flipped or its end is cut off, and a process of its own opens it.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from tests.bench.engines import ENTRY, Lmdb, RocksSyncWrite, Sqlite, has_lmdb

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

    from tests.bench.engines import Store
    from tests.bench.part import Bench

    Damage = Callable[[bytearray, int, random.Random], None]

ENTRIES = 10
ATTEMPTS = 100
SEED = 1
OPEN_TIMEOUT_S = 20
REFUSED, WHOLE, FEWER, WRONG, DIED = (
    "refused",
    "all entries",
    "fewer entries",
    "wrong data",
    "reader died",
)
OUTCOMES = (REFUSED, WHOLE, FEWER, WRONG, DIED)


class Case(NamedTuple):
    """One file of one engine: how to open it, where it lies, whether it is closed before."""

    open_store: Callable[[Path], Store]
    file: str
    is_closed: bool = False


def measure_damage(bench: Bench) -> None:
    """Prints how often each engine refused a damaged file, and what it showed if it did not."""
    cases = {
        "RocksDB's log": Case(RocksSyncWrite, "rocksdb/*.log"),
        "SQLite's log": Case(Sqlite, "sqlite-wal"),
        "SQLite's database": Case(Sqlite, "sqlite", is_closed=True),
    }
    if has_lmdb():
        cases["LMDB's map"] = Case(Lmdb, "lmdb/data.mdb")
    table = Table(title=f"{ENTRIES} entries, opened {ATTEMPTS} times after a damage of each kind")
    for column in ("", "damage", *OUTCOMES):
        table.add_column(column, justify="right" if column in OUTCOMES else "left")
    for name, case in cases.items():
        with bench.fresh_folder() as folder:
            original = _write(case, folder)
            for damage in (flip_bit, cut_off):
                found = _count_outcomes(case, original, damage)
                counts = [str(found[outcome] or "") for outcome in OUTCOMES]
                table.add_row(name, damage.__name__.replace("_", " "), *counts)
    bench.console.print(table)


def flip_bit(data: bytearray, place: int, choices: random.Random) -> None:
    """Flips one bit of a byte."""
    data[place] ^= 1 << choices.randrange(8)


def cut_off(data: bytearray, place: int, choices: random.Random) -> None:  # noqa: ARG001 - as above
    """Leaves nothing from a byte on."""
    del data[place:]


def _write(case: Case, folder: Path) -> Path:
    """A folder as a crash would leave it after some commits."""
    written, left = folder / "written", folder / "left"
    written.mkdir()
    store = case.open_store(written)
    for seq in range(ENTRIES):
        store.commit(seq, 1)
    if case.is_closed:
        store.close()
    shutil.copytree(written, left)
    if not case.is_closed:
        store.close()
    return left


def _count_outcomes(case: Case, original: Path, damage: Damage) -> Counter[str]:
    choices = random.Random(SEED)
    found: Counter[str] = Counter()
    copy = original.with_name("copy")
    for _ in range(ATTEMPTS):
        shutil.copytree(original, copy)
        (path,) = copy.glob(case.file)
        data = bytearray(path.read_bytes())
        # A file may be longer than what is in it.
        used = [index for index, byte in enumerate(data) if byte]
        damage(data, choices.choice(used), choices)
        path.write_bytes(data)
        found[_open_apart(case.open_store, copy)] += 1
        shutil.rmtree(copy)
    return found


def _open_apart(open_store: Callable[[Path], Store], folder: Path) -> str:
    """How a process fares that opens the folder; a damaged map may end it by a signal."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    reader = context.Process(target=_judge, args=(open_store, folder, theirs))
    reader.start()
    theirs.close()
    try:
        return str(ours.recv()) if ours.poll(OPEN_TIMEOUT_S) else DIED
    except EOFError:
        return DIED
    finally:
        reader.kill()
        reader.join()


def _judge(open_store: Callable[[Path], Store], folder: Path, outcome: Connection) -> None:
    try:
        found = open_store(folder).entries()
    except Exception:  # noqa: BLE001 - whatever it raises, it has refused
        outcome.send(REFUSED)
        return
    complete = dict.fromkeys(range(ENTRIES), ENTRY)
    if found == complete:
        outcome.send(WHOLE)
    else:
        outcome.send(FEWER if found.items() <= complete.items() else WRONG)
