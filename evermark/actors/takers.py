"""Takers: repeat a tape's trades as immediate orders, thinned to the rate they are allowed."""

import asyncio
import time
from functools import partial

from evermark.actors.bank import make_bank
from evermark.actors.common import Actor, RateLimiter, chosen_markets, dev_signer, lots_for
from evermark.actors.config import TakersConfig
from evermark.actors.flow import Intent, MarketFlow, Sampler, choose_account, intent, open_flows
from evermark.client import EvermarkClient
from evermark.client.errors import EvermarkError
from evermark.protocol.markets import Market
from evermark.protocol.orders import TimeInForce
from evermark.protocol.units import MAX_PRICE_TICKS, PPM
from evermark.tapes.reader import Trade

LOOK_S = 0.25
ACCOUNTS_EVERY_S = 3.0


async def run_takers(config: TakersConfig) -> None:
    """Trade until SIGTERM, SIGINT or cancellation."""
    actor = Actor(config.name or "takers", config.status_path)
    signer = dev_signer(config.dev_account)
    clients = [
        EvermarkClient(config.url, signer, number, order_entry="websocket", rpc_url=config.rpc_url)
        for number in range(config.accounts)
    ]
    try:
        await actor.run(Takers(config, clients, actor).run)
    finally:
        await asyncio.gather(*(client.close() for client in clients))


class Takers:
    """Several sub-accounts that share one flow and one budget."""

    def __init__(self, config: TakersConfig, clients: list[EvermarkClient], actor: Actor) -> None:
        self._config, self._clients, self._actor = config, clients, actor
        self._limiter = RateLimiter(config.orders_per_s)
        self._sampler = Sampler(config.orders_per_s, config.seed)
        self._flows: tuple[MarketFlow, ...] = ()
        self._markets: dict[str, Market] = {}
        self._positions: list[dict[str, int]] = [{} for _ in clients]
        self._accounts_at = 0.0
        self._turn = 0
        self._counts = {"sent": 0, "filled": 0, "skipped": 0}

    async def run(self) -> None:
        """Get money, join the flow at the chain's present time, follow it."""
        first = self._clients[0]
        markets = await self._actor.until_done(lambda: chosen_markets(first, self._config.markets))
        self._markets = {market.symbol: market for market in markets}
        for client in self._clients:
            async with make_bank(client, self._config) as bank:
                await self._actor.until_done(partial(bank.ensure, self._config.deposit_usdc))
        status = await self._actor.until_done(first.status)
        # Skipping to the moment takes a second for a large tape: not on the event loop.
        self._flows = await asyncio.to_thread(open_flows, markets, self._config, int(status["chain_time"]))
        await self._actor.persist(self.step)

    async def step(self) -> None:
        """Everything that the flow did since the last look, thinned, as orders."""
        await asyncio.sleep(LOOK_S)
        await self._refresh()
        prices = (await self._clients[0].status())["markets"]
        now_us = self._clients[0].clock.now_ms() * 1000
        by_label = {f"{flow.market.symbol} {flow.label}": flow for flow in self._flows}
        happened = [(label, trade) for label, flow in by_label.items() for trade in flow.until(now_us)]
        for label, trade in self._sampler.keep(happened, time.monotonic()):
            flow = by_label[label]
            flow.sampled += 1
            price = prices[flow.market.symbol]
            if int(price["mark"] or 0) > 0 and self._limiter.try_take():
                await self._follow(flow.market, trade, int(price["mark"]))
            else:
                self._counts["skipped"] += 1
        self._show()

    async def _follow(self, market: Market, trade: Trade, mark: int) -> None:
        wanted = intent(market, trade, mark, self._config)
        limit = lots_for(market, self._config.max_position_usdc, mark)
        positions = [held.get(market.symbol, 0) for held in self._positions]
        number = choose_account(positions, wanted, limit, self._turn)
        self._turn += 1
        if number is None:
            self._counts["skipped"] += 1
            return
        try:
            await self._order(number, wanted, mark)
        except EvermarkError as error:
            self._actor.note(error)

    async def _order(self, number: int, wanted: Intent, mark: int) -> None:
        worst = mark * (PPM + wanted.side.sign * self._config.slippage_ppm) // PPM
        self._counts["sent"] += 1
        answer = await self._clients[number].place_limit(
            wanted.market.symbol,
            wanted.side,
            size_lots=wanted.lots,
            price_ticks=max(1, min(MAX_PRICE_TICKS, worst)),
            time_in_force=TimeInForce.IOC,
        )
        if answer.filled:
            self._counts["filled"] += 1
            held = self._positions[number]
            symbol = wanted.market.symbol
            held[symbol] = held.get(symbol, 0) + wanted.side.sign * answer.filled
            self._actor.status.acted(f"{symbol} {answer.side} {answer.filled} at {answer.average_price}")

    async def _refresh(self) -> None:
        if time.monotonic() - self._accounts_at < ACCOUNTS_EVERY_S:
            return
        for number, client in enumerate(self._clients):
            account = await client.account()
            self._positions[number] = {position.market: position.size for position in account.positions}
        self._accounts_at = time.monotonic()

    def _show(self) -> None:
        self._actor.status.facts |= self._counts | {
            "flow": {f"{flow.market.symbol}": flow.label for flow in self._flows},
            "flow_seen": self._sampler.seen,
            "sampled_ppm": self._counts["sent"] * PPM // max(1, self._sampler.seen),
            "flow_ended": all(flow.ended for flow in self._flows),
        }
