"""Candles follow the trades that stand: what a reversal takes back leaves them, of every length, and also after a restart."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import select

from evermark.protocol.markets import load_markets
from evermark.protocol.orders import Side
from sequencer.engine.commands import Genesis, ReversalCause, Reverse, TriggerLiquidation
from sequencer.engine.events import Reversed, Trade
from sequencer.history import History, Store, recount, tables
from sequencer.history.candles import INTERVALS_S
from sequencer.history.store import fetch
from sequencer.replay import Applied

MARKETS = load_markets()
GENESIS = Genesis(
    chain_id=1,
    vault=b"",
    oracle=b"",
    round_seconds=3,
    oracle_quorum=1,
    funding_quorum=1,
    oracle_keepers=(),
    funding_keepers=(),
    markets=MARKETS,
)
START_MS = 1_760_140_700_000
A_TRADE = TriggerLiquidation(account=3, market_id=0, keeper=b"")  # any command may have traded

Known = tuple[int, str, int, int, int]  # trade id, market, price, size, time in ms


class Feed:
    """Records that trade or take back, for a history on a directory; and, as plainly as possible, what its candles must be."""

    def __init__(self, directory: Path, source: Random) -> None:
        self.path, self.source = directory / "history.db", source
        self.history = History(Store(self.path))
        self.standing: list[Known] = []
        self.sequence, self.stamp_ms, self.trades = 0, START_MS, 0
        self.records: list[Applied] = []
        self._observe(Applied(1, self.stamp_ms, GENESIS, [], b"g"))

    def _observe(self, applied: Applied) -> None:
        self.sequence = applied.sequence
        self.records.append(applied)
        self.history.observe(applied)

    def trade(self, most_ms: int = 90_000) -> None:
        self.stamp_ms += self.source.randrange(most_ms)
        self.trades += 1
        market, price, size = self.source.randrange(3), self.source.randrange(90, 110), 2**61
        event = Trade(
            trade_id=self.trades,
            market_id=market,
            price=price,
            size=size,
            taker_side=Side.BUY,
            maker=3,
            taker=4,
            maker_hash=b"",
            taker_hash=b"",
            maker_fee=0,
            taker_fee=0,
        )
        self._observe(Applied(self.sequence + 1, self.stamp_ms, A_TRADE, [event], b"h"))
        self.standing.append((self.trades, MARKETS[market].symbol, price, size, self.stamp_ms))

    def reverse(self, back: int) -> None:
        """Take the last `back` trades that stand back, with every void one between them."""
        first = self.standing[-back][0] if back else self.trades + 1
        self.standing = [known for known in self.standing if known[0] < first]
        after, cause = 1, ReversalCause.MISSED_WINDOW
        told = Reversed(
            after=after, batch_id=0, cause=cause, first_trade=first, last_trade=self.trades, funding_hour=0
        )
        command = Reverse(after=after, batch_id=0, cause=cause)
        self._observe(Applied(self.sequence + 1, self.stamp_ms, command, [told], b"r"))

    def restart(self, *, stored: bool) -> None:
        """What waited for the store is lost with the process, or not; the journal brings it back."""
        if stored:
            self.history.flush().result()
        self.history.store.close()
        self.history = History(Store(self.path))
        for applied in self.records:
            self.history.observe(applied)

    def check(self) -> None:
        self.history.flush().result()
        rows = self.history.store.read_now(lambda connection: fetch(connection, select(tables.candles)))
        stored = {
            (row["market"], row["interval"], row["t"]): tuple(row[key] for key in "ohlcvn") for row in rows
        }
        assert stored == dict(self._expected())

    def _expected(self) -> Iterator[tuple[tuple[str, str, int], tuple[int, ...]]]:
        for interval, seconds in INTERVALS_S.items():
            groups: dict[tuple[str, int], list[Known]] = {}
            for known in self.standing:
                groups.setdefault((known[1], known[4] // 1000 // seconds * seconds), []).append(known)
            for (market, t), group in groups.items():
                prices = [known[2] for known in group]
                volume = sum(known[3] for known in group)
                values = prices[0], max(prices), min(prices), prices[-1], volume, len(group)
                yield (market, interval, t), values


@pytest.mark.parametrize("seed", range(4))
def test_candles_are_those_of_the_trades_that_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random trades over days, reversals of none to many of them, restarts with and without what waited to be stored."""
    monkeypatch.setattr(recount, "PAGE", 3)
    source = Random(seed)
    feed = Feed(tmp_path, source)
    for _ in range(12):
        for _ in range(source.randrange(25)):
            feed.trade(source.choice((5_000, 90_000, 5_000_000)))
        if source.random() < 0.5:
            feed.restart(stored=source.random() < 0.5)
        feed.reverse(source.randrange(min(20, len(feed.standing)) + 1))
        if source.random() < 0.3:
            feed.restart(stored=source.random() < 0.5)
        feed.check()
    feed.history.store.close()


def test_a_candle_of_void_trades_alone_is_gone(tmp_path: Path) -> None:
    """Nothing stands in it, so nobody sees it; a trade that comes later in the same minute begins it anew."""
    feed = Feed(tmp_path, Random(1))
    for _ in range(5):
        feed.trade(10)
    feed.reverse(5)
    feed.check()
    assert not feed.history._candles.changed
    feed.trade(10)
    feed.check()
    feed.history.store.close()
