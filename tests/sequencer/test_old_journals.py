"""Journals that earlier versions wrote: they open, and replay to the same batches, balances and state hash."""

import json
import shutil
import sys
from pathlib import Path

import pytest

OLD = Path(__file__).resolve().parent / "old_journals"
sys.path.insert(0, str(OLD))

from make import replayed  # noqa: E402

from sequencer.engine.snapshot import FORMAT  # noqa: E402
from sequencer.journal import SqliteJournal  # noqa: E402


@pytest.mark.safety("G19", "sequencer")
@pytest.mark.parametrize("path", sorted(OLD.glob("*.journal")), ids=lambda path: path.stem)
def test_old_journal_replays_to_what_it_was(path: Path, tmp_path: Path) -> None:
    """A version that made other batches of an old journal could not settle, and its audit would fail.

    The state hash depends on the snapshot's layout as well: it is compared where it was noted for this FORMAT.
    """
    copy = tmp_path / "journal.db"
    shutil.copy(path, copy)
    expected = json.loads(path.with_suffix(".json").read_text())
    meaning, state_hash = replayed(copy)
    assert meaning == expected["meaning"]
    hint = f"the snapshot's layout has changed: raise its FORMAT, run old_journals/make.py {path.stem} --state-hash"
    assert expected["state_hashes"].get(str(FORMAT), state_hash) == state_hash, hint
    owner = SqliteJournal(copy)
    assert owner.head().hash.hex() == expected["meaning"]["head"]
    owner.close()


def test_there_are_old_journals() -> None:
    """The test above runs at least once."""
    assert list(OLD.glob("*.journal"))
