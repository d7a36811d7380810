"""Markets and keepers that the governor changes while the exchange runs, as those learn of them who only hear the events."""

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from evermark.protocol.markets import load_markets
from evermark.protocol.oracle import SignedPriceReport, pack_price
from evermark.protocol.reject import Reject
from evermark.protocol.signing import PriceReport, Signer
from sequencer.engine.commands import AnyCommand, Genesis, InboxEntry, InboxEntryKind
from sequencer.engine.events import Event, KeepersChanged, MarketListed
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


async def test_reports_cover_a_listed_market_and_come_from_the_new_keepers() -> None:
    """Before, a price too many and a stranger's report are refused; after, a report without the new market still counts."""

    async def submit(command: AnyCommand) -> list[Event]:
        return []

    collector = ReportCollector(GENESIS, submit, lambda: NOW_S, grace_s=0)

    def report(keeper: Signer, prices: int, late: int) -> object:
        body = PriceReport(
            round=NOW_S // 3 - late, timestamp=NOW_S - 3 * late, prices=(pack_price(5, 5),) * prices
        )
        return collector.add_price(SignedPriceReport(body, keeper.address, keeper.sign(bytes(32))))

    assert isinstance(report(KEEPERS[0], 5, 3), Reject)
    assert isinstance(report(KEEPERS[1], 4, 3), Reject)
    changed = KeepersChanged(
        oracle_keepers=(KEEPERS[1].address,),
        funding_keepers=(KEEPERS[0].address,),
        oracle_quorum=1,
        funding_quorum=1,
    )
    collector.observe(applied(2, ENTRY, [MarketListed(market=PEPE), changed]))
    assert not isinstance(report(KEEPERS[1], 5, 2), Reject)
    assert not isinstance(report(KEEPERS[1], 4, 1), Reject)
    assert isinstance(report(KEEPERS[0], 4, 0), Reject)
    again = MarketListed(market=PEPE)  # a reversal took the listing back, and it happens again
    collector.observe(applied(3, ENTRY, [again]))
    assert isinstance(report(KEEPERS[1], 6, 0), Reject)
    assert not isinstance(report(KEEPERS[1], 5, 0), Reject)
    await collector.close()
