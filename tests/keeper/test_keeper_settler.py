"""The settler: which rounds it posts in a delisted market's last hour and when it has the market settled, decided without a
chain; and the keepers' reports that it gathers."""

import json

import pytest
from aiohttp import web
from keeper_cases import NOW_S

from evermark.cli.plan import choose_port
from evermark.protocol.oracle import SignedPriceReport, pack_price
from evermark.protocol.signing import PriceReport, Signer, digest, domain_separator
from keeper.actions import Outcome
from keeper.settler import (
    FIRST_PAUSE_S,
    MEAN_S,
    Ending,
    PostPublicRound,
    SettleMarket,
    SettlerStrategy,
    SettlerView,
)
from keeper.shown import KEPT_REPORTS, KeeperReports, ListenRefused, OwnReports, ReportServer

ROUND_S = 3
KEEPERS = [Signer(bytes([number]) * 32) for number in (1, 2, 3)]
SEPARATOR = domain_separator(31_337, b"\x22" * 20, "Evermark Oracle")


def report(at_s: int, markets: int = 4) -> PriceReport:
    return PriceReport(
        round=at_s // ROUND_S,
        timestamp=at_s,
        prices=tuple(pack_price(100 + number, 100) for number in range(markets)),
    )


def signed(keeper: Signer, at_s: int, markets: int = 4) -> SignedPriceReport:
    told = report(at_s, markets)
    return SignedPriceReport(told, keeper.address, keeper.sign(digest(SEPARATOR, told)))


def reports(*times: int, keepers: int = 3, markets: int = 4):
    """Reports of these rounds by so many keepers."""
    return {
        at_s // ROUND_S: {keeper.address: signed(keeper, at_s, markets) for keeper in KEEPERS[:keepers]}
        for at_s in times
    }


def view(*endings: Ending, held=None, public_s: int = 0, wall_s: float = 0.0, waits: bool = False):
    return SettlerView(
        now_s=NOW_S,
        wall_s=wall_s,
        quorum=3,
        markets=4,
        public_round=public_s // ROUND_S,
        public_s=public_s,
        change_waits=waits,
        endings=endings,
        reports=reports(NOW_S) if held is None else held,
    )


def ending(in_s: int, price: int = 0, settled: bool = False, market: int = 1) -> Ending:
    return Ending(market, NOW_S + in_s, price, settled)


def rounds_of(actions) -> list[int]:
    return [one.reports[0].report.round for one in actions if isinstance(one, PostPublicRound)]


@pytest.mark.parametrize(
    "case, given, posted",
    [
        ("before the last hour", view(ending(MEAN_S + 1)), False),
        ("at its beginning", view(ending(MEAN_S)), True),
        ("a minute after the last one", view(ending(900), public_s=NOW_S - 60), True),
        ("within the minute", view(ending(900), public_s=NOW_S - 57), False),
        ("at the end, within the minute", view(ending(0), public_s=NOW_S - 3), True),
        ("past the end, not posted yet", view(ending(-5_000), public_s=NOW_S - 5_100), True),
        ("the price is known", view(ending(-3, price=7)), False),
        ("settled long ago", view(ending(-9_000, price=7, settled=True)), False),
        ("no quorum", view(ending(900), held=reports(NOW_S, keepers=2)), False),
        ("nobody reports", view(ending(900), held={}), False),
        ("too many prices", view(ending(900), held=reports(NOW_S, markets=5)), False),
        ("from the future", view(ending(900), held=reports(NOW_S + 6)), False),
        (
            "an older round than the lane's",
            view(ending(900), held=reports(NOW_S - 90), public_s=NOW_S - 60),
            False,
        ),
        ("another market is settled", view(ending(-9_000, price=7, settled=True), ending(9, market=2)), True),
    ],
)
def test_public_rounds_are_posted_in_the_last_hour(case, given, posted):
    """Once a minute and at the end, of the newest round that a quorum reports; never where the oracle would refuse it."""
    assert bool(rounds_of(SettlerStrategy(60).decide(given))) is posted, case


def test_the_newest_round_with_a_quorum_is_posted():
    """A newer one that only two have reported is left; signers ascend, as the oracle wants them."""
    held = reports(NOW_S - 6, NOW_S - 3) | reports(NOW_S, keepers=2)
    (action,) = SettlerStrategy(60).decide(view(ending(900), held=held))
    signers = [one.signer for one in action.reports]
    assert rounds_of([action]) == [(NOW_S - 3) // ROUND_S]
    assert signers == sorted(signers)
    assert len(signers) == 3


def test_a_market_with_a_price_is_settled_once():
    """Not before there is a price, not again, not while a change waits in the inbox; the lowest market of two."""
    strategy = SettlerStrategy(60)
    assert strategy.decide(view(ending(-3), held={})) == ()
    ripe = [ending(-9, price=7, market=3), ending(-9, price=7, market=2)]
    assert strategy.decide(view(*ripe)) == (SettleMarket(2),)
    assert strategy.decide(view(*ripe, waits=True)) == ()
    assert strategy.decide(view(ending(-9, price=7, settled=True))) == ()


def test_a_refusal_is_waited_out_and_being_overtaken_is_not():
    """A key without money does not send every second; somebody else's settlement is no trouble."""
    strategy, action = SettlerStrategy(60), SettleMarket(1)
    ripe = ending(-9, price=7)
    for times in range(3):
        (tried,) = strategy.decide(view(ripe, wall_s=1_000.0 * times))
        strategy.learn(tried, Outcome(False, "no funds"))
        pause = FIRST_PAUSE_S * 2**times
        assert strategy.decide(view(ripe, wall_s=1_000.0 * times + pause - 0.1)) == ()
        assert strategy.decide(view(ripe, wall_s=1_000.0 * times + pause)) == (action,)
    strategy.learn(action, Outcome(False, "", name="LATE"))
    assert strategy.decide(view(ripe)) == (action,)


async def test_reports_are_shown_and_gathered(monkeypatch):
    """By round and signer, from this process and the others; a keeper that is silent, lies about its signature or floods is
    left out, and named."""
    nonsense = web.Application()

    async def flood(_: web.Request) -> web.Response:
        return web.Response(body=b"[" * 3_000_000)

    nonsense.router.add_get("/reports", flood)
    runner = web.AppRunner(nonsense)
    await runner.setup()
    ports = [choose_port(0, "--port") for _ in range(4)]
    await web.TCPSite(runner, "127.0.0.1", ports[3]).start()
    shown = [OwnReports() for _ in KEEPERS]
    servers = [ReportServer(own, "127.0.0.1", port) for own, port in zip(shown[1:], ports, strict=False)]
    for server in servers:
        await server.start()
    with pytest.raises(ListenRefused, match="reports_listen"):
        await ReportServer(shown[0], "127.0.0.1", ports[0]).start()
    for keeper, own in zip(KEEPERS, shown, strict=True):
        for late in range(KEPT_REPORTS + 2):
            one = signed(keeper, NOW_S + ROUND_S * late)
            own.add(one.report, one.signature)
    bad = signed(KEEPERS[1], NOW_S + ROUND_S * 100)
    shown[1].add(bad.report, signed(KEEPERS[1], NOW_S).signature)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    gathered = KeeperReports(shown[0], urls, SEPARATOR)
    try:
        found = await gathered.gather()
        assert gathered.silent == (f"{urls[2]}/reports", f"{urls[3]}/reports")
        newest = (NOW_S + ROUND_S * (KEPT_REPORTS + 1)) // ROUND_S
        assert set(found[newest]) == {keeper.address for keeper in KEEPERS}
        assert set(found[newest].values()) == {signed(keeper, newest * ROUND_S) for keeper in KEEPERS}
        assert NOW_S // ROUND_S not in found
        strangers = set(found[NOW_S // ROUND_S + 100]) - {keeper.address for keeper in KEEPERS}
        assert len(strangers) == 1  # whoever that is, the oracle does not know it
        for server in servers:
            await server.close()
        assert set((await gathered.gather())[newest]) == {KEEPERS[0].address}
    finally:
        await gathered.close()
        await runner.cleanup()
        for server in servers:
            await server.close()


def test_what_is_shown_is_plain_json():
    """Prices beyond 2^53 as text."""
    own = OwnReports()
    one = signed(KEEPERS[0], NOW_S)
    own.add(one.report, one.signature)
    (told,) = own.shown()
    assert told.prices == tuple(str(price) for price in one.report.prices)
    assert json.loads(json.dumps(told.signature)) == "0x" + one.signature.to_bytes().hex()
