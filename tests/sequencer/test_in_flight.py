"""What was sent and given up: nothing is reversed while it may still be mined, for the vault takes fills up to an hour late."""

import asyncio
from pathlib import Path

import pytest
from hexbytes import HexBytes
from sequencer_world import World
from settling_house import ChainModel, House
from test_reversal import commands, executed, stranger
from web3.exceptions import TransactionNotFound

from evermark.chain import Roles, TransactionSender, deploy
from evermark.chain.rpc import connect, rpc
from evermark.devnet import Devnet, DevnetConfig, dev_key
from evermark.protocol.batch import encode_batch
from evermark.protocol.signing import Signer
from sequencer.engine.commands import InboxEntry
from sequencer.settlement.chain import ExchangeChain
from sequencer.settlement.errors import Unreachable


async def gave_up(house: House) -> None:
    """Batches wait, and the window of the first one is over."""
    await house.fund_and_trade(2)
    house.world.now_s += 200
    await house.core.pipeline.submit(house.world.round())
    house.chain.refusal = "vault: round too old"


@pytest.mark.safety("E07", "sequencer")
async def test_a_reversal_waits_until_nothing_can_be_mined_any_more(tmp_path: Path) -> None:
    """What was outbid must be deep enough; then, and not before, the batch is void."""
    world = World()
    async with House(tmp_path, world, ChainModel(len(world.markets))) as house:
        await gave_up(house)
        house.chain.clearings = 3
        for _ in range(2):
            with pytest.raises(Unreachable, match="can not be mined any more"):
                await house.line.step()
            assert house.core.backlog.reversals == 0
        assert await house.line.step()
        assert house.core.backlog.reversals == 1
        assert house.chain.settled == []


@pytest.mark.safety("E07", "sequencer")
async def test_a_batch_that_is_mined_after_all_is_not_reversed(tmp_path: Path) -> None:
    """It was in flight when it was given up. The vault has it, so it is confirmed like any other, and its fills stand."""
    world = World()
    async with House(tmp_path, world, ChainModel(len(world.markets))) as house:
        await gave_up(house)
        sealed = house.core.backlog.sealed(1)
        assert sealed is not None
        house.chain.mined_after_all = encode_batch(sealed.batch)
        with pytest.raises(Unreachable, match="batch 1 was mined after all"):
            await house.line.step()
        house.chain.refusal = ""
        await house.settle_all()
        assert house.all_confirmed()
        assert house.core.backlog.reversals == 0


async def test_a_strangers_batch_is_followed_with_nothing_of_ours_behind_it(tmp_path: Path) -> None:
    """One sent behind the batch whose id the stranger took would settle behind the stranger's."""
    world = World()
    async with House(tmp_path, world, ChainModel(len(world.markets))) as house:
        await house.fund_and_trade(2)
        entries = [command for command in commands(house.core) if isinstance(command, InboxEntry)]
        executed(house.chain, stranger(world, 1, entries, (3, 4)))
        house.chain.clearings = 2
        with pytest.raises(Unreachable, match="can not be mined any more"):
            await house.line.step()
        assert house.core.backlog.reversals == 0
        assert await house.line.step()
        assert (house.core.backlog.reversals, house.core.state.confirmed_batch) == (1, 1)


@pytest.mark.safety("E07", "sequencer")
async def test_a_batch_held_in_the_pool_is_outbid_before_it_is_void(tmp_path: Path) -> None:
    """A process died with a batch in a node's pool. The next one replaces it, and says so only when that is deep enough. A batch
    that it sends itself has to be looked at anew."""
    devnet = Devnet(DevnetConfig(port=0))
    await devnet.start()
    try:
        address = {index: "0x" + Signer(dev_key(index)).address.hex() for index in range(10)}
        keepers = (address[2], address[3], address[4])
        roles = Roles(
            sequencer=address[1],
            oracle_keepers=keepers,
            funding_keepers=keepers,
            governor=address[8],
            guardian=address[9],
        )
        manifest = await deploy(devnet.url, dev_key(0), roles, tmp_path / "manifest.json")
        assert devnet._methods is not None
        devnet._methods._instant = False  # from here on blocks come when the test says so
        async with connect(devnet.url) as w3:
            dead = ExchangeChain(w3, manifest, TransactionSender(w3, dev_key(1)), 2)
            held = await dead.start_settle(b"\1" * 90)
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)
            pool = devnet._methods.evm.pool
            (doomed,) = (transaction.hash for transaction in pool.values())

            sender = TransactionSender(w3, dev_key(1), receipt_timeout_s=0.2)
            chain = ExchangeChain(w3, manifest, sender, 2)
            clearing = asyncio.ensure_future(chain.nothing_in_flight())
            while not clearing.done():  # a block once the batch is replaced
                if any(transaction.hash != doomed for transaction in pool.values()):
                    await rpc(w3, "evm_mine")
                await asyncio.sleep(0.01)
            assert not await clearing, "outbid, but not deep enough"
            assert await w3.eth.get_transaction_count(sender.address) == 1
            await rpc(w3, "evm_mine")
            assert not await chain.nothing_in_flight()
            await rpc(w3, "evm_mine")
            assert await chain.nothing_in_flight()
            assert await w3.eth.get_transaction_count(sender.address) == 1
            with pytest.raises(TransactionNotFound):
                await w3.eth.get_transaction_receipt(HexBytes(doomed))

            sent = await chain.start_settle(b"\3" * 90)
            again = asyncio.ensure_future(chain.nothing_in_flight())
            while not again.done():
                await rpc(w3, "evm_mine")
                await asyncio.sleep(0.01)
            await again
            assert await w3.eth.get_transaction_count(sender.address) == 3
            with pytest.raises(Unreachable, match="batch id not next"):
                await sent
    finally:
        await devnet.stop()
