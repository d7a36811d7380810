"""The market maker: several levels on every market around the mark, moved by amending its slots."""

import asyncio
import time

import structlog

from evermark.actors.bank import make_bank
from evermark.actors.common import Actor, RateLimiter, chosen_markets, dev_signer
from evermark.actors.config import MakerConfig
from evermark.actors.quoting import Quote, quotes_to_move, wanted_quotes
from evermark.client import EvermarkClient
from evermark.client.errors import NotFound, Refused
from evermark.client.models import OrderStatus
from evermark.protocol.markets import Market
from evermark.protocol.orders import Order, Side, TimeInForce

LOOK_S = 0.4  # wall seconds between two looks at the prices
ACCOUNT_EVERY_S = 1.0
REBUILD_EVERY_S = 15.0  # what rests is read anew, in case an answer was lost
EXPIRY_S = 86_400
REST_S = 2.0  # a market that refused an order is left alone for so long
GONE = ("NOTHING_TO_AMEND", "UNKNOWN_ORDER", "ALREADY_FILLED")  # the slot is free

log = structlog.get_logger("maker")


async def run_maker(config: MakerConfig) -> None:
    """Make markets until told to stop; quotes are left resting, and the next start adopts them."""
    actor = Actor(config.name or "maker", config.status_path)
    signer = dev_signer(config.dev_account)
    async with EvermarkClient(config.url, signer, order_entry="websocket", rpc_url=config.rpc_url) as client:
        maker = Maker(config, client, actor)
        await actor.run(maker.run)


class Maker:
    """One account's quotes. `_live` is what it believes to rest; the exchange's refusals correct it."""

    def __init__(self, config: MakerConfig, client: EvermarkClient, actor: Actor) -> None:
        self._config, self._client, self._actor = config, client, actor
        self._limiter = RateLimiter(config.orders_per_s)
        self._markets: tuple[Market, ...] = ()
        self._live: dict[int, Quote] = {}
        self._orders: dict[int, OrderStatus] = {}  # the last answer of each slot
        self._positions: dict[str, int] = {}
        self._account_at = self._rebuilt_at = 0.0
        self._rest_until: dict[int, float] = {}
        self._sent = 0

    async def run(self) -> None:
        """Get money once, then quote for ever."""
        self._markets = await self._actor.until_done(
            lambda: chosen_markets(self._client, self._config.markets)
        )
        async with make_bank(self._client, self._config) as bank:
            await self._actor.until_done(lambda: bank.ensure(self._config.deposit_usdc))
        await self._actor.persist(self.step)

    async def step(self) -> None:
        """One look: prices, then as many moves as the budget allows, the dangerous ones first."""
        await asyncio.sleep(LOOK_S)
        await self._refresh()
        prices = (await self._client.status())["markets"]
        # Each look begins with another market, so that none starves when the budget is short.
        self._markets = (*self._markets[1:], *self._markets[:1])
        for market in self._markets:
            if self._rest_until.get(market.market_id, 0.0) > time.monotonic():
                continue
            try:
                await self._quote(market, prices[market.symbol])
            except Refused as refused:
                self._actor.note(refused)
                self._rest_until[market.market_id] = time.monotonic() + (refused.retry_after_s or REST_S)
        self._actor.status.facts |= {"quotes": len(self._live), "orders_sent": self._sent}

    async def _quote(self, market: Market, price: dict[str, int]) -> None:
        mine = {slot: quote for slot, quote in self._live.items() if quote.market_id == market.market_id}
        mark, age_s = int(price["mark"] or 0), int(price.get("price_age_s") or 0)
        fresh = mark > 0 and age_s <= market.max_price_age_s
        position = self._positions.get(market.symbol, 0)
        wanted = wanted_quotes(market, mark, position, self._config) if fresh else ()
        moves, ended = quotes_to_move(mine, wanted, self._config.requote_ppm)
        for slot in ended:
            await self._limiter.take()
            await self._cancel(slot)
        for quote in moves:
            if not self._limiter.try_take():
                return  # the next look decides with newer prices
            await self._put(market, quote)

    async def _put(self, market: Market, quote: Quote) -> None:
        standing = self._orders.get(quote.slot) if quote.slot in self._live else None
        filled = standing.filled if standing else 0
        order = Order(
            owner=self._client.owner,
            sub_account=self._client.sub_account,
            market=market.symbol,
            side=quote.side,
            size=filled + quote.size,
            limit_price=quote.price,
            max_fee_ppm=max(market.maker_fee_ppm, market.taker_fee_ppm, 0),
            slot=quote.slot,
            sequence=self._client.clock.next_sequence(standing.sequence if standing else 0),
            expiry=self._client.clock.now_s() + EXPIRY_S,
            time_in_force=TimeInForce.GTC,
            post_only=True,
            amend=standing is not None,
        )
        self._sent += 1
        try:
            self._took(quote, await self._client.place_order(order))
        except Refused as refused:
            self._corrected(quote, refused)

    def _took(self, quote: Quote, answer: OrderStatus) -> None:
        if not answer.is_open:
            self._forget(quote.slot)
            return
        self._orders[quote.slot] = answer
        self._live[quote.slot] = Quote(
            quote.slot, quote.market_id, quote.side, quote.level, answer.limit_price, answer.remaining
        )
        self._actor.status.acted(f"{answer.market} {answer.side} {answer.remaining} at {answer.limit_price}")

    def _corrected(self, quote: Quote, refused: Refused) -> None:
        """Learn from a refusal what the slot really holds; anything else is for the caller."""
        if refused.name in GONE:
            self._forget(quote.slot)
        elif refused.name in ("SLOT_OCCUPIED", "STALE_SEQUENCE"):
            self._rebuilt_at = 0.0  # read what rests before the next look
        # the book has moved past us: the next look has new prices
        elif refused.name != "POST_ONLY_WOULD_CROSS":
            raise refused

    async def _cancel(self, slot: int) -> None:
        order = self._orders.get(slot)
        self._forget(slot)
        if order is None:
            return
        try:
            await self._client.cancel(order)
        except (Refused, NotFound) as error:
            log.debug("already gone", slot=slot, reason=str(error))

    async def _refresh(self) -> None:
        """Position every second; what really rests after it has changed, and now and then anyway."""
        now = time.monotonic()
        if now - self._account_at > ACCOUNT_EVERY_S:
            account = await self._client.account()
            positions = {position.market: position.size for position in account.positions}
            if positions != self._positions:
                self._rebuilt_at = 0.0  # something was taken
            self._positions = positions
            self._actor.status.facts |= {"equity": str(account.equity), "positions": positions}
            self._account_at = now
        if now - self._rebuilt_at > REBUILD_EVERY_S:
            self._adopt(await self._client.open_orders())
            self._rebuilt_at = now

    def _adopt(self, resting: list[OrderStatus]) -> None:
        ids = {market.symbol: market.market_id for market in self._markets}
        known = [order for order in resting if order.market in ids]
        self._orders = {order.slot: order for order in known}
        self._live = {
            order.slot: Quote(
                order.slot,
                ids[order.market],
                Side[order.side.upper()],
                (order.slot - 1) % self._config.levels,
                order.limit_price,
                order.remaining,
            )
            for order in known
        }

    def _forget(self, slot: int) -> None:
        self._live.pop(slot, None)
        self._orders.pop(slot, None)
