"""The same journal always gives the same state: replays, other hash seeds, snapshots, poison."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from engine_world import BUY, START_S, World, of_type
from seeded_stream import stream

from evermark.protocol.units import BrokenInvariant
from sequencer.engine.apply import apply
from sequencer.engine.commands import AnyCommand, BatchConfirmed
from sequencer.engine.events import AnyEvent, CommandRejected
from sequencer.engine.snapshot import SnapshotRefused, restore, snapshot, state_hash
from sequencer.engine.state import EngineState

HERE = Path(__file__).resolve().parent


@pytest.mark.safety("G01", "sequencer")
def test_every_prefix_replays_to_the_same_hash():
    """Two engines that read the same journal have the same state and events after each record."""
    world = stream(1, 250)
    first, second = EngineState(), EngineState()
    for sequence, (command, stamp_ms) in enumerate(world.log, 1):
        ours = apply(first, command, sequence, stamp_ms)
        theirs = apply(second, command, sequence, stamp_ms)
        assert ours == theirs
        if sequence % 10 == 0:
            assert state_hash(first) == state_hash(second)
    assert state_hash(first) == state_hash(world.state)


@pytest.mark.safety("G01", "sequencer")
def test_another_hash_seed_gives_the_same_hash():
    """Neither dict nor set order of a process leaks into the state."""
    root = HERE.parent.parent
    hashes = {
        subprocess.run(
            [sys.executable, str(HERE / "seeded_stream.py"), "2", "200"],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(hashes) == 1
    assert hashes.pop().strip() == state_hash(stream(2, 200).state).hex()


@pytest.mark.safety("G09", "sequencer")
def test_snapshot_and_tail_equal_full_replay():
    """A state restored at any point goes on exactly as the one that never stopped."""
    world = stream(3, 300)
    state = EngineState()
    for sequence, (command, stamp_ms) in enumerate(world.log, 1):
        apply(state, command, sequence, stamp_ms)
        if sequence % 37 == 0:
            kept = snapshot(state)
            state = restore(kept)
            assert snapshot(state) == kept
    assert state_hash(state) == state_hash(world.state)


def test_an_unreadable_snapshot_is_refused():
    """Garbage, truncation and another format say so instead of giving half a state."""
    data = snapshot(stream(4, 50).state)
    for bad in (
        b"",
        b"\x00",
        data[:-1],
        data[: len(data) // 2],
        msgspec.msgpack.encode([99]),
        data + b"\x00",
    ):
        with pytest.raises(SnapshotRefused):
            restore(bad)


def test_commands_and_events_survive_encoding():
    """Every command and event of a stream decodes from JSON to itself."""
    state = EngineState()
    for sequence, (command, stamp_ms) in enumerate(stream(5, 200).log, 1):
        assert msgspec.json.decode(msgspec.json.encode(command), type=AnyCommand) == command
        for event in apply(state, command, sequence, stamp_ms):
            assert msgspec.json.decode(msgspec.json.encode(event), type=AnyEvent) == event


@pytest.mark.safety("G10", "sequencer")
def test_a_poison_command_is_refused_the_same_way_each_time():
    """Absurd numbers give a CommandRejected and leave the state as it was, in the first run and in a
    replay."""
    world = World()
    account = world.trader(10)
    world.order(account, BUY, 1_000, 9_900, slot=1)
    poison, _ = world.log[-1]
    absurd = []
    for field, value in (
        ("size", -1),
        ("size", 10**30),
        ("limit_price", -5),
        ("sequence", 2**60),
        ("expiry", 10**20),
        ("slot", -1),
        ("max_fee_ppm", -1),
        ("market", "\ud800" * 3),
    ):
        order = msgspec.structs.replace(poison.order, slot=2, sequence=START_S * 1000 + 999)
        absurd.append(msgspec.structs.replace(poison, order=msgspec.structs.replace(order, **{field: value})))
    absurd.append(BatchConfirmed(batch_id=-3, block_number=0))
    before = len(world.state.accounts[account].orders)
    for command in absurd:
        assert of_type(world.apply(command), CommandRejected)
    assert len(world.state.accounts[account].orders) == before
    again = EngineState()
    for sequence, (command, stamp_ms) in enumerate(world.log, 1):
        apply(again, command, sequence, stamp_ms)
    assert state_hash(again) == state_hash(world.state)


def test_the_door_takes_commands_in_journal_order_only():
    """A gap, a repetition or a falling stamp is a bug, and stops the sequencer."""
    world = World()
    command = BatchConfirmed(batch_id=1, block_number=1)
    for sequence, stamp_ms in ((world.state.sequence, 10**15), (world.state.sequence + 2, 10**15)):
        with pytest.raises(BrokenInvariant):
            apply(world.state, command, sequence, stamp_ms)
    with pytest.raises(BrokenInvariant):
        apply(world.state, command, world.state.sequence + 1, 0)


def test_nothing_happens_before_genesis():
    """A fresh state refuses everything, and Genesis comes once."""
    (event,) = apply(EngineState(), BatchConfirmed(batch_id=1, block_number=1), 1, 0)
    assert isinstance(event, CommandRejected)
    world = World()
    genesis, _ = world.log[0]
    assert of_type(world.apply(genesis), CommandRejected)
