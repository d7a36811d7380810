"""Price sources: simulated, recorded and completed, live."""

import asyncio
import os
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from keeper_cases import AVAX, BTC, MARKETS, NOW_S, RULES, view

from evermark.protocol.units import PPM
from evermark.tapes import TapeReader, discover, write_seeded_day
from evermark.tapes.discovery import TapeKind
from keeper.oracle import BookTop, OracleStrategy
from keeper.sources.live import LiveSource, Venue, _guarded_session, read_ticker
from keeper.sources.numbers import positive_decimal
from keeper.sources.quotes import Origin, SourceKind, SourceRules, SourceUnavailable, middle
from keeper.sources.sim import SimSource, simulated_ticks
from keeper.sources.tape import SYNTHETIC_REACH_PPM, TapeSource

TAPES = os.environ.get("EVERMARK_TAPES", "")
CRASH_S = 1_760_130_780  # 2025-10-10T21:13:00Z
recorded = pytest.mark.skipif(not TAPES, reason="EVERMARK_TAPES names no directory of recorded tapes")


def prices(report):
    """(index, mark) by market id of a decided round."""
    return [(price >> 32, price & 0xFFFFFFFF) for price in report.prices]


async def test_simulation_depends_on_seed_and_time_alone():
    """Two keepers see the same quotes, in any order of times; another seed gives other prices."""
    first, second = SimSource(MARKETS, 5), SimSource(MARKETS, 5)
    late = await first.quotes(NOW_S + 100)
    assert await second.quotes(NOW_S) == await first.quotes(NOW_S)
    assert await second.quotes(NOW_S + 100) == late
    assert await SimSource(MARKETS, 6).quotes(NOW_S) != await first.quotes(NOW_S)


async def test_simulation_gives_every_market_its_quorum():
    """All markets are priced every second, labelled simulated, with marks inside their bands."""
    source, strategy = SimSource(MARKETS, 1), OracleStrategy(MARKETS, RULES)
    for now in range(NOW_S, NOW_S + 60):
        quotes = await source.quotes(now)
        assert {quote.origin for quote in quotes} == {Origin.SIMULATED}
        (action,) = strategy.decide(view(*quotes, now_s=now))
        assert all(action.report.prices)


def test_simulation_jumps_within_bounds():
    """Over a day prices move by per cents, with jumps of a per cent and more within seconds."""
    walk = [simulated_ticks(BTC, 1, NOW_S + 4 * step) for step in range(21_600)]
    moves = [abs(after - before) * PPM // before for before, after in pairwise(walk)]
    assert max(walk) < 2 * min(walk)
    assert 10_000 < max(moves) < 60_000


@pytest.fixture
def seeded(tmp_path):
    """A seeded day of half an hour."""
    write_seeded_day(tmp_path, MARKETS, start_s=NOW_S, seconds=1_800, seed=3)
    return tmp_path


async def opened(root, **options):
    """A started tape source."""
    source = TapeSource(root, MARKETS, seed=1, rules=RULES, **options)
    await source.start()
    return source


async def test_recorded_venues_are_completed_by_labelled_synthetic_ones(seeded):
    """Two synthetic venues beside a single recorded one, one beside two, all near the recorded price."""
    source = await opened(seeded)
    quotes = await source.quotes(NOW_S + 60)
    made = [quote for quote in quotes if quote.origin is Origin.SYNTHETIC]
    assert Counter(quote.market_id for quote in made) == {0: 2, 1: 2, 2: 2, 3: 1}
    for quote in made:
        assert quote.kind is SourceKind.SPOT
        assert quote.venue.startswith("synthetic-")
        known = [
            one.ticks
            for one in quotes
            if one.market_id == quote.market_id
            and one.origin is Origin.RECORDED
            and one.kind is SourceKind.SPOT
        ]
        assert abs(quote.ticks - middle(known)) * PPM <= middle(known) * (SYNTHETIC_REACH_PPM + 50)
    (action,) = OracleStrategy(MARKETS, RULES).decide(view(*quotes, now_s=NOW_S + 60))
    assert all(action.report.prices)


@pytest.mark.safety("A04", "keeper")
async def test_without_synthetic_venues_a_single_venue_is_no_index(seeded):
    """One recorded venue is below every market's quorum: the keeper abstains."""
    source = await opened(seeded, synthetic=False)
    quotes = await source.quotes(NOW_S + 60)
    assert {quote.origin for quote in quotes} == {Origin.RECORDED}
    (action,) = OracleStrategy(MARKETS, RULES).decide(view(*quotes, now_s=NOW_S + 60))
    assert action.report.prices == (0, 0, 0, 0)
    assert [decision.abstained for decision in action.decisions] == [
        "1 of 3 spot sources",
        "1 of 3 spot sources",
        "1 of 3 spot sources",
        "2 of 3 spot sources",
    ]


@pytest.mark.safety("A08", "keeper")
async def test_a_silent_tape_makes_the_keeper_abstain(seeded):
    """After the tape's end nothing is fresh, nothing synthetic is made up, and no price is reported."""
    source = await opened(seeded)
    await source.quotes(NOW_S + 1_700)
    assert not source.exhausted
    quotes = await source.quotes(NOW_S + 1_800 + RULES.max_age_s)
    assert source.exhausted
    assert all(quote.origin is Origin.RECORDED for quote in quotes)
    (action,) = OracleStrategy(MARKETS, RULES).decide(view(*quotes, now_s=NOW_S + 1_860))
    assert action.report.prices == (0, 0, 0, 0)


async def test_all_keepers_read_the_same_tape(seeded):
    """Whoever joins late, or starts over, sees the same quotes at the same time."""
    first, second = await opened(seeded), await opened(seeded)
    for offset in range(10, 600, 7):
        last = await first.quotes(NOW_S + offset)
    assert await second.quotes(NOW_S + offset) == last
    again = await first.quotes(NOW_S + 30)
    assert again == await (await opened(seeded)).quotes(NOW_S + 30)


async def test_roles_ask_for_different_moments_at_once(seeded):
    """Whatever others asked before or ask meanwhile, a moment has one answer."""
    shared = await opened(seeded)
    moments = [NOW_S + offset for offset in (300, 290, 310, 200, 305, 420, 301, 10, 299)]
    answers = await asyncio.gather(*(shared.quotes(moment) for moment in moments))
    for moment, answer in zip(moments, answers, strict=True):
        assert answer == await (await opened(seeded)).quotes(moment)


async def test_a_directory_without_tapes_is_refused(tmp_path):
    """With the directory in the message."""
    with pytest.raises(SourceUnavailable, match="no tape of a listed market"):
        await opened(tmp_path)


async def test_a_damaged_tape_is_trouble_not_a_crash(seeded):
    """The broken file is named; the keeper goes on asking."""
    path = next(seeded.glob("*/venue-a_BTCUSD.csv.gz"))
    path.write_bytes(path.read_bytes()[:-100])
    source = await opened(seeded)
    with pytest.raises(SourceUnavailable, match="venue-a_BTCUSD"):
        await source.quotes(NOW_S + 1_799)


@recorded
@pytest.mark.safety("A07", "keeper")
async def test_recorded_crash_the_mark_never_follows_the_perpetual():
    """21:10 to 21:20 UTC: a perpetual fell to 6.02, spot stayed above 17, the mark stays with the index."""
    source = TapeSource(Path(TAPES), MARKETS, seed=1, rules=RULES)
    await source.start()
    strategy = OracleStrategy(MARKETS, RULES)
    lowest_perpetual = lowest_mark = 10**9
    for now in range(CRASH_S - 180, CRASH_S + 420):
        quotes = await source.quotes(now)
        (action,) = strategy.decide(view(*quotes, now_s=now))
        index, mark = prices(action.report)[AVAX.market_id]
        assert index > 0
        assert abs(mark - index) * PPM <= index * AVAX.mark_band_ppm
        perpetuals = [q.ticks for q in quotes if q.kind is SourceKind.PERPETUAL and q.market_id == 3]
        lowest_perpetual = min(lowest_perpetual, *perpetuals)
        lowest_mark = min(lowest_mark, mark)
    (tape,) = [one for one in discover(Path(TAPES), MARKETS) if one.kind is TapeKind.PERPETUAL]
    assert min(trade.price for trade in TapeReader(tape.path)) == Decimal("6.02")
    assert lowest_perpetual < 10_000  # what it stood at on a whole second
    assert lowest_mark > 16_500


@recorded
async def test_recorded_crash_with_a_book_ignores_the_perpetual():
    """With our own book at the index, the perpetual is one of three and never the median."""
    source = TapeSource(Path(TAPES), MARKETS, seed=1, rules=RULES)
    await source.start()
    strategy = OracleStrategy(MARKETS, RULES)
    for now in range(CRASH_S, CRASH_S + 60):
        quotes = await source.quotes(now)
        index = next(
            iter(prices(OracleStrategy(MARKETS, RULES).decide(view(*quotes, now_s=now))[0].report)[3:])
        )
        book = {3: BookTop(index[0] - 5, index[0] + 5, index[0])}
        (action,) = strategy.decide(view(*quotes, books=book, now_s=now))
        found, mark = prices(action.report)[3]
        assert abs(mark - found) <= 5


@recorded
async def test_recorded_outage_is_abstained_from():
    """A venue that printed nothing from 20:54 to 21:08 is dropped after a minute, and comes back later."""
    source = TapeSource(Path(TAPES), MARKETS, seed=1, rules=RULES)
    await source.start()
    answers = {}
    for minute in (50, 54, 56, 60, 67, 70):
        now = NOW_S - 50 * 60 + minute * 60
        (action,) = OracleStrategy(MARKETS, RULES).decide(view(*await source.quotes(now), now_s=now))
        answers[minute] = action.report.prices[0] > 0
    assert answers == {50: True, 54: True, 56: False, 60: False, 67: False, 70: True}


@pytest.mark.parametrize(
    "value, number",
    [
        ("1.5", Decimal("1.5")),
        ("1e-8", Decimal("1e-8")),
        (7, Decimal(7)),
        (0, None),
        (-1, None),
        (True, None),
        (1.5, None),
        ("-1", None),
        ("NaN", None),
        ("1e309", None),
        ("0", None),
        ("١", None),
        ("1_000", None),
        (None, None),
        ([], None),
    ],
)
@pytest.mark.safety("H09", "keeper")
def test_numbers_from_venues_are_plain_or_refused(value, number):
    """Exact text or integers; floats, signs, NaN, absurd exponents and other scripts are nothing."""
    assert positive_decimal(value) == number


@pytest.mark.safety("H09", "keeper")
@pytest.mark.parametrize(
    "ticker, price, spread_ppm",
    [
        ({"bid": "99", "ask": "101", "last": "7"}, Decimal(100), 20_000),
        ({"bid": "101", "ask": "99", "last": "7"}, Decimal(7), 0),
        ({"bid": None, "ask": "101", "last": "7"}, Decimal(7), 0),
        ({"last": "7", "timestamp": 999_000}, Decimal(7), 0),
    ],
)
def test_tickers_are_read_by_their_book_or_their_last_price(ticker, price, spread_ppm):
    """The middle of a sound book with its spread, otherwise the last price with its age."""
    seen = read_ticker(ticker, 1_000_000, 1.0)
    assert seen is not None
    assert (seen.price, seen.spread_ppm) == (price, spread_ppm)
    assert seen.age_ms == (1_000 if "timestamp" in ticker else 0)


@pytest.mark.parametrize("ticker", [None, [], "x", {}, {"last": "nan"}, {"last": 1.5}, {"bid": "1"}])
def test_tickers_without_a_price_are_nothing(ticker):
    """No shape of an answer raises."""
    assert read_ticker(ticker, 0, 0.0) is None


async def test_live_prices_without_a_network_fail_at_once_and_say_why(monkeypatch):
    """Hosts that do not resolve, or a proxy that is not there: found before ccxt is loaded."""
    monkeypatch.setattr("keeper.sources.live._import_ccxt", lambda: pytest.fail("loaded for nothing"))
    monkeypatch.setattr("keeper.sources.live.HOSTS", {"kraken": "kraken.invalid", "gemini": "gemini.invalid"})
    venues = (Venue(name="kraken", symbol="{base}/USD"), Venue(name="gemini", symbol="{base}/USD"))
    with pytest.raises(SourceUnavailable, match=r"gemini: gemini\.invalid.*kraken: kraken\.invalid"):
        await LiveSource(MARKETS, venues).start()
    with pytest.raises(SourceUnavailable, match=r"no venue answered .*127\.0\.0\.1"):
        await LiveSource(MARKETS, venues, proxy="http://127.0.0.1:9").start()


async def test_venues_that_do_not_answer_are_named(monkeypatch):
    """With a network and silent venues it takes a few seconds, and says what each venue said."""
    monkeypatch.setattr("keeper.sources.live.check_network", nothing_to_object)
    venues = (Venue(name="kraken", symbol="{base}/USD"), Venue(name="gemini", symbol="{base}/USD"))
    # Nothing listens there, so the test means the same on a machine with a network.
    source = LiveSource(MARKETS, venues, proxy="http://127.0.0.1:9")
    with pytest.raises(SourceUnavailable, match=r"no venue answered.*gemini: .*kraken: "):
        await source.start()


async def nothing_to_object(*_: object) -> None:
    """A network check that passes."""


async def test_an_unknown_venue_is_refused_by_name():
    """A mistyped venue is no silent gap in the quorum."""
    with pytest.raises(SourceUnavailable, match="krakn"):
        await LiveSource(MARKETS, (Venue(name="krakn", symbol="{base}/USD"),)).start()


@pytest.mark.safety("H09", "keeper")
async def test_redirects_of_a_venue_are_not_followed():
    """A venue cannot send the keeper to an internal host."""
    hits = []

    async def inside(request):
        hits.append(request.path)
        return web.Response(text="secret")

    async def outside(request):
        raise web.HTTPFound("/inside")

    app = web.Application()
    app.add_routes([web.get("/inside", inside), web.get("/outside", outside)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    session = _guarded_session()
    try:
        with pytest.raises(aiohttp.ClientError, match="redirected"):
            await session.get(f"http://127.0.0.1:{port}/outside")
        await asyncio.sleep(0)
        assert hits == []
    finally:
        await session.close()
        await runner.cleanup()


def test_rules_have_the_protocols_defaults():
    """A minute of age and one per cent of spread."""
    assert (RULES.max_age_s, RULES.max_spread_ppm) == (60, 10_000) == (SourceRules().max_age_s, 10_000)
