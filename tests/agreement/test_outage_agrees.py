"""After an outage of the chain engine, vault and naive model let the same through, and refuse the same."""

from pathlib import Path

import boa
import pytest

from evermark.protocol.markets import load_markets
from evermark.protocol.orders import Side
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import ChainRestarted
from sequencer.engine.events import CommandRejected, Liquidated, WithdrawalClaimed
from tests import fast_evm
from tests.agreement.exchange import signer
from tests.agreement.random_traders import PRICES, START, fallen
from tests.agreement.three_ways import ThreeWays

FEED = Path(__file__).parents[1] / "contracts" / "mocks" / "Feed.vy"
USDC = 10**6


class Watched(ThreeWays):
    """On a chain that says when it was down."""

    def _uptime_feed(self) -> str:
        self.feed = boa.load(str(FEED))
        self.feed.tell(0, 1, 1)
        return self.feed.address

    def watch(self) -> None:
        """What the sequencer's watch would tell the engine now; the model reads the chain for itself."""
        boa.env.evm.patch.timestamp = self.now
        self.naive.restarted = self.oracle.restarted()
        self.send(ChainRestarted(restarted=self.naive.restarted, block_number=1))


def refusal(events) -> RejectCode:
    return next(event.reject.code for event in events if isinstance(event, CommandRejected))


@pytest.mark.safety("A09", "contract")
def test_the_hour_after_an_outage_agrees():
    """Flat accounts withdraw, the others and the liquidator wait; an hour later what waited happens, the head entry first."""
    with boa.swap_env(fast_evm.fresh()):
        exchange = Watched(load_markets(), START)
        exchange.donate(2_000_000 * USDC)
        exchange.round(PRICES)
        rich, poor, flat = signer("rich"), signer("poor"), signer("flat")
        for owner, usdc in ((rich, 50_000), (poor, 2_000), (flat, 500)):
            exchange.deposit(owner, usdc * USDC)
        exchange.order(rich, 0, Side.SELL, 60_000, 1_136_300, slot=1)
        exchange.order(poor, 0, Side.BUY, 60_000, 1_137_000, slot=0)
        exchange.round(fallen(26_000))
        exchange.confirm()
        exchange.feed.tell(0, exchange.now, exchange.now)
        exchange.watch()
        assert refusal(exchange.liquidate(exchange.account(poor), 0)) is RejectCode.CHAIN_RESTARTED
        assert refusal(exchange.withdraw(rich, USDC)) is RejectCode.CHAIN_RESTARTED
        assert any(isinstance(event, WithdrawalClaimed) for event in exchange.withdraw(flat, USDC))
        exchange.request_withdrawal(rich, 5 * USDC)
        assert len(exchange.waiting) == 1
        exchange.round(fallen(26_000))
        exchange.compare()
        exchange.round(fallen(26_000), 3_600)
        exchange.confirm()
        exchange.watch()
        exchange.retry_entry()
        assert not exchange.waiting
        exchange.round(fallen(26_000))
        exchange.compare()
        assert any(isinstance(event, Liquidated) for event in exchange.liquidate(exchange.account(poor), 0))
        exchange.round(fallen(26_000))
        exchange.compare()
