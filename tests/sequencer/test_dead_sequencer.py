"""Invariant 8: with the sequencer dead from whatever moment on, every owner gets out within the deadlines, by nothing but the
contracts. A sequencer that comes back in between follows what was done without it; to a frozen exchange it does not return."""

import asyncio
import random
from pathlib import Path

import pytest
from real_exchange import TRADERS, RealExchange, hexed

from evermark.chain import ExchangeContracts, TransactionSender
from evermark.chain.exit import ExitContracts
from evermark.chain.overdue import OverdueWork
from evermark.chain.rpc import rpc
from evermark.devnet import dev_key
from evermark.protocol.orders import Side
from evermark.protocol.units import USDC

HOUR_S, DAY_S = 3_600, 86_400
DEPOSIT = 100_000 * USDC
STRANGER = 9

pytestmark = pytest.mark.timeout(240)


class Aftermath:
    """What strangers and owners do to an exchange whose sequencer is gone."""

    def __init__(self, exchange: RealExchange) -> None:
        self.exchange, self.w3 = exchange, exchange.w3
        self.contracts = ExchangeContracts(exchange.w3, exchange.manifest)
        self.stranger = TransactionSender(exchange.w3, dev_key(STRANGER))
        self.owners = [TransactionSender(exchange.w3, dev_key(index)) for index in TRADERS[:2]]

    async def pass_time(self, seconds: int) -> None:
        await rpc(self.w3, "evm_increaseTime", seconds)
        await rpc(self.w3, "evm_mine")

    async def post_public_round(self) -> None:
        """The keepers' reports of this moment, posted by a stranger."""
        self.exchange.world.now_s = int((await self.w3.eth.get_block("latest"))["timestamp"])
        reports = self.exchange.world.price_reports(())
        data = self.contracts.post_round_calldata(reports, public=True)
        await self.stranger.send(self.contracts.oracle.address, data)

    async def wallet(self, owner: TransactionSender) -> int:
        return await self.contracts.tokens_of(owner.address)


async def trade_until_killed(exchange: RealExchange) -> None:
    """Trades, some settled and some not; then kill -9."""
    for trader in (0, 1):
        await exchange.deposit(trader, DEPOSIT // USDC)
    await exchange.spawn()
    await exchange.post_round()
    addresses = [hexed(trader.address) for trader in exchange.traders[:2]]

    async def registered() -> bool:
        answers = [await exchange.get(f"/v1/accounts/{address}/0") for address in addresses]
        return all("collateral" in answer for answer in answers)

    await exchange.eventually(registered, "both accounts exist")
    for slot in range(1, 4):
        await exchange.post_round()
        maker = exchange.world.sign_order(exchange.traders[0], 3, Side.BUY, 900, 1_100_000, slot=slot)
        taker = exchange.world.taker(exchange.traders[1], 4, Side.SELL, 900, 1_100_000)
        for command in (maker, taker):
            assert (await exchange.place(command))[0] == 200
        if slot == 1:
            await exchange.settled()
    await asyncio.sleep(
        random.random()
    )  # any moment: what settled by then differs, and nothing below depends on it
    await exchange.kill()


async def follow_the_stranger(exchange: RealExchange, taker: TransactionSender) -> None:
    """The sequencer comes back, takes back what can never settle, goes on behind the stranger's batch, and trades again."""
    await exchange.spawn()
    await exchange.post_round()

    async def followed() -> bool:
        return bool((await exchange.get("/v1/status"))["reversals"] == 1)

    await exchange.eventually(followed, "the reversal")
    status = await exchange.get("/v1/status")
    assert status["last_reversal"]["cause"] == "foreign_batch"
    assert status["settlement_alarm"] == ""
    maker = exchange.world.sign_order(exchange.traders[0], 3, Side.BUY, 900, 1_100_000, slot=7)
    taken = exchange.world.taker(exchange.traders[1], 4, Side.SELL, 900, 1_100_000)
    for command in (maker, taken):
        assert (await exchange.place(command))[0] == 200
    await exchange.settled()
    report = await exchange.verify()
    assert report.ok, report
    assert (report.foreign_batches, report.reversals) == (1, 1)
    number = await ExchangeContracts(exchange.w3, exchange.manifest).account_of(taker.address, 0)
    assert (await exchange.get(f"/v1/accounts/{taker.address}/0"))["account"] == number


@pytest.mark.safety("E11", "contract")
@pytest.mark.safety("F03", "contract")
async def test_everybody_gets_out_of_a_dead_exchange(tmp_path: Path) -> None:
    """First by overdue batches, while keepers still report; then, without them, by freeze and exit."""
    async with RealExchange(tmp_path, speed=2.0) as exchange:
        await trade_until_killed(exchange)
        after = Aftermath(exchange)
        door = await ExitContracts.open(after.w3, exchange.manifest.addresses["exit"])
        maker, taker = after.owners
        account = await after.contracts.account_of(taker.address, 0)
        assert (await after.contracts.position(account, 0)).size != 0

        await after.contracts.request_withdrawal(taker, 1_000 * USDC)
        await after.pass_time(HOUR_S + 1)
        await after.post_public_round()
        assert await OverdueWork(door).execute(after.stranger) == 1
        await door.pay(after.stranger, (await after.contracts.totals()).claims)
        assert await after.wallet(taker) == 1_000 * USDC

        await follow_the_stranger(exchange, taker)
        await exchange.kill()

        await after.contracts.request_withdrawal(maker, 1)
        await after.pass_time(HOUR_S + DAY_S + 1)
        await door.freeze(after.stranger)
        await door.push(after.stranger, 1_000)
        shares = []
        for owner in (taker, maker):
            number = await after.contracts.account_of(owner.address, 0)
            shares.append(await door.payout(number))
            before = await after.wallet(owner)
            await door.pay(owner, await door.take(owner, number))
            assert await after.wallet(owner) == before + shares[-1]
        fees = (await after.contracts.account(2)).collateral
        assert fees > 0
        assert sum(shares) + 1_000 * USDC + fees == 2 * DEPOSIT
        assert await after.contracts.tokens_of(after.contracts.vault.address) == fees

        with pytest.raises(AssertionError, match="the exchange is frozen"):
            await exchange.spawn()
        report = await exchange.verify()
        assert report.ok, report
