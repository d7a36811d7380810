"""Random batches, lawful and not: the vault and the reference model agree on what settles, and to the last unit on the result."""

import random
import sys
from pathlib import Path
from types import SimpleNamespace

import boa
import pytest
from boa.util.abi import Address
from builders import MARKETS, USDC, Builder, Exchange, Party, Refused, send, signer
from model_actions import some_actions, some_triggers
from msgspec import structs

from evermark.protocol.batch import FILL_DELEVERAGE, WriteOff
from evermark.protocol.orders import Side, TimeInForce

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reference"))
import vault_model as model
import vault_state as state
from model_liquidations import fund_exits, some_debts, some_liquidations

PRICES = {0: 600_000, 1: 250_000, 2: 15_000, 3: 30_000}


class Twin:
    """An exchange and the model of its vault, moved together."""

    def __init__(self, seed: int, poor: bool) -> None:
        self.random = random.Random(seed)
        self.poor = poor  # a fund that may take next to nothing
        listed = tuple(structs.replace(market, fund_position_cap_lots=2) for market in MARKETS)
        self.exchange = Exchange(listed if self.poor else MARKETS)
        markets = [
            state.Market(
                market.lot_tick_value,
                market.price_band_ppm,
                market.liquidation_fee_ppm,
                market.max_price_age_s,
                market.open_interest_cap_lots,
                market.fund_position_cap_lots,
                [
                    state.Tier(tier.lower_notional, tier.initial_fraction_ppm, tier.deduction)
                    for tier in market.tiers
                ],
            )
            for market in self.exchange.markets
        ]
        self.model = model.Vault(markets)
        self.marks = dict(PRICES)
        self.entries: list[SimpleNamespace] = []
        self.rates: dict[int, list[int]] = {}
        self.signers: dict[bytes, bytes] = {}  # of agents' signatures
        self.settled = self.refused = self.deleveraged = self.written_off = 0
        self.tried = self.late = self.late_settled = 0
        self.exchange.round(self.marks)
        self.resting: list = []

    def deposit(self, number: int, amount: int, batch: Builder) -> Party:
        """Queues a deposit and has `batch` consume it."""
        owner = signer(number)
        self.exchange.inbox.deposit(amount, 0, sender=self.exchange.fund_wallet(owner, amount))
        known = self.exchange.vault.account_of("0x" + owner.address.hex(), 0)
        account = known or self.exchange.vault.totals().accounts + 1
        batch.inbox(account)
        self.entries.append(
            SimpleNamespace(kind=1, amount=amount, account=account, owner=owner.address, sub_account=0)
        )
        party = Party(owner, account)
        self.exchange.parties[account] = party
        return party

    def request(self, party: Party, batch: Builder) -> None:
        """Queues a request of the account, of a kind that has none open, and has `batch` consume it."""
        pick, inbox = self.random, self.exchange.inbox
        sender, agent = Address(party.signer.address), signer(500 + pick.randint(0, 1)).address
        created, sequence = self.exchange.clock, self.exchange.sequence() - pick.randint(0, 2_000)
        slot, amount = pick.choice((0, 1, 2, 3, 65_535)), pick.choice((1, 40 * USDC, 10**13))
        kind = pick.choice((3, 5, 5, 6, 7))
        call, arguments = {
            3: (inbox.request_withdrawal, (0, amount)),
            5: (inbox.request_cancel, (0, slot, sequence)),
            6: (inbox.approve_agent, (0, Address(agent), created + 50, amount)),
            7: (inbox.revoke_agent, (0, Address(agent))),
        }[kind]
        call(*arguments, sender=sender)
        batch.inbox(party.account)
        self.entries.append(
            SimpleNamespace(
                kind=kind,
                account=party.account,
                amount=amount,
                slot=slot,
                sequence=sequence,
                agent=agent,
                expiry=created + 50,
                created=created,
            )
        )

    def settle(self, builder: Builder) -> bool:
        """Both settle, or both refuse; afterwards they are equal."""
        batch, data = builder.build(), builder.data()
        now, prices, newest = self.exchange.clock, self.prices(), None
        others = batch.inbox or batch.actions or batch.funding_hours or batch.triggers or batch.withdrawals
        only_orders = not others and all(fill.kind == 0 for fill in batch.fills)
        if batch.fills and not batch.inbox and self.tried % (2 if only_orders else 8) == 0:
            # Withheld until the prices have moved; what holds nothing but order fills may still settle.
            self.late += 1
            self.exchange.round(
                {0: self.exchange.last[0].mark_ticks * (998 + self.tried % 5) // 1_000}, seconds=130
            )
            newest = (self.exchange.clock, self.prices())
        self.tried += 1
        try:
            self.model.settle(batch, now, prices, self.entries, self.rates, self.signers, newest)
            expected = True
        except model.Refused as refusal:
            expected, why = False, refusal
        try:
            send(self.exchange, data)
            settled = True
        except Refused as refusal:
            settled, why = False, refusal
        assert settled == expected, why
        self.settled += settled
        self.late_settled += settled and newest is not None
        self.refused += not settled
        self.deleveraged += settled and sum(fill.kind == FILL_DELEVERAGE for fill in batch.fills)
        self.written_off += settled and sum(isinstance(action, WriteOff) for action in batch.actions)
        if settled:
            self.entries = []
        self.compare()
        return settled

    def prices(self) -> list[state.Price]:
        return [state.Price(p.index_ticks, p.mark_ticks, p.updated_at, p.clamped) for p in self.exchange.last]

    def compare(self) -> None:
        vault = self.exchange.vault
        totals = vault.totals()
        assert (totals.funding_pool, totals.dust, totals.credited) == (
            self.model.pool,
            self.model.dust,
            self.model.credited,
        )
        assert totals.claims == len(self.model.claims)
        for number, ((_, amount), due) in enumerate(zip(self.model.claims, self.model.dues, strict=True), 1):
            assert vault.claim(number)[1:] == (amount, due)
        for number, account in self.model.accounts.items():
            held = vault.account(number)
            assert held.collateral == account.collateral
            assert held.action_sequence == account.action_sequence
            assert held.min_sequence == account.min_sequence
            assert number <= 2 or held.taker_sequence == account.taker_sequence
            assert held.open_positions == len(account.open())
            for market, position in account.positions.items():
                expected = (position.size, position.entry_cumulative, position.entry_mark)
                assert tuple(vault.position(number, market)) == expected
            for slot, (sequence, filled) in account.slots.items():
                bit = account.triggered.get(slot) == sequence
                assert tuple(vault.slot(number, slot)) == (sequence, filled, bit)
        for (number, agent), word in self.model.agents.items():
            assert tuple(vault.agent(number, "0x" + agent.hex())) == word
        for (owner, sub_account), number in self.model.owners.items():
            assert vault.account_of("0x" + owner.hex(), sub_account) == number
        for number, market in enumerate(self.model.markets):
            assert tuple(vault.market_state(number)) == (
                market.cumulative,
                market.open_interest,
                market.last_hour,
            )
        self.model.check_conservation()


def some_trades(twin: Twin, batch: Builder, parties: list[Party]) -> None:
    """One to four fills between random parties at random prices around the mark; one batch in four has a mistake."""
    pick = twin.random
    mistake = (
        pick.choice(("band", "limit", "size", "reduce", "old", "margin")) if pick.random() < 0.25 else ""
    )
    for _ in range(pick.randint(1, 4)):
        maker, taker = pick.choice(parties[:2]), pick.choice(parties)
        if pick.random() < 0.2:
            maker = pick.choice(parties)
        market = pick.choice((0, 0, 0, 1, 3))
        held = twin.exchange.vault.position(taker.account, market).size
        mark = twin.exchange.last[market].mark_ticks
        side = pick.choice((Side.BUY, Side.SELL))
        size = trade_size(twin, taker, market, side, mistake == "margin")
        closing = held != 0 and pick.random() < 0.3
        if closing:
            side, size = (Side.SELL if held > 0 else Side.BUY), abs(held)
        price = mark + pick.randint(-mark // 2_000, mark // 2_000) + (mark // 15 if mistake == "band" else 0)
        resting = old_order(twin, batch, maker, market, mistake == "old")
        if resting is not None:
            side, price = resting.order.side.opposite, resting.order.limit_price
            left = resting.order.size - twin.exchange.vault.slot(maker.account, resting.order.slot).filled
            size, closing = max(1, min(size, left)), False
        else:
            spare = 0 if mistake == "size" else pick.randint(0, size)
            more = {"slot": pick.randint(1, 3), "market": market, "amend": pick.random() < 0.1}
            more |= built_by(parties, size)
            resting = batch.order(maker, side.opposite, size + spare, price, **more)
            twin.resting.append(resting)
        limit = price + side.sign * (-1 if mistake == "limit" else pick.choice((0, 5)))
        tif = pick.choice((TimeInForce.IOC, TimeInForce.FOK))
        reduce_only = (closing and pick.random() < 0.7) or mistake == "reduce"
        taking = batch.order(
            taker,
            side,
            size,
            limit,
            time_in_force=tif,
            market=market,
            reduce_only=reduce_only,
            **built_by(parties, size),
        )
        for part in ((size,), (size // 3, size - size // 3))[pick.randint(0, 1)]:
            if part:
                batch.fill(resting, taking, part + (mistake == "size"))


def built_by(parties: list[Party], size: int) -> dict:
    """One order in three has a builder, one of the traders."""
    if size % 3:
        return {}
    return {"builder": parties[size % len(parties)].signer.address, "max_builder_fee_ppm": size % 900}


def trade_size(twin: Twin, party: Party, market: int, side: Side, too_large: bool) -> int:
    """Lots that bring the taker's notional to up to about 30 times its equity, or far beyond."""
    margin = twin.exchange.margin(party.account)
    price = twin.exchange.last[market].mark_ticks * twin.exchange.markets[market].lot_tick_value
    leverage = twin.exchange.markets[market].max_leverage
    room = max(0, margin.equity - margin.initial) * leverage // price
    if too_large:
        return 2 * room + 10
    return max(1, min(int(room * twin.random.choice((0.02, 0.2, 0.6))), 1_000_000))


def old_order(twin: Twin, batch: Builder, maker: Party, market: int, any_order: bool):
    """Now and then an order of an earlier batch that may still fill, or one that may not."""
    if twin.random.random() > (0.9 if any_order else 0.3):
        return None
    for row in reversed(twin.resting):
        order, slot = row.order, twin.exchange.vault.slot(maker.account, row.order.slot)
        usable = (
            slot.sequence == order.sequence
            and slot.filled < order.size
            and order.expiry >= twin.exchange.clock
        )
        mine = row.account == maker.account and row.market == market
        near = abs(order.limit_price - twin.exchange.last[market].mark_ticks) * 30 < order.limit_price
        if (
            mine
            and near
            and (usable or any_order)
            and all(row.order is not other.order for other in batch.rows)
        ):
            return batch.again(row)
    return None


def move_time(twin: Twin) -> None:
    """A round with new prices; sometimes a funding hour, sometimes a market without a price."""
    pick = twin.random
    jump = (0.05 if twin.poor else 0.025) if pick.random() < (0.6 if twin.poor else 0.4) else 0.004
    twin.marks = {
        key: max(1_000, int(mark * (1 + pick.uniform(-jump, jump)))) for key, mark in twin.marks.items()
    }
    abstain = [pick.randint(0, 3)] if pick.random() < 0.1 else []
    seconds = pick.choice((10, 10, 70)) if abstain else 10
    twin.exchange.round(twin.marks, seconds=seconds, abstain=abstain)


def funding_hour(twin: Twin) -> list[int]:
    exchange, pick = twin.exchange, twin.random
    hour = exchange.clock // 3_600
    exchange.round(twin.marks, seconds=3_600 - exchange.clock % 3_600 + 10)
    rates = {
        market: pick.choice((-1, 1)) * pick.choice((3, 12_345, 4_000_000, 90_000_000)) for market in range(4)
    }
    exchange.post_funding(hour, rates)
    twin.rates[hour] = [rates[market] for market in range(4)]
    return [hour]


def play(seed: int, poor: bool = False) -> Twin:
    """60 rounds of trades, funding, liquidations, withdrawals on vault and model."""
    with boa.env.anchor():
        twin = Twin(seed, poor)
        pick = twin.random
        opening = twin.exchange.batch()
        twin.exchange.inbox.donate(
            20_000 * USDC, sender=twin.exchange.fund_wallet(signer(999), 20_000 * USDC)
        )
        opening.inbox(None)
        twin.entries.append(SimpleNamespace(kind=2, amount=20_000 * USDC, account=None))
        assert twin.settle(opening)
        parties = []
        poor_ones = (900, 800, 700) if poor else ()
        for number, amount in enumerate((5_000_000, 500_000, 4_000, 2_000, 1_000, 600, *poor_ones)):
            batch = twin.exchange.batch()
            parties.append(twin.deposit(number, amount * USDC, batch))
            assert twin.settle(batch)
        for _ in range(60):
            move_time(twin)
            hours = funding_hour(twin) if pick.random() < 0.15 else []
            batch = twin.exchange.batch()
            batch.hours = hours
            if hours:
                batch.markets = {0, 1, 2, 3}
            some_debts(twin, batch, parties)
            if not batch.fills:
                some_liquidations(twin, batch, parties)
            if not batch.fills:
                pick.choice((some_trades, some_trades, fund_exits))(twin, batch, parties)
            waiting = twin.entries and [entry.account for entry in twin.entries]
            for account in waiting or []:
                batch.inbox(account)  # of a batch that was refused
            if not waiting and pick.random() < 0.25:
                twin.request(pick.choice(parties), batch)
            some_actions(twin, batch, parties)
            if not poor:
                some_triggers(twin, batch, parties)
            twin.settle(batch)
        twin.exchange.check_invariants()
    return twin


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.safety("C02", "contract")
@pytest.mark.safety("B26", "contract")
@pytest.mark.safety("B16", "contract")
def test_vault_and_model_agree_on_random_batches(seed: int) -> None:
    """Equal verdicts, equal states, conserved money."""
    twin = play(seed)
    assert twin.settled > 20
    assert twin.refused > 3
    assert twin.late > twin.late_settled > 0


@pytest.mark.safety("C02", "contract")
@pytest.mark.safety("B20", "contract")
def test_vault_and_model_agree_on_random_deleveraging() -> None:
    """The same where the fund may hold two lots a market: what else falls below two thirds is deleveraged."""
    twins = [play(seed, poor=True) for seed in (3, 5)]
    assert sum(twin.deleveraged for twin in twins) >= 3
    assert sum(twin.written_off for twin in twins) >= 1
