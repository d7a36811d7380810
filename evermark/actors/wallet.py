"""A person's way through the exchange, once: deposit, buy, sell, withdraw, and see the money arrive."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from evermark.actors.bank import Bank, make_bank
from evermark.actors.common import Actor, chosen_markets, dev_signer, lots_for
from evermark.actors.config import WalletConfig
from evermark.client import EvermarkClient
from evermark.client.errors import EvermarkError, Refused
from evermark.protocol.markets import Market
from evermark.protocol.orders import Side
from evermark.protocol.units import USDC

POLL_S = 0.5
TRIES = 60
LONGEST_HOLD_LOOK_S = 5.0  # wall time; a hold may end before what it says


class PayoutMissing(EvermarkError):
    """The withdrawal was accepted and the chain has not paid it in time."""


async def run_wallet(config: WalletConfig) -> None:
    """Ends by itself after the payout. Raises EvermarkError when a step does not work after many tries."""
    actor = Actor(config.name or "wallet", config.status_path)
    signer = dev_signer(config.dev_account)
    async with EvermarkClient(config.url, signer, rpc_url=config.rpc_url) as client:
        async with make_bank(client, config) as bank:
            await actor.run(Wallet(config, client, bank, actor).run)


class Wallet:
    """The steps; each is repeated while the exchange is not ready for it."""

    def __init__(self, config: WalletConfig, client: EvermarkClient, bank: Bank, actor: Actor) -> None:
        self._config, self._client, self._bank, self._actor = config, client, bank, actor

    async def run(self) -> None:
        """Deposit, buy, sell, withdraw, wait for the tokens."""
        await self._step("depositing", lambda: self._bank.ensure(self._config.deposit_usdc))
        markets = await self._actor.until_done(lambda: chosen_markets(self._client, self._config.markets))
        market = await self._priced(markets)
        await self._step("buying", lambda: self._trade(market, Side.BUY))
        await self._step("selling", lambda: self._close(market))
        before = await self._bank.tokens()
        paid = await self._withdraw()
        await self._wait_for(before + paid)
        self._actor.status.facts["step"] = "done"
        self._actor.status.acted(f"withdrew {paid} quote units, paid on-chain")

    async def _step(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._actor.status.facts["step"] = name
        await self._actor.until_done(work, TRIES)

    async def _priced(self, markets: Sequence[Market]) -> Market:
        """The first market with a fresh price, once there is one."""
        self._actor.status.facts["step"] = "waiting for a price"
        while True:
            prices = (await self._actor.until_done(self._client.status))["markets"]
            for market in markets:
                price = prices[market.symbol]
                if price["mark"] and int(price.get("price_age_s") or 0) <= market.max_price_age_s:
                    return market
            self._actor.status.looked()
            await asyncio.sleep(POLL_S)

    async def _trade(self, market: Market, side: Side) -> None:
        mark = int((await self._client.status())["markets"][market.symbol]["mark"])
        lots = lots_for(market, self._config.trade_usdc, mark)
        answer = await self._client.place_market(market.symbol, side, size_lots=lots)
        if not answer.filled:
            raise Refused(
                {"code": 0, "name": "NOT_FILLED", "message": f"{market.symbol}: nothing to trade with"}
            )
        self._actor.status.acted(f"{market.symbol} {answer.side} {answer.filled}")

    async def _close(self, market: Market) -> None:
        held = {position.market: position.size for position in await self._client.positions()}
        size = held.get(market.symbol, 0)
        if not size:
            return
        side = Side.SELL if size > 0 else Side.BUY
        await self._client.place_market(market.symbol, side, size_lots=abs(size), reduce_only=True)
        if any(position.market == market.symbol for position in await self._client.positions()):
            raise Refused({"code": 0, "name": "NOT_FILLED", "message": f"{market.symbol}: still open"})

    async def _withdraw(self) -> int:
        self._actor.status.facts["step"] = "withdrawing"
        units = self._config.withdraw_usdc * USDC
        while True:
            try:
                receipt = await self._client.withdraw(amount_units=units)
            except Refused as held:
                if held.name != "WITHDRAWALS_HELD":
                    raise
                self._actor.note(held)
                await asyncio.sleep(min(held.retry_after_s or POLL_S, LONGEST_HOLD_LOOK_S))
            else:
                return receipt.amount - receipt.fee

    async def _wait_for(self, tokens: int) -> None:
        self._actor.status.facts["step"] = "waiting for the payout"
        deadline = time.monotonic() + self._config.payout_timeout_s
        while await self._bank.tokens() < tokens:
            if time.monotonic() > deadline:
                raise PayoutMissing(
                    f"wallet: {tokens} quote units not there in {self._config.payout_timeout_s} s"
                )
            self._actor.status.looked()
            await asyncio.sleep(POLL_S)
