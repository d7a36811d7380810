"""Everybody who is not the sequencer: traders with their wallets, keepers, the governor."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any

from msgspec.structs import replace
from sequencer_world import PRICES, ROUND_SECONDS, World, key

from evermark.protocol.governance import (
    AnyChange,
    DelistMarket,
    ListMarket,
    PauseMarket,
    SettleMarket,
    TuneMarket,
    tiers_of,
)
from evermark.protocol.oracle import SignedFundingReport, SignedPriceReport
from evermark.protocol.orders import Side, TimeInForce, Transfer
from evermark.protocol.signing import Signer, digest
from sequencer.engine.commands import (
    AnyCommand,
    HaltAccount,
    InboxEntryKind,
    TransferRequest,
    TriggerLiquidation,
)
from tests.simulation.contracts import enter, request_close
from tests.simulation.node import SimulatedChain
from tests.simulation.process import Process

FIRST_TRADERS, TRADERS = 6, 9  # who comes at the beginning, and altogether
BIAS = 0.6  # share of orders that follow a trader's belief: positions build up and are liquidated
GAP = 0.005  # chance that a market jumps by four per cent
MOODS = (
    1_000,
    400,
    150,
)  # a market moves at most the 1,000th, 400th or 150th part of its price between two rounds
GOVERNED = 0.5  # share of runs in which the governor and the guardian do something
LOOK_AWAY_S = 30.0  # between two orders of a trader while nothing trades

Submit = Callable[[AnyCommand], Awaitable[None]]


class People:
    """`actors()` are their coroutines; those that have to go on when the others stop come first."""

    def __init__(
        self,
        rng: Random,
        world: World,
        chain: SimulatedChain,
        now_s: Callable[[], int],
        process: Callable[[], Process | None],
        submit: Submit,
    ) -> None:
        self._rng, self._world, self._chain, self._now_s = rng, world, chain, now_s
        self._process, self._submit = process, submit
        self._mood = rng.choice(MOODS)
        self._prices = [list(pair) for pair in PRICES]
        self._traders = [key(11 + number) for number in range(TRADERS)]
        self._actions = Counter[bytes]()
        self.governed = 0

    def staying(self) -> list[Coroutine[Any, Any, None]]:
        """Without whom nothing comes to rest."""
        chain = self._chain
        hostile = chain.strangers(self._reports), chain.other_funding(self._other_hour)
        return [*hostile, self._keepers(), self._funding()]

    def going(self) -> list[Coroutine[Any, Any, None]]:
        """Who stops when the faults end."""
        actors = [
            self._depositors(),
            self._liquidator(),
            self._at_the_inbox(),
            self._governor(),
            self._operator(),
        ]
        return actors + [self._trader(trader) for trader in self._traders]

    # ------------------------------------------------------------------------------------------------------- keepers

    async def _keepers(self) -> None:
        """A report of each keeper for each round; some are lost, some come twice."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            for pair in self._prices:
                pair[0] += self._rng.randint(-pair[0] // self._mood, pair[0] // self._mood)
                if self._rng.random() < GAP:
                    pair[0] += self._rng.choice((-1, 1)) * pair[0] // 25
                pair[1] = pair[0] + self._rng.randint(-20, 20)
            process = self._process()
            for signed in self._reports() * self._rng.choice((1, 1, 1, 2)):
                if process is not None and not self._chain.happens(0.03):
                    process.reports.add_price(signed)

    def _reports(self) -> tuple[SignedPriceReport, ...]:
        """Of the markets that the exchange tells of; of those that the chain has while it is away."""
        return self._world.price_reports(
            [(index, mark) for index, mark in self._prices[: self._listed()]], self._now_s()
        )

    def _listed(self) -> int:
        process = self._process()
        return process.reports.markets if process is not None else len(self._chain.final.vault.markets)

    async def _funding(self) -> None:
        """The hour's rates, again and again until they are applied."""
        while True:
            await asyncio.sleep(5)
            hour, process = self._now_s() // 3600 - 1, self._process()
            if process is not None and process.reports.last_hour < hour:
                for signed in self._hour(hour):
                    process.reports.add_funding(signed)

    def _hour(self, hour: int) -> tuple[SignedFundingReport, ...]:
        rates = [self._rng.randint(-90_000, 90_000) for _ in range(self._listed())]
        return self._world.funding_reports(hour, rates)

    def _other_hour(self, hour: int, hidden: bool) -> tuple[SignedFundingReport, ...]:
        """Reports that the keepers signed too. What is hidden on the chain came to the sequencer; none where it is away."""
        process, reports = self._process(), self._hour(hour)
        if not hidden:
            return reports
        if process is None:
            return ()
        for signed in reports:
            process.reports.add_funding(signed)
        known = process.reports.funding_reports(hour)
        return reports if all(one in known for one in reports) else ()

    async def _liquidator(self) -> None:
        """Points at every account, as keepers do that saw old prices; the engine decides."""
        while True:
            await asyncio.sleep(self._rng.uniform(1, 5))
            process = self._process()
            if process is None:
                continue
            account = 3 + self._rng.randrange(TRADERS)
            market = self._rng.randrange(len(process.state.markets))
            keeper = self._world.keepers[0].address
            await self._submit(TriggerLiquidation(account=account, market_id=market, keeper=keeper))

    # ------------------------------------------------------------------------------------------------------ the inbox

    async def _depositors(self) -> None:
        """Everybody comes with money, some late; somebody donates to the fund; some come again."""
        rng, send = self._rng, self._chain.send
        donor = self._traders[0].address
        send(lambda ledger, time: enter(ledger, time, InboxEntryKind.DONATION, donor, 50_000 * 10**6))
        late = list(self._traders[FIRST_TRADERS:])
        for number, trader in enumerate(self._traders[:FIRST_TRADERS]):
            await asyncio.sleep(rng.uniform(0, 3))
            self._deposit(trader, (2_000 + 9_000 * number) * 10**6)
        while True:
            await asyncio.sleep(rng.expovariate(1 / 60))
            if late and rng.random() < 0.4:
                self._deposit(late.pop(0), rng.randint(10**9, 20 * 10**9))
            elif rng.random() < 0.5:
                self._deposit(rng.choice(self._traders[:FIRST_TRADERS]), rng.randint(10**7, 10**9))
            else:
                owner, amount = rng.choice(self._traders).address, rng.randint(10**7, 10**9)
                self._withdraw(owner, amount)

    def _deposit(self, trader: Signer, amount: int) -> None:
        kind = InboxEntryKind.DEPOSIT
        self._chain.send(lambda ledger, time: enter(ledger, time, kind, trader.address, amount))

    def _withdraw(self, owner: bytes, amount: int) -> None:
        kind = InboxEntryKind.WITHDRAWAL
        self._chain.send(lambda ledger, time: enter(ledger, time, kind, owner, amount))

    async def _at_the_inbox(self) -> None:
        """Closes, cancels, and liquidations that a keeper asks for."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / 40))
            rng, owner = self._rng, self._rng.choice(self._traders).address
            pick, sequence = rng.random(), (self._now_s() - rng.randint(0, 60)) * 1000
            if pick < 0.6:
                market = rng.randrange(len(self._prices))
                lots = rng.choice((2**60, rng.randint(1, 100_000)))
                self._chain.send(
                    lambda ledger, time, owner=owner, market=market, lots=lots: request_close(
                        ledger, time, owner, market, lots
                    )
                )
            elif pick < 0.8:
                target, keeper = 3 + rng.randrange(TRADERS), self._world.keepers[0].address
                self._chain.send(
                    lambda ledger, time, target=target, keeper=keeper: enter(
                        ledger, time, InboxEntryKind.LIQUIDATE, keeper, target=target
                    )
                )
            else:
                slot = rng.choice((0, rng.randint(1, 9), 0xFFFF))
                self._chain.send(
                    lambda ledger, time, owner=owner, slot=slot, sequence=sequence: enter(
                        ledger, time, InboxEntryKind.CANCEL, owner, slot=slot, order_sequence=sequence
                    )
                )

    async def _operator(self) -> None:
        """Lets halted accounts go, too early or not."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / 90))
            process = self._process()
            for account in sorted(process.state.halted) if process is not None else ():
                reason = f"let go at {self._now_s()}"
                await self._submit(HaltAccount(account=account, halted=False, reason=reason))

    # ------------------------------------------------------------------------------------------------- the governor

    async def _governor(self) -> None:
        """In some runs: lists a market, tunes and pauses others, and ends one, whose positions are settled in cash."""
        rng = self._rng
        if rng.random() > GOVERNED:
            return
        listed = 0
        delisted: set[int] = set()
        while True:
            await asyncio.sleep(rng.expovariate(1 / 60))
            pick, markets = rng.random(), self._chain.final.vault.markets
            if pick < 0.3 and listed < 2:
                listed += 1
                self._list(listed)
            elif pick < 0.5:
                market = rng.choice(self._world.markets)
                self._change(TuneMarket(replace(market, taker_fee_ppm=rng.randint(0, 1_000))))
            elif pick < 0.8:
                until = self._now_s() + rng.randint(5, 60)
                self._change(
                    PauseMarket(rng.randrange(len(markets)), rng.randint(0, 4), until), guardian=True
                )
            elif not delisted:
                ending = rng.randrange(1, len(markets))
                delisted.add(ending)
                self._change(DelistMarket(ending))
                await asyncio.sleep(rng.uniform(5, 60))
                if self._chain.head.mark(ending):
                    self._change(SettleMarket(ending, self._chain.head.mark(ending)))

    def _list(self, number: int) -> None:
        like = self._world.markets[3]
        market = replace(
            like, symbol=f"NEW{number}-PERP", base=f"NEW{number}", tiers=tiers_of([(0, 100_000)])
        )
        self._prices.append([300_000 + 1_000 * number, 300_000])
        self._change(ListMarket(market))

    def _change(self, change: AnyChange, *, guardian: bool = False) -> None:
        kind = InboxEntryKind.GUARDIAN if guardian else InboxEntryKind.GOVERNOR
        self.governed += 1
        self._chain.send(lambda ledger, time: enter(ledger, time, kind, bytes(20), change=change))

    # ------------------------------------------------------------------------------------------------------- traders

    async def _trader(self, trader: Signer) -> None:
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / 1.3))
            process = self._process()
            if process is None:
                continue
            account = process.state.account_ids.get((trader.address, 0))
            if account is not None:
                await self._submit(self._wish(trader, account, process))
                if process.state.unsettled_age_s > 120:
                    await asyncio.sleep(LOOK_AWAY_S)  # nothing trades: whoever looks comes back later

    def _wish(self, trader: Signer, account: int, process: Process) -> AnyCommand:
        rng, world = self._rng, self._world
        world.now_s = self._now_s()
        pick, side = rng.random(), rng.choice((Side.BUY, Side.SELL))
        if rng.random() < BIAS:  # half of the traders believe in rising prices, half in falling ones
            side = (Side.BUY, Side.SELL)[self._traders.index(trader) % 2]
        at = rng.randrange(min(len(process.state.markets), len(self._prices)))
        market, mark = process.state.markets[at].market, self._prices[at][1]
        size = max(1, rng.randint(20, rng.choice((12_000, 50_000))) * 10**6 // (mark * market.lot_tick_value))
        if pick < 0.08:
            return world.cancel(trader, account, rng.randint(1, 9))
        if pick < 0.12:
            return self._money(trader, account)
        if pick < 0.6:
            price = mark + rng.randint(-mark // 500, mark // 500)
            slot = rng.randint(1, 9)
            return world.sign_order(trader, account, side, size, price, market=market.symbol, slot=slot)
        price = mark + side.sign * mark // 100
        ioc = TimeInForce.IOC
        return world.sign_order(
            trader, account, side, size, price, market=market.symbol, slot=0, time_in_force=ioc
        )

    def _money(self, trader: Signer, account: int) -> AnyCommand:
        """A withdrawal, or a transfer to another sub-account, which may register it."""
        self._actions[trader.address] += 1
        number, amount = self._actions[trader.address], self._rng.randint(1, 10**9)
        if self._rng.random() < 0.7:
            return self._world.withdraw(trader, account, amount, number)
        transfer = Transfer(
            owner=trader.address,
            sub_account=0,
            to_sub_account=self._rng.randint(1, 2),
            amount=amount,
            action_sequence=number,
            deadline=self._world.now_s + 600,
        )
        signature = trader.sign(digest(self._world.vault_domain, transfer))
        return TransferRequest(account=account, transfer=transfer, signature=signature, signer=trader.address)
