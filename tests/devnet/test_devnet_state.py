"""A devnet that keeps its state restores the very same chain, or refuses and says what does not match."""

import json
import os
import signal
import subprocess
import sys

import pytest
from devnet_cases import GENESIS_TIME, result, transfer

from evermark.cli.exchange import Exchange
from evermark.cli.plan import UpPlan
from evermark.cli.rundir import LAYOUT_VERSION, RunDirectory, RunFacts
from evermark.devnet import Devnet, DevnetConfig, StateRefused


def config(path, **fields):
    return DevnetConfig(port=0, state_dir=str(path), **fields)


async def grow(path, sender, receiver, blocks, first=0, **fields):
    """Run a devnet for some blocks; its last block."""
    devnet = Devnet(config(path, **fields))
    await devnet.start()
    try:
        for nonce in range(first, first + blocks):
            raw = "0x" + transfer(sender, receiver.address, nonce).hex()
            await result(devnet.url, "eth_sendRawTransaction", raw)
        return await result(devnet.url, "eth_getBlockByNumber", "latest", False)
    finally:
        await devnet.stop()


async def test_a_run_directory_knows_how_many_blocks_its_chain_mines_again(tmp_path, sender, receiver):
    """None in a fresh directory, or behind the header alone; then as many as there are."""
    run = RunDirectory(tmp_path, temporary=True)
    assert run.recorded_blocks() == 0
    await grow(run.chain, sender, receiver, 0, genesis_time=GENESIS_TIME)
    assert run.recorded_blocks() == 0
    last = await grow(run.chain, sender, receiver, 3)
    assert run.recorded_blocks() == int(last["number"], 16) == 3


async def test_a_longer_chain_gets_longer_to_come_back(tmp_path):
    """The start of an exchange waits for each recorded block, not for a fixed time that a long run outgrows."""
    waited = []

    class Supervisor:
        def start(self, *arguments):
            return arguments

        async def ready(self, child, answers, problem, timeout_s):
            waited.append(timeout_s)

    run = RunDirectory(tmp_path, temporary=True)
    plan = UpPlan(
        prices="sim",
        tapes="",
        speed=1.0,
        start_s=GENESIS_TIME,
        seed=1,
        state=tmp_path,
        gateway_port=1,
        chain_port=2,
        actors=False,
        synthetic=True,
        seconds=0,
        as_json=False,
        min_fills=0,
    )
    start = Exchange(plan, run, Supervisor(), None)._start_chain
    facts = RunFacts(layout=LAYOUT_VERSION, prices="sim", start_s=GENESIS_TIME, seed=1, addresses={})
    await start(facts)
    (run.chain / "blocks.jsonl").write_text("{}\n" * 10_001)
    await start(facts)
    assert waited[1] - waited[0] >= 10_000 * 0.2


async def test_a_restart_restores_the_same_chain(tmp_path, sender, receiver):
    """Same blocks, balances and receipts; the clock goes on from the last block."""
    last = await grow(tmp_path, sender, receiver, 3, genesis_time=GENESIS_TIME)
    devnet = Devnet(config(tmp_path))
    await devnet.start()
    try:
        assert await result(devnet.url, "eth_getBlockByNumber", "latest", False) == last
        assert await result(devnet.url, "eth_getTransactionCount", sender.address) == "0x3"
        receipt = await result(devnet.url, "eth_getTransactionReceipt", last["transactions"][0])
        assert receipt["blockHash"] == last["hash"]
        clock = (await result(devnet.url, "devnet_clock"))["chain_time"]
        assert int(last["timestamp"], 16) <= clock < int(last["timestamp"], 16) + 10
    finally:
        await devnet.stop()
    assert int((await grow(tmp_path, sender, receiver, 1, first=3))["number"], 16) == 4


async def test_a_torn_last_line_is_cut_off(tmp_path, sender, receiver):
    """A crash in the middle of a write loses that block alone, which nobody was told of."""
    last = await grow(tmp_path, sender, receiver, 2, genesis_time=GENESIS_TIME)
    log = tmp_path / "blocks.jsonl"
    log.write_bytes(log.read_bytes() + b'{"timestamp": 17601')
    assert await grow(tmp_path, sender, receiver, 0) == last
    assert int((await grow(tmp_path, sender, receiver, 1, first=2))["number"], 16) == 3


def _drop_block(rows):
    del rows[1]


def _other_hash(rows):
    rows[2]["hash"] = "00" * 32


def _other_time(rows):
    rows[1]["timestamp"] += 1


def _other_chain(rows):
    rows[0]["chain_id"] = 1


@pytest.mark.parametrize("damage", [_drop_block, _other_hash, _other_time, _other_chain])
async def test_a_changed_record_is_refused(tmp_path, sender, receiver, damage):
    """Whatever was changed in the record, the chain is not restored as something else."""
    await grow(tmp_path, sender, receiver, 2, genesis_time=GENESIS_TIME)
    log = tmp_path / "blocks.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    damage(rows)
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(StateRefused, match="devnet state: "):
        await Devnet(config(tmp_path)).start()


async def test_a_broken_line_in_the_middle_is_refused(tmp_path, sender, receiver):
    """Unlike a torn end, a damaged line before others is named with its number."""
    await grow(tmp_path, sender, receiver, 2, genesis_time=GENESIS_TIME)
    log = tmp_path / "blocks.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b"{broken\n" + lines[2])
    with pytest.raises(StateRefused, match="line 2 is damaged"):
        await Devnet(config(tmp_path)).start()


async def test_another_genesis_time_is_refused(tmp_path, sender, receiver):
    """A recorded chain has its own beginning; the same one may be named again."""
    await grow(tmp_path, sender, receiver, 1, genesis_time=GENESIS_TIME)
    await grow(tmp_path, sender, receiver, 0, genesis_time=GENESIS_TIME)
    with pytest.raises(StateRefused, match=f"begins at {GENESIS_TIME}"):
        await Devnet(config(tmp_path, genesis_time=GENESIS_TIME + 1)).start()


async def test_two_devnets_cannot_share_a_directory(tmp_path):
    """The second one is refused while the first one runs."""
    first = Devnet(config(tmp_path))
    await first.start()
    try:
        with pytest.raises(StateRefused, match="another devnet uses it"):
            Devnet(config(tmp_path))
    finally:
        await first.stop()


async def test_a_killed_devnet_loses_nothing(tmp_path, sender, receiver):
    """What a process answered before kill -9 is there in the next one."""
    settings = tmp_path / "config.json"
    state = tmp_path / "state"
    settings.write_text(json.dumps({"port": 0, "state_dir": str(state), "genesis_time": GENESIS_TIME}))
    process = subprocess.Popen(  # noqa: ASYNC220 -- returns at once
        [sys.executable, "-m", "evermark.devnet", str(settings)], stdout=subprocess.PIPE, text=True
    )
    try:
        url = process.stdout.readline().split(" at ")[1].strip()
        for nonce in range(5):
            raw = "0x" + transfer(sender, receiver.address, nonce).hex()
            await result(url, "eth_sendRawTransaction", raw)
        last = await result(url, "eth_getBlockByNumber", "latest", False)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert last["number"] == "0x5"
    assert await grow(state, sender, receiver, 0) == last
