"""Confirmed events: complete, in order, once each, whatever the node does."""

import pytest
from chain_cases import FaultyNode

from evermark.chain import ChainReorganised, EventReader, TransactionSender
from evermark.chain.artifacts import load_artifact
from evermark.chain.rpc import connect, rpc
from evermark.devnet import dev_key


class Ledger:
    """A token whose mints are the events."""

    def __init__(self, sender, contract):
        self.sender, self.contract = sender, contract

    async def mint(self, *amounts):
        for amount in amounts:
            data = self.contract.encode_abi("mint", args=[self.sender.address, amount])
            await self.sender.send(self.contract.address, data, gas=200_000)

    def seen_by(self, w3):
        return w3.eth.contract(address=self.contract.address, abi=self.contract.abi)


async def make_ledger(w3):
    sender = TransactionSender(w3, dev_key(0))
    artifact = load_artifact("token")
    receipt = await sender.send(None, artifact.creation_code())
    return Ledger(sender, w3.eth.contract(address=receipt["contractAddress"], abi=artifact.abi))


def amounts(events):
    return [event.args["amount"] for event in events]


async def test_events_come_once_and_in_order(w3):
    """A reader gets everything from its first block, then only what is new."""
    ledger = await make_ledger(w3)
    await ledger.mint(1, 2, 3)
    reader = EventReader(w3, ledger.contract, 0)
    events = await reader.read_all()
    assert amounts(events) == [1, 2, 3]
    assert {event.name for event in events} == {"Transfer"}
    assert len({event.key for event in events}) == 3
    assert await reader.read_all() == []
    await ledger.mint(4)
    assert amounts(await reader.read()) == [4]


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
async def test_small_ranges_skip_nothing(w3, chunk):
    """However the blocks are cut into ranges, the events are the same."""
    ledger = await make_ledger(w3)
    await ledger.mint(*range(1, 8))
    reader = EventReader(w3, ledger.contract, 0, chunk_blocks=chunk)
    assert amounts(await reader.read_all()) == list(range(1, 8))
    assert reader.next_block == await w3.eth.block_number + 1


@pytest.mark.safety("E06", "sequencer")
async def test_events_wait_for_their_confirmations(w3):
    """An event appears only below the confirmation depth."""
    ledger = await make_ledger(w3)
    reader = EventReader(w3, ledger.contract, 0, confirmations=2)
    await ledger.mint(1)
    assert await reader.read_all() == []
    await rpc(w3, "evm_mine")
    assert await reader.read_all() == []
    await rpc(w3, "evm_mine")
    assert amounts(await reader.read_all()) == [1]


async def test_a_reader_resumes_where_another_stopped(w3):
    """`next_block` is all that must be kept."""
    ledger = await make_ledger(w3)
    await ledger.mint(1, 2)
    first = EventReader(w3, ledger.contract, 0)
    await first.read_all()
    await ledger.mint(3)
    assert amounts(await EventReader(w3, ledger.contract, first.next_block).read_all()) == [3]


@pytest.mark.safety("E08", "sequencer")
async def test_failing_reads_skip_nothing(devnet, w3):
    """Lost answers, resets and errors delay events; none is skipped or doubled."""
    ledger = await make_ledger(w3)
    await ledger.mint(*range(1, 6))
    async with FaultyNode(devnet.url) as node, connect(node.url) as faulty:
        failures = 0

        async def fail_often(method, forward):
            nonlocal failures
            failures += 1
            return FaultyNode.LOSE if failures % 4 == 0 else None

        node.fault = fail_often
        reader = EventReader(faulty, ledger.seen_by(faulty), 0, chunk_blocks=2)
        assert amounts(await reader.read_all()) == [1, 2, 3, 4, 5]
        assert failures > 8


@pytest.mark.safety("E08", "sequencer")
async def test_a_node_behind_its_own_head_is_not_believed(devnet, w3):
    """A node that names a head whose blocks it does not have gives no events for them, and none is lost."""
    ledger = await make_ledger(w3)
    await ledger.mint(1)
    async with FaultyNode(devnet.url) as node, connect(node.url) as faulty:
        head = await w3.eth.block_number

        async def lie(method, forward):
            ahead = {"jsonrpc": "2.0", "id": 0, "result": hex(head + 5)}
            return ahead if method == "eth_blockNumber" else None

        node.fault = lie
        reader = EventReader(faulty, ledger.seen_by(faulty), head)
        with pytest.raises(Exception, match="not found"):
            await reader.read()
        assert reader.next_block == head
        node.fault = None
        assert amounts(await reader.read_all()) == [1]


async def test_a_range_that_the_node_finds_too_large_is_halved(devnet, w3):
    """A provider's limit on ranges costs requests, not events."""
    ledger = await make_ledger(w3)
    await ledger.mint(*range(1, 8))
    async with FaultyNode(devnet.url) as node, connect(node.url) as faulty:
        refused = 0

        async def limit(method, forward):
            nonlocal refused
            if method == "eth_getLogs" and refused < 3:
                refused += 1
                return {"jsonrpc": "2.0", "id": 0, "error": {"code": -32005, "message": "range too large"}}
            return None

        node.fault = limit
        reader = EventReader(faulty, ledger.seen_by(faulty), 0)
        assert amounts(await reader.read_all()) == list(range(1, 8))


@pytest.mark.anvil
@pytest.mark.safety("E06", "sequencer")
async def test_a_reorganisation_below_the_depth_is_noticed(anvil_url):
    """On a chain that reorganises deeper than the reader waited, it stops instead of going on."""
    async with connect(anvil_url) as w3:
        ledger = await make_ledger(w3)
        await ledger.mint(1)
        reader = EventReader(w3, ledger.contract, 0)
        assert amounts(await reader.read_all()) == [1]
        await rpc(w3, "anvil_reorg", 1, [])
        await rpc(w3, "evm_mine")
        with pytest.raises(ChainReorganised):
            await reader.read_all()
        careful = EventReader(w3, ledger.contract, 0, confirmations=1)
        assert amounts(await careful.read_all()) == []
