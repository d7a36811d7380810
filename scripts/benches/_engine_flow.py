"""The seeded flow of the engine's benchmark: 20 markets, accounts with positions; 50 % of it place, 35 % cancel or
amend, 15 % cross. Beside each command stands the operation that it means for a bare book."""

import random
from itertools import count

import msgspec

from evermark.protocol.markets import Market, load_markets
from evermark.protocol.oracle import SignedPriceReport, pack_price
from evermark.protocol.orders import Cancel, Order, Side, Signature, TimeInForce
from evermark.protocol.signing import PriceReport
from sequencer.engine.apply import apply
from sequencer.engine.commands import (
    BatchConfirmed,
    CancelOrder,
    Genesis,
    InboxEntry,
    InboxEntryKind,
    OracleRound,
    PlaceOrder,
)
from sequencer.engine.state import EngineState

MARKETS, ACCOUNTS, SEED = 20, 10_000, 7
ROUND_S = 5
START_S = 1_800_000_000
MARK = 50_000
KEEPERS = tuple(bytes([n]) * 20 for n in (1, 2, 3))
SIGNATURE = Signature(1, 1, 0)

Operation = tuple[str, int, int, Side, int, int]  # verb, market, order id, side, size, price


class Flow:
    """Makes the commands, and remembers which orders it may cancel or amend."""

    def __init__(self, markets: tuple[Market, ...], accounts: int = ACCOUNTS) -> None:
        self.accounts = accounts
        self.random = random.Random(SEED)
        self.markets = markets
        self.sequences = count(START_S * 1000)
        self.slots = [1] * (accounts + 3)
        self.live: list[tuple[int, int, int, Side, int]] = []  # account, slot, market, side, order id
        self.operations: list[Operation] = []
        self.round = START_S // ROUND_S

    def genesis(self) -> Genesis:
        return Genesis(
            chain_id=1,
            vault=bytes(20),
            oracle=bytes(20),
            round_seconds=ROUND_S,
            oracle_quorum=3,
            funding_quorum=3,
            oracle_keepers=KEEPERS,
            funding_keepers=KEEPERS,
            markets=self.markets,
        )

    def deposit(self, number: int) -> InboxEntry:
        return InboxEntry(
            entry_id=number + 1,
            entry_kind=InboxEntryKind.DEPOSIT,
            owner=(number + 3).to_bytes(20, "big"),
            sub_account=0,
            amount=10**12,
        )

    def prices(self) -> OracleRound:
        self.round += 1
        marks = [MARK + self.random.randint(-20, 20) for _ in self.markets]
        prices = tuple(pack_price(mark, mark) for mark in marks)
        report = PriceReport(round=self.round, timestamp=self.round * ROUND_S, prices=prices)
        return OracleRound(reports=tuple(SignedPriceReport(report, keeper, SIGNATURE) for keeper in KEEPERS))

    def order(
        self, account: int, market: int, side: Side, size: int, price: int, slot: int, amend: bool = False
    ) -> PlaceOrder:
        sequence = next(self.sequences)
        signed = Order(
            owner=account.to_bytes(20, "big"),
            sub_account=0,
            market=self.markets[market].symbol,
            side=side,
            size=size,
            limit_price=price,
            max_fee_ppm=1_000,
            slot=slot,
            sequence=sequence,
            expiry=START_S + 10**6,
            time_in_force=TimeInForce.GTC if slot else TimeInForce.IOC,
            amend=amend,
        )
        return PlaceOrder(
            account=account,
            order=signed,
            order_hash=sequence.to_bytes(32, "big"),
            signature=SIGNATURE,
            signer=signed.owner,
        )

    def next(self) -> PlaceOrder | CancelOrder:
        pick = self.random.random()
        if pick < 0.35 and self.live:
            return self._end_one(pick < 0.20)
        return self._cross() if pick < 0.50 else self._place()

    def _place(self) -> PlaceOrder:
        account, market = 3 + self.random.randrange(self.accounts), self.random.randrange(MARKETS)
        side = Side(self.random.getrandbits(1))
        price = MARK - side.sign * self.random.randint(25, 400)
        size = self.random.randint(250, 900)
        self.slots[account] += 1
        command = self.order(account, market, side, size, price, self.slots[account])
        sequence = command.order.sequence
        self.live.append((account, command.order.slot, market, side, sequence))
        self.operations.append(("limit", market, sequence, side, size, price))
        return command

    def _cross(self) -> PlaceOrder:
        account, market = 3 + self.random.randrange(self.accounts), self.random.randrange(MARKETS)
        side = Side(self.random.getrandbits(1))
        size, price = self.random.randint(250, 1_500), MARK + side.sign * 300
        command = self.order(account, market, side, size, price, 0)
        self.operations.append(("ioc", market, command.order.sequence, side, size, price))
        return command

    def _end_one(self, cancels: bool) -> PlaceOrder | CancelOrder:
        at = self.random.randrange(len(self.live))
        account, slot, market, side, sequence = self.live[at]
        self.live[at] = self.live[-1]
        self.live.pop()
        self.operations.append(("cancel", market, sequence, side, 0, 0))
        if cancels:
            signed = Cancel(
                owner=account.to_bytes(20, "big"),
                sub_account=0,
                all_slots=False,
                slot=slot,
                sequence=sequence,
                deadline=START_S + 10**6,
            )
            return CancelOrder(account=account, cancel=signed, signature=SIGNATURE, signer=signed.owner)
        price, size = MARK - side.sign * self.random.randint(25, 400), self.random.randint(250, 900)
        command = self.order(account, market, side, size, price, slot, amend=True)
        new = command.order.sequence
        self.live.append((account, slot, market, side, new))
        self.operations.append(("limit", market, new, side, size, price))
        return command


class Journal:
    """Numbers and stamps commands, and confirms batches as they are sealed."""

    def __init__(self) -> None:
        self.state = EngineState()

    def apply(self, command: object) -> list[object]:
        return apply(self.state, command, self.state.sequence + 1, self.stamp_ms())

    def stamp_ms(self) -> int:
        """When the next command comes."""
        return max(self.state.stamp_ms, self.state.now * 1000, START_S * 1000)

    def confirm(self) -> None:
        if self.state.sealed_batch > self.state.confirmed_batch:
            self.apply(BatchConfirmed(batch_id=self.state.sealed_batch, block_number=1))


def make_markets() -> tuple[Market, ...]:
    plain = load_markets()[0]
    return tuple(
        msgspec.structs.replace(
            plain, market_id=n, symbol=f"M{n}-PERP", open_interest_cap_lots=10**12, max_price_age_s=10**6
        )
        for n in range(MARKETS)
    )


def prepare(flow: Flow, *, positions: bool = True) -> Journal:
    """An exchange in which every account has a deposit and, with `positions`, holds a position."""
    journal = Journal()
    journal.apply(flow.genesis())
    journal.apply(flow.prices())
    for number in range(flow.accounts):
        journal.apply(flow.deposit(number))
        journal.confirm()
    journal.apply(flow.prices())
    journal.confirm()
    for account in range(3, flow.accounts + 3, 2) if positions else ():
        market = flow.random.randrange(MARKETS)
        size = flow.random.randint(250, 1_000)
        journal.apply(flow.order(account, market, Side.SELL, size, MARK, 1))
        journal.apply(flow.order(account + 1, market, Side.BUY, size, MARK, 0))
        journal.confirm()
    held = sum(account.open_positions for account in journal.state.accounts.values())
    if positions and held != flow.accounts:
        raise SystemExit(f"bench: {held} positions instead of {flow.accounts}")
    return journal
