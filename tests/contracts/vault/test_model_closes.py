"""Random closes by the inbox, lawful and not: vault and reference model agree on what settles, and to the last unit."""

import os
from types import SimpleNamespace
from typing import Any

import boa
import pytest
from boa.util.abi import Address
from builders import USDC, Party
from test_model import Twin, move_time, some_trades

from evermark.protocol.batch import FILL_FORCED, FILL_FORCED_ON_BOOK
from evermark.protocol.orders import Side

ALL = 2**62 - 1
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
GAMES, ROUNDS, ENOUGH = (20, 40, 40) if NIGHTLY else (3, 12, 1)


class Closing:
    """A twin on which owners ask for closes, one at a time."""

    def __init__(self, seed: int) -> None:
        self.twin = Twin(seed, poor=False)
        self.pick = self.twin.random
        self.parties: list[Party] = []
        self.done = {FILL_FORCED: 0, FILL_FORCED_ON_BOOK: 0}
        self.left = 0
        for number, amount in enumerate((2_000_000, 9_000, 4_000, 2_000)):
            batch = self.twin.exchange.batch()
            self.parties.append(self.twin.deposit(number, amount * USDC, batch))
            assert self.twin.settle(batch)

    def trade(self) -> None:
        batch = self.twin.exchange.batch()
        some_trades(self.twin, batch, self.parties)
        self.twin.settle(batch)

    def size(self, party: Party, market: int) -> int:
        return self.twin.exchange.vault.position(party.account, market).size

    def ask(self) -> None:
        """Some owner asks for a close, when none is asked for and there is a position."""
        inbox, model = self.twin.exchange.inbox, self.twin.model
        held = [(party, market) for party in self.parties for market in range(4) if self.size(party, market)]
        if model.head is not None or not held:
            return
        party, market = self.pick.choice(held)
        lots = self.pick.choice((ALL, ALL, max(1, abs(self.size(party, market)) // 3)))
        number = inbox.request_close(0, market, lots, sender=Address(party.signer.address))
        size = self.size(party, market)
        model.head = SimpleNamespace(
            id=number,
            kind=4,
            account=party.account,
            market=market,
            long=size > 0,
            lots=min(lots, abs(size)),
            mark=self.twin.exchange.last[market].mark_ticks,
        )

    def fill(self) -> None:
        """A batch of parts, against anybody and in any size, most of them lawful."""
        head, twin, pick = self.twin.model.head, self.twin, self.pick
        batch = twin.exchange.batch()
        account = head.account if pick.random() < 0.95 else pick.choice(self.parties).account
        size = twin.exchange.vault.position(account, head.market).size
        for _ in range(pick.randint(1, 3)):
            lots = pick.choice((abs(size), abs(size) // 2, 1, head.lots, head.lots // 3)) or 1
            if pick.random() < 0.35:
                self.on_book(batch, account, lots, size > 0)
                continue
            opposite = [party for party in self.parties if self.size(party, head.market) * size < 0]
            pool = opposite if opposite and pick.random() < 0.9 else self.parties
            other = pick.choice(pool)
            if pick.random() < 0.8:
                lots = min(lots, abs(self.size(other, head.market))) or 1
            batch.force(account, head.market, other.account, lots)
        kinds = [kind for kind, *_ in batch.fills]
        if twin.settle(batch):
            for kind in kinds:
                self.done[kind] += 1

    def on_book(self, batch: Any, account: int, lots: int, long: bool) -> None:
        market = self.twin.model.head.market
        mark = self.twin.exchange.last[market].mark_ticks
        price = mark - (1 if long else -1) * self.pick.randint(-20, mark // 150)
        side = Side.BUY if long else Side.SELL
        maker = batch.order(self.parties[0], side, lots, price, slot=9, market=market)
        batch.force_on_book(account, market, maker, lots)

    def leave(self) -> None:
        """The entry alone, whether it may leave or not."""
        twin = self.twin
        head, twin.model.head = twin.model.head, None
        batch = twin.exchange.batch()
        batch.inbox(head.account)
        twin.entries = [head]
        if twin.settle(batch):
            self.left += 1
        else:
            twin.entries, twin.model.head = [], head


def play(seed: int) -> Closing:
    """Rounds of trades, prices and closes."""
    with boa.env.anchor():
        game = Closing(seed)
        for _ in range(ROUNDS):
            move_time(game.twin)
            game.trade()
            game.ask()
            for _ in range(2):
                if game.twin.model.head is not None:
                    game.fill()
            if game.twin.model.head is not None:
                game.leave()
        game.twin.exchange.check_invariants()
    return game


@pytest.mark.safety("C02", "contract")
def test_vault_and_model_agree_on_random_closes() -> None:
    """On as many games as it takes to see enough of both kinds and of entries that left."""
    seen = {FILL_FORCED: 0, FILL_FORCED_ON_BOOK: 0}
    left = refused = 0
    for seed in range(GAMES):
        game = play(seed)
        seen = {kind: seen[kind] + game.done[kind] for kind in seen}
        left, refused = left + game.left, refused + game.twin.refused
        if min(*seen.values(), left, refused) >= ENOUGH:
            break
    assert min(*seen.values(), left, refused) >= ENOUGH, (seen, left, refused)
