"""A market is listed while the exchange runs: proposed, executed after the timelock, traded, settled and audited."""

from pathlib import Path

import pytest
from msgspec.structs import replace
from real_exchange import GOVERNOR, GUARDIAN, RealExchange
from sequencer_world import PRICES
from test_settlement import registered

from evermark.chain import ExchangeContracts, TransactionSender
from evermark.chain.governor import GovernorContract
from evermark.chain.rpc import rpc
from evermark.devnet import dev_key
from evermark.protocol.governance import DELAY_S
from evermark.protocol.markets import Market, Tier
from evermark.protocol.orders import Side, TimeInForce

pytestmark = pytest.mark.timeout(180)

PEPE_TICKS = 12_000


async def pass_time(running: RealExchange, seconds: int) -> None:
    """The chain's clock jumps, and everybody notices."""
    await rpc(running.w3, "evm_increaseTime", seconds)
    await rpc(running.w3, "evm_mine")
    await running.clock.read()
    await running.post_round()


def thin(market: Market) -> Market:
    """A new market within the bounds of a listing."""
    return replace(
        market,
        symbol="PEPE-PERP",
        base="PEPE",
        size_decimals=0,
        price_decimals=6,
        lot_tick_value=1,
        tiers=(Tier(0, 100_000, 0),),
        open_interest_cap_lots=400_000_000,
        fund_position_cap_lots=40_000_000,
        max_order_lots=100_000_000,
    )


async def test_a_market_is_listed_and_paused_without_a_restart(tmp_path: Path) -> None:
    """The API names it once the entry is consumed, the first price opens it, its fills settle, and the audit covers it;
    a guardian's halt is shown and refused by its code."""
    async with RealExchange(tmp_path) as running:
        for trader in (0, 1):
            await running.deposit(trader, 10_000)
        await running.spawn()
        await running.post_round()
        await running.eventually(lambda: registered(running), "both accounts exist")
        governor = GovernorContract(running.w3, running.manifest)
        sender = TransactionSender(running.w3, dev_key(GOVERNOR))
        proposal = await governor.propose_market(sender, thin(running.manifest.markets[3]), PEPE_TICKS)
        await running.settled()
        await pass_time(running, DELAY_S + 60)
        await governor.execute(sender, proposal)

        async def listed() -> bool:
            await running.post_round()
            return len((await running.get("/v1/exchange"))["markets"]) == 5

        await running.eventually(listed, "the API names the new market")
        prices = [*PRICES[:4], (PEPE_TICKS, PEPE_TICKS)]
        await running.settled()
        await running.clock.sleep(3)
        await running.post_round(prices)
        status = await running.get("/v1/status")
        assert (status["markets"]["PEPE-PERP"]["mode"], status["markets"]["PEPE-PERP"]["mark"]) == (
            "normal",
            PEPE_TICKS,
        )
        maker, taker = running.traders[:2]
        sell = running.world.sign_order(maker, 3, Side.SELL, 5_000, PEPE_TICKS, market="PEPE-PERP")
        buy = running.world.sign_order(
            taker, 4, Side.BUY, 5_000, PEPE_TICKS, market="PEPE-PERP", slot=0, time_in_force=TimeInForce.IOC
        )
        assert (await running.place(sell))[0] == 200
        code, answer = await running.place(buy)
        assert (code, answer["filled"]) == (200, 5_000), answer
        await running.clock.sleep(3)
        await running.post_round(prices)
        await running.settled()
        contracts = ExchangeContracts(running.w3, running.manifest)
        sizes = {abs((await contracts.position(account, 4)).size) for account in (3, 4)}
        assert sizes == {5_000}
        await governor.pause(TransactionSender(running.w3, dev_key(GUARDIAN)), [4], 4, 3_600)

        async def halted() -> bool:
            await running.post_round(prices)
            return (await running.get("/v1/status"))["markets"]["PEPE-PERP"]["mode"] == "halted"

        await running.eventually(halted, "the market is halted")
        refused = running.world.sign_order(maker, 3, Side.SELL, 5_000, PEPE_TICKS, market="PEPE-PERP", slot=2)
        code, answer = await running.place(refused)
        assert answer["error"]["code"] == 500, answer
        await running.settled()
        assert await running.stop() == 0
        report = await running.verify()
        assert report.ok, report
