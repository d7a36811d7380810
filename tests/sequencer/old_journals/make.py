"""Old journals and what they must still replay to.

    python tests/sequencer/old_journals/make.py NAME                a new journal, with what this version makes of it
    python tests/sequencer/old_journals/make.py NAME --state-hash   only adds the state hash of this snapshot layout

The second one is for a change of the snapshot's layout (its FORMAT): it refuses when anything else has changed.
A change that makes an old journal replay to other batches or balances breaks every exchange that has one.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2])]

from eth_hash.auto import keccak  # noqa: E402
from small_core import SmallCore  # noqa: E402

from evermark.protocol.batch import encode_batch  # noqa: E402
from sequencer.engine import snapshot  # noqa: E402
from sequencer.engine.state import EngineState  # noqa: E402
from sequencer.journal import Head, SqliteJournal  # noqa: E402
from sequencer.replay import Applied, replay  # noqa: E402
from sequencer.settlement.backlog import Backlog  # noqa: E402


def replayed(path: Path) -> tuple[dict[str, Any], str]:
    """(what a journal means, whatever the layout of a snapshot is; the state hash)."""
    state, batches = EngineState(), list[str]()
    with tempfile.TemporaryDirectory() as directory:  # SQLite writes beside a database, also to read it
        copy = shutil.copy(path, Path(directory) / "journal.db")
        journal = SqliteJournal(Path(copy), read_only=True)
        head = _replay(journal, state, batches)
        journal.close()
    meaning = {
        "records": head.sequence,
        "head": head.hash.hex(),
        "batches": batches,
        "funding_pool": state.funding_pool,
        "claimed": state.claimed,
        "trades": state.trade_count,
        "accounts": {
            str(key): {
                "collateral": account.collateral,
                "positions": {str(at): one.size for at, one in sorted(account.positions.items()) if one.size},
                "orders": sorted(order.order_hash.hex() for order in account.orders.values()),
            }
            for key, account in sorted(state.accounts.items())
        },
    }
    return meaning, snapshot.state_hash(state).hex()


def _replay(journal: SqliteJournal, state: EngineState, batches: list[str]) -> Head:
    backlog = Backlog(journal.record)

    def note(applied: Applied) -> None:
        before = backlog.last_sealed
        backlog.observe(applied)
        for batch_id in range(before + 1, backlog.last_sealed + 1):
            sealed = backlog.sealed(batch_id)
            assert sealed is not None
            batches.append(keccak(encode_batch(sealed.batch)).hex())

    return replay(journal, state, [note])


async def make(path: Path) -> None:
    """A small exchange's journal."""
    with tempfile.TemporaryDirectory() as directory:
        async with SmallCore(Path(directory)) as small:
            await small.fund()
            await small.trade(90, seed=4)
        shutil.copy(Path(directory) / "journal.db", path)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--state-hash", action="store_true")
    options = parser.parse_args()
    path, expected = HERE / f"{options.name}.journal", HERE / f"{options.name}.json"
    hashes: dict[str, str] = {}
    if options.state_hash:
        kept = json.loads(expected.read_text())
        meaning, state_hash = replayed(path)
        if meaning != kept["meaning"]:
            sys.exit(f"{path.name} replays to something else: that is more than another layout")
        hashes = kept["state_hashes"]
    else:
        asyncio.run(make(path))
        meaning, state_hash = replayed(path)
    hashes[str(snapshot.FORMAT)] = state_hash
    expected.write_text(json.dumps({"meaning": meaning, "state_hashes": hashes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
