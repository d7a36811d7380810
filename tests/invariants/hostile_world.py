"""A small exchange with honest traders and an attacker of several accounts, and batches that an honest sequencer might send.

One world is deployed a process; every run works on an anchored chain. Whatever anybody signs is kept, so that `hostile_rules` can
hold each settled batch against it, and so that the attacker can use it again.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import boa
from boa.contracts.vyper.vyper_contract import VyperContract
from builders import MARKETS, USDC, Builder, Exchange, Party, Refused, Row, send, signer
from hostile_forced import INBOX_CLOSE, LOTS
from hostile_ledger import INSURANCE_FUND, check_moment, check_nothing_falls, equity, look, maintenance
from hostile_rules import Signatures, judge
from msgspec.structs import replace

from evermark.protocol import batch as codec
from evermark.protocol.forced import hour_cap
from evermark.protocol.orders import Order, Side, TimeInForce, Trigger

# titanoboa prints the storage of a contract that reverts, and stumbles over some maps of maps doing so.
VyperContract.__repr__ = lambda self: "a contract"

# The fund may hold little of the third market, so that accounts are deleveraged there.
TRADED = (*MARKETS[:2], replace(MARKETS[2], fund_position_cap_lots=300))
PRICES = {0: 600_000, 1: 250_000, 2: 15_000}
HONEST = (1, 2, 3, 4)
HOSTILE = (11, 12, 13)
DEPOSITS = {1: 2_000_000, 2: 400_000, 3: 3_000, 4: 800, 11: 200_000, 12: 2_000, 13: 500}  # USDC
FUND = 50_000
FORCED_WORDS = (1 << 39) + 384  # of each market: what closes took of its hour
CLOSING_WORD = (1 << 39) + 520  # how far the last close is


@cache
def deployed(leveraged: bool = True, token: str = "TestUSDC") -> Exchange:
    """All traders with a deposit, an insurance fund, prices pinned; with `leveraged`, some of them deep in positions."""
    exchange = Exchange(markets=TRADED, token=token)
    exchange.round(PRICES)
    exchange.donate(FUND * USDC)
    for number, amount in DEPOSITS.items():
        exchange.deposit(number, amount * USDC)
    exchange.round()
    if leveraged:
        _open_positions(exchange)
    return exchange


def _open_positions(exchange: Exchange) -> None:
    """Four traders stand at about 95 % of the leverage that the markets allow, the richest against them."""
    by_key = {party.signer.address: party for party in exchange.parties.values()}
    rich = by_key[signer(1).address]
    for number, market, side in ((3, 0, Side.BUY), (4, 2, Side.SELL), (12, 1, Side.SELL), (13, 0, Side.BUY)):
        price = exchange.last[market].mark_ticks
        lot = price * TRADED[market].lot_tick_value
        size = DEPOSITS[number] * USDC * TRADED[market].max_leverage * 95 // 100 // lot
        batch = exchange.batch()
        batch.trade(rich, by_key[signer(number).address], side, size, price, market)
        batch.settle()


class World:
    """One run: the exchange, who is who, what was signed, and what happened so far."""

    def __init__(self, exchange: Exchange, seed: int) -> None:
        self.exchange = exchange.branch()
        self.random = random.Random(seed)
        self.signed = Signatures()
        self.resting: list[Row] = []  # everybody's orders in slots >= 1, ever
        self.settled: list[bytes] = []
        self.pending: list[tuple[int, Party | None]] = []  # inbox entries in their order: kind, whose
        self.counts: dict[str, int] = {}
        by_key = {party.signer.address: party for party in self.exchange.parties.values()}
        self.honest = [by_key[signer(number).address] for number in HONEST]
        self.hostile = [by_key[signer(number).address] for number in HOSTILE]
        self.now = look(self.exchange)

        self.poor = self.honest[2:] + self.hostile[1:]  # those who trade at the limit of their margin

    @property
    def parties(self) -> list[Party]:
        return self.honest + self.hostile

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # ------------------------------------------------------------------------------------------------------------ sending

    def try_settle(self, data: bytes, what: str, sender: Any = None) -> codec.Batch | None:
        """Sends calldata, as the sequencer unless told otherwise. What settles is judged; what is refused changed nothing."""
        try:
            send(self.exchange, data, sender=sender)
        except Refused as refusal:
            self.count(f"{what} refused: {str(refusal) or 'checked arithmetic or bounds'}")
            return None
        self.count(f"{what} settled")
        before, self.now = self.now, look(self.exchange)
        batch = judge(self.exchange, self.signed, before, self.now, data)
        self.settled.append(data)
        del self.pending[: len(batch.inbox)]
        return batch

    def observe(self) -> None:
        """After anything but a batch: the invariants of the moment, and nothing fell."""
        before, self.now = self.now, look(self.exchange)
        check_moment(self.exchange, self.now)
        check_nothing_falls(before, self.now)

    # ------------------------------------------------------------------------------------------------------------ signing

    def order(
        self, batch: Builder, party: Party, side: Side, size: int, price: int, market: int, **more: Any
    ) -> Row:
        """A signed order, put into the batch and into everybody's memory."""
        row = batch.order(party, side, size, price, market=market, **more)
        self.signed.add(row.account, row.order)
        if row.order.slot:
            self.resting.append(row)
        return row

    def remember(self, account: int, order: Order) -> None:
        self.signed.add(account, order)

    # -------------------------------------------------------------------------------------------------- an honest sequencer

    def honest_batch(self) -> Builder:
        """Lawful work of every section, as far as the state of the moment offers it."""
        pick = self.random
        batch = self.exchange.batch()
        self.inbox_entries(batch, pick.randint(0, len(self.pending)))
        targets = self.liquidations(batch) if pick.random() < 0.8 else set()
        targets |= self.forced(batch, targets)
        for _ in range(pick.randint(0 if targets else 1, 3)):
            self.trade(batch, targets)
        if pick.random() < 0.3:
            self.fund_exit(batch, targets)
        for party in self.parties:
            flat = not any(account == party.account for account, _ in self.now.positions)
            if flat and self.now.accounts[party.account].collateral < 0 and pick.random() < 0.5:
                batch.write_off(party.account)
        if pick.random() < 0.2:
            party = pick.choice(self.parties)
            batch.cancel(party, slot=pick.randint(0, 3), sequence=self.exchange.sequence())
        if pick.random() < 0.1:
            agent = self.hostile[0].signer.address
            owner = pick.choice(self.honest)
            batch.approve(
                owner, agent, self.exchange.clock + pick.choice((0, 30, 900)), transfer_cap=25 * USDC
            )
        if pick.random() < 0.1:
            batch.transfer(pick.choice((self.honest[0], self.hostile[0])), pick.randint(1, 2), 11 * USDC)
        if pick.random() < 0.2:
            party = pick.choice(self.parties)
            batch.withdraw(party, pick.choice((1, 7 * USDC, 150 * USDC)), fee=pick.choice((0, 3, USDC)))
        return batch

    def inbox_entries(self, batch: Builder, count: int) -> None:
        """Names the accounts of the next entries of the queue."""
        for place, (kind, party) in enumerate(self.pending[:count]):
            if kind == INBOX_CLOSE and not (place == 0 and self.is_closed()):
                return  # it leaves after its fills
            batch.inbox(party.account if party else None)
            if party:
                batch.name(party.account)

    def is_closed(self) -> bool:
        """The close at the head of the inbox is done, or there is nothing to do."""
        party, market, long, left = self.asked(self.now.totals.inbox_head)
        held = self.now.held(party, market)
        return held == 0 or (held > 0) != long or min(left, self.hour_left(market)) <= 0

    def hour_left(self, market: int) -> int:
        """Lots that closes may still take in this hour."""
        word = self.exchange.vault.word(FORCED_WORDS + market)
        if word & 0xFFFFFFFF == self.exchange.clock // 3_600:
            return (word >> 96) - (word >> 32 & 2**64 - 1)
        interest = self.now.markets[market].open_interest
        return hour_cap(self.exchange.markets[market], interest, self.exchange.last[market].mark_ticks)

    def asked(self, entry_id: int) -> tuple[int, int, bool, int]:
        """Of a close: account, market, whether long, lots that are left."""
        entry, word = self.exchange.inbox.entry(entry_id), self.exchange.vault.word(CLOSING_WORD)
        done = word >> 64 & 2**64 - 1 if word & 2**64 - 1 == entry_id else 0
        account = self.exchange.vault.account_of(entry.owner, entry.sub_account)
        return account, entry.data & 0xFF, bool(entry.data >> 8 & 1), (entry.data >> 16 & LOTS) - done

    def forced(self, batch: Builder, targets: set[int]) -> set[int]:
        """A part of the close behind the entries that the batch consumes, against an opposite position. Returns both accounts."""
        place = len(batch.uses)
        if place >= len(self.pending) or self.pending[place][0] != INBOX_CLOSE:
            return set()
        account, market, _, left = self.asked(self.now.totals.inbox_head + place)
        held = self.now.held(account, market)
        others = [party.account for party in self.parties if self.now.held(party.account, market) * held < 0]
        if account in targets or not others:
            return set()
        other = self.random.choice(others)
        lots = min(abs(held), left, abs(self.now.held(other, market)), self.hour_left(market))
        lots = self.random.choice((lots, lots, lots // 3))
        if lots <= 0 or other in targets:
            return set()
        batch.force(account, market, other, lots)
        return {account, other}

    def trade(self, batch: Builder, targets: set[int]) -> None:
        """One fill of fresh or earlier orders near the mark, both sides anybody."""
        pick, exchange = self.random, self.exchange
        market = pick.randrange(len(TRADED))
        mark = exchange.last[market].mark_ticks
        free = [party for party in self.parties if party.account not in targets]
        if not free:
            return
        maker, taker = pick.choice(free), pick.choice(free)
        resting = self.earlier(batch, market, targets) if pick.random() < 0.4 else None
        if resting is None:
            side = pick.choice((Side.BUY, Side.SELL))
            price = mark + pick.randint(-mark // 1_000, mark // 1_000)
            size = self.size(maker, market)
            more = {"slot": pick.randint(1, 3), "amend": pick.random() < 0.1} | self.builder()
            triggered = pick.random() < 0.1
            if triggered:
                more |= {"trigger": Trigger.MARK_ABOVE, "trigger_price": mark + pick.choice((-1, 0, 0, 1))}
            resting = self.order(batch, maker, side, size + pick.randint(0, size), price, market, **more)
            batch.bits += [resting] if triggered else []
        order = resting.order
        left = order.size - self.signed.filled.get((resting.account, order.slot, order.sequence), 0)
        size = min(left, self.size(taker, market))
        held = self.now.held(taker.account, market)
        shrinks = held * order.side.opposite.sign < 0 and abs(held) >= size
        taking = self.order(
            batch,
            taker,
            order.side.opposite,
            size + pick.randint(0, size),
            order.limit_price - order.side.sign * pick.choice((0, 0, 40)),
            market,
            time_in_force=pick.choice((TimeInForce.IOC, TimeInForce.FOK)),
            reduce_only=shrinks and pick.random() < 0.5,
            max_fee_ppm=pick.choice((400, 1_000)),
            **self.builder(),
        )
        batch.fill(resting, taking, size)

    def builder(self) -> dict[str, Any]:
        """The fields of an order that a front end brought, now and then."""
        if self.random.random() < 0.7:
            return {}
        party = self.random.choice(self.parties)
        return {"builder": party.signer.address, "max_builder_fee_ppm": self.random.choice((1, 333, 1_000))}

    def earlier(self, batch: Builder, market: int, targets: set[int]) -> Row | None:
        """An order of an earlier batch that can still fill."""
        in_batch = {(row.account, row.order.slot) for row in batch.rows}
        for row in reversed(self.resting):
            order = row.order
            state = self.now.slots.get((row.account, order.slot), (0, 0))
            near = abs(order.limit_price - self.exchange.last[market].mark_ticks) * 30 < order.limit_price
            live = state[0] == order.sequence and state[1] < order.size
            known = (row.account, order.slot) not in in_batch and row.account not in targets
            if row.market == market and near and live and known and order.expiry >= self.exchange.clock:
                return batch.again(row)
        return None

    def size(self, party: Party, market: int) -> int:
        """Lots of a fill that the party can often afford."""
        room = equity(self.exchange, self.now, party.account) - 2 * maintenance(
            self.exchange, self.now, party.account
        )
        lot = self.exchange.last[market].mark_ticks * self.exchange.markets[market].lot_tick_value
        leverage = self.exchange.markets[market].max_leverage
        shares = (0.5, 0.9, 0.9) if party in self.poor else (0.02, 0.1, 0.5)
        lots = int(max(room, 0) * leverage // lot * self.random.choice(shares))
        return max(1, min(lots, 2_000_000))

    def liquidations(self, batch: Builder) -> set[int]:
        """Closes out who is below maintenance, on the book or by the fund. Returns the targets."""
        pick, targets = self.random, set()
        rich = self.honest[0]
        for party in self.parties[1:]:
            required = maintenance(self.exchange, self.now, party.account)
            held = equity(self.exchange, self.now, party.account)
            markets = [at for account, at in self.now.positions if account == party.account]
            if held >= required or not markets:
                continue
            market = pick.choice(markets)
            size = abs(self.now.held(party.account, market))
            keeper = pick.choice((None, rich.account))
            if 3 * held < 2 * required:
                self.below_two_thirds(batch, party.account, market, size, keeper)
            elif held >= 0:
                side = Side.BUY if self.now.held(party.account, market) > 0 else Side.SELL
                price = self.exchange.last[market].mark_ticks
                maker = self.order(batch, rich, side, size, price, market, slot=4)
                batch.liquidate(party.account, market, maker, size, keeper)
            targets.add(party.account)
        return targets

    def below_two_thirds(
        self, batch: Builder, account: int, market: int, size: int, keeper: int | None
    ) -> None:
        """The fund takes over what its cap admits; when it can take nothing, the rich trader is deleveraged."""
        sign = 1 if self.now.held(account, market) > 0 else -1
        room = self.exchange.markets[market].fund_position_cap_lots - sign * self.now.held(
            INSURANCE_FUND, market
        )
        rich = self.honest[0].account
        if room > 0:
            batch.take_over(account, market, min(size, room), keeper)
        elif self.now.held(rich, market) * sign < 0 and not any(row.account == rich for row in batch.rows):
            batch.deleverage(account, market, rich, min(size, abs(self.now.held(rich, market))))

    def fund_exit(self, batch: Builder, targets: set[int]) -> None:
        """An order of a rich trader against what the fund holds."""
        taker = self.honest[1]
        for market in range(len(TRADED)):
            held = self.now.held(1, market)
            if held and taker.account not in targets:
                side = Side.BUY if held > 0 else Side.SELL
                mark = self.exchange.last[market].mark_ticks
                size = self.random.randint(1, min(abs(held), 1_000_000))
                batch.fill_fund(self.order(batch, taker, side, size, mark, market), size)

    # ------------------------------------------------------------------------------------------------------------- the rest

    def move_prices(self) -> None:
        """A round with new prices: mostly by up to 1.5 %, now and then a jump that brings accounts below zero."""
        largest_ppm = self.random.choice((4_000, 15_000, 15_000, 45_000))
        marks = {
            number: max(
                1_000,
                price.mark_ticks + price.mark_ticks * self.random.randint(-1000, 1000) * largest_ppm // 10**9,
            )
            for number, price in enumerate(self.exchange.last)
        }
        self.exchange.round(marks)
        self.observe()

    def apply_funding(self) -> None:
        """Posts the hour that ended and applies it to all markets."""
        hour = self.exchange.clock // 3_600
        self.exchange.round(seconds=3_600 - self.exchange.clock % 3_600 + 10)
        rates = {
            at: self.random.choice((-1, 1)) * self.random.choice((5, 12_345, 9 * 10**6)) for at in range(3)
        }
        self.exchange.post_funding(hour, rates)
        self.observe()
        batch = self.exchange.batch()
        batch.hours, batch.markets = [hour], {0, 1, 2}
        assert self.try_settle(batch.data(), "funding hour") is not None, self.counts

    def deposit(self, party: Party, amount: int) -> None:
        """Queues a deposit."""
        address = self.exchange.fund_wallet(party.signer, amount)
        self.exchange.inbox.deposit(amount, party.sub_account, sender=address)
        self.pending.append((1, party))
        self.observe()

    def request_withdrawal(self, party: Party, amount: int) -> None:
        """Queues a forced withdrawal, unless one of the account is open."""
        address = "0x" + party.signer.address.hex()
        if not self.exchange.inbox.open_entry(address, party.sub_account, 3):
            self.exchange.inbox.request_withdrawal(party.sub_account, amount, sender=address)
            self.pending.append((3, party))
            self.observe()

    def request_close(self, party: Party) -> None:
        """Asks that some position of the account be closed, unless a close of it is open."""
        address = "0x" + party.signer.address.hex()
        markets = [market for account, market in self.now.positions if account == party.account]
        if markets and not self.exchange.inbox.open_entry(address, party.sub_account, INBOX_CLOSE):
            lots = self.random.choice((LOTS, self.random.randint(1, 900)))
            market = self.random.choice(markets)
            self.exchange.inbox.request_close(party.sub_account, market, lots, sender=address)
            self.pending.append((INBOX_CLOSE, party))
            self.observe()

    def pay(self) -> None:
        """Pays some claim that is open; one that an outflow limit holds back is refused until it is due, and no longer."""
        unpaid = [claim for claim, (_, amount) in self.now.claims.items() if amount]
        if not unpaid:
            return
        claim = self.random.choice(unpaid)
        due = self.exchange.vault.claim(claim).due
        if due > boa.env.timestamp:
            with boa.reverts(f"vault: payable at {due}"):
                self.exchange.vault.pay(claim)
        else:
            self.exchange.vault.pay(claim)
        self.observe()


def anchored() -> Any:
    """A context in which everything that happens to the chain is undone at its end."""
    return boa.env.anchor()
