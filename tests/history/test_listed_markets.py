"""Markets and keepers that the governor changes while the exchange runs, as those learn of them who only hear the events."""

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from evermark.protocol.markets import load_markets
from evermark.protocol.oracle import Round, SignedPriceReport, pack_price
from evermark.protocol.reject import Reject
from evermark.protocol.signing import PriceReport, Signer
from sequencer.engine.commands import (
    AnyCommand,
    BatchConfirmed,
    ForeignBatch,
    Genesis,
    InboxEntry,
    InboxEntryKind,
    ReversalCause,
    Reverse,
)
from sequencer.engine.events import Event, KeepersChanged, MarketListed, Reversed
from sequencer.history import History, Store
from sequencer.replay import Applied
from sequencer.reports import ReportCollector

NOW_S = 1_800_000_000
MARKETS = load_markets()
PEPE = replace(MARKETS[3], market_id=4, symbol="PEPE-PERP")
KEEPERS = tuple(Signer(bytes([number]) * 32) for number in (1, 2))
GENESIS = Genesis(
    chain_id=1,
    vault=b"\x11" * 20,
    oracle=b"\x22" * 20,
    round_seconds=3,
    oracle_quorum=1,
    funding_quorum=1,
    oracle_keepers=(KEEPERS[0].address,),
    funding_keepers=(KEEPERS[0].address,),
    markets=MARKETS,
)
ENTRY = InboxEntry(entry_id=1, entry_kind=InboxEntryKind.GOVERNOR, owner=bytes(20), sub_account=0, amount=0)


REVERSE = Reverse(after=1, batch_id=0, cause=ReversalCause.MISSED_WINDOW)
REVERSED = Reversed(
    after=1,
    batch_id=0,
    cause=ReversalCause.MISSED_WINDOW,
    first_trade=1,
    last_trade=0,
    funding_hour=0,
    markets=len(MARKETS),
)


def applied(sequence: int, command: AnyCommand, events: Sequence[Event] = ()) -> Applied:
    return Applied(sequence, NOW_S * 1000, command, tuple(events), bytes([sequence]) * 32)


def test_history_knows_a_listed_market_after_a_restart_too(tmp_path: Path) -> None:
    """Its symbol is learned live, and again from the records before the stored position."""
    records = [applied(1, GENESIS), applied(2, ENTRY, [MarketListed(market=PEPE)])]
    for _ in range(2):
        history = History(Store(tmp_path / "history.db"))
        for record in records:
            history.observe(record)
        assert history._symbols == [market.symbol for market in (*MARKETS, PEPE)]
        history.flush().result()
        history.store.close()


def test_history_forgets_a_market_whose_listing_is_void(tmp_path: Path) -> None:
    """It is listed again under the same number, by the entry or by a stranger's batch that holds it."""
    foreign = ForeignBatch(
        batch_id=4, calldata=b"", round=Round(1, 1, ()), entries=(ENTRY,), rates=(), block_number=1
    )
    history = History(Store(tmp_path / "history.db"))
    records = [
        applied(1, GENESIS),
        applied(2, ENTRY, [MarketListed(market=PEPE)]),
        applied(3, REVERSE, [REVERSED]),
        applied(4, foreign, [MarketListed(market=PEPE)]),
    ]
    for record, count in zip(records, (4, 5, 4, 5), strict=True):
        history.observe(record)
        assert history._symbols == [market.symbol for market in (*MARKETS, PEPE)][:count]
    history.flush().result()
    history.store.close()


class Reporting:
    """A collector, and reports of a keeper with so many prices, each of a round of its own."""

    def __init__(self) -> None:
        async def submit(command: AnyCommand) -> list[Event]:
            return []

        self.collector = ReportCollector(GENESIS, submit, lambda: NOW_S, grace_s=0)
        self.late = 60

    def takes(self, keeper: Signer, prices: int) -> bool:
        self.late -= 1
        body = PriceReport(
            round=NOW_S // 3 - self.late,
            timestamp=NOW_S - 3 * self.late,
            prices=(pack_price(5, 5),) * prices,
        )
        signed = SignedPriceReport(body, keeper.address, keeper.sign(bytes(32)))
        return not isinstance(self.collector.add_price(signed), Reject)


def keepers(*numbers: int) -> KeepersChanged:
    return KeepersChanged(
        oracle_keepers=tuple(KEEPERS[number].address for number in numbers),
        funding_keepers=(KEEPERS[0].address,),
        oracle_quorum=1,
        funding_quorum=1,
    )


async def test_a_listed_market_and_a_new_keeper_are_reported_once_the_chain_has_them() -> None:
    """Until their batch is confirmed a round may be needed that the chain takes without them: a price too many and a stranger's
    report are refused. From then on they count, and a report without the new market counts too."""
    reporting = Reporting()
    assert not reporting.takes(KEEPERS[0], 5)
    assert not reporting.takes(KEEPERS[1], 4)
    reporting.collector.observe(applied(2, ENTRY, [MarketListed(market=PEPE), keepers(0, 1)]))
    assert (reporting.collector.markets, reporting.takes(KEEPERS[0], 4)) == (4, True)
    assert not reporting.takes(KEEPERS[0], 5)
    assert not reporting.takes(KEEPERS[1], 4)
    reporting.collector.observe(applied(3, BatchConfirmed(batch_id=1, block_number=1)))
    assert reporting.collector.markets == 5
    assert reporting.takes(KEEPERS[0], 5)
    assert reporting.takes(KEEPERS[1], 5)
    assert reporting.takes(KEEPERS[1], 4)
    reporting.collector.observe(applied(4, ENTRY, [keepers(1)]))
    assert not reporting.takes(KEEPERS[0], 5)  # who is removed reports no more, whatever becomes of it
    assert reporting.takes(KEEPERS[1], 5)
    await reporting.collector.close()


async def test_reports_follow_a_reversal_and_a_snapshot() -> None:
    """A change that is void never counted; what waits is remembered."""
    reporting = Reporting()
    reporting.collector.observe(applied(2, ENTRY, [MarketListed(market=PEPE), keepers(1)]))
    assert not reporting.takes(KEEPERS[0], 4)
    again = Reporting()
    again.collector.recall(reporting.collector.memory(), GENESIS)
    assert not again.takes(KEEPERS[0], 4)
    for collector in (reporting, again):
        collector.collector.observe(applied(3, REVERSE, [REVERSED]))
        assert (collector.takes(KEEPERS[0], 4), collector.takes(KEEPERS[0], 5)) == (True, False)
        collector.collector.observe(applied(4, BatchConfirmed(batch_id=1, block_number=1)))
        assert not collector.takes(KEEPERS[0], 5)
        await collector.collector.close()
