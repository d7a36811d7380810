"""What a trader signs beside plain orders, on engine and contracts: transfers, trigger orders, order batches."""

import boa
import pytest

from evermark.protocol.markets import load_markets
from evermark.protocol.orders import Side, Trigger
from tests import fast_evm
from tests.agreement.exchange import Exchange, signer
from tests.agreement.random_traders import PRICES, START, fallen
from tests.agreement.streams import SEED_USDC


@pytest.fixture
def exchange():
    with boa.swap_env(fast_evm.fresh()):
        made = Exchange(load_markets(), START)
        made.donate(SEED_USDC * 10**6)
        made.round(PRICES)
        yield made


@pytest.mark.safety("B02", "sequencer")
@pytest.mark.safety("D12", "sequencer")
def test_transfers_and_an_agents_cap_agree(exchange):
    """An agent moves margin into an isolated account up to its cap, the owner takes back what the position leaves free."""
    owner, maker, agent = signer("owner"), signer("maker"), signer("agent")
    exchange.deposit(owner, 10_000 * 10**6)
    exchange.deposit(maker, 100_000 * 10**6)
    exchange.approve(owner, agent, 10_000, 3_000 * 10**6)
    account = exchange.account(owner)
    exchange.transfer(account, 5, 2_000 * 10**6, agent)
    exchange.transfer(account, 5, 1_000 * 10**6 + 1, agent)
    isolated = exchange.state.account_ids[owner.address, 5]
    assert exchange.state.accounts[isolated].collateral == 2_000 * 10**6
    exchange.order(maker, 0, Side.SELL, 5_000, 1_136_300, slot=1)
    exchange.order(owner, 0, Side.BUY, 5_000, 1_137_000, slot=0, sub_account=5)
    assert exchange.state.accounts[isolated].positions[0].size == 5_000
    exchange.round(PRICES)
    exchange.compare()
    exchange.transfer(isolated, 0, 2_000 * 10**6, owner)
    exchange.transfer(isolated, 0, 500 * 10**6, owner)
    assert exchange.state.accounts[account].collateral == 8_500 * 10**6
    exchange.round(PRICES)
    exchange.compare()


def test_a_stop_wakes_on_both_sides(exchange):
    """The engine wakes it at the round whose mark meets it; the vault finds that mark, sets the bit, and fills."""
    maker, trader = signer("maker"), signer("trader")
    exchange.deposit(maker, 500_000 * 10**6)
    exchange.deposit(trader, 20_000 * 10**6)
    exchange.order(maker, 0, Side.SELL, 20_000, 1_136_300, slot=1)
    exchange.order(trader, 0, Side.BUY, 20_000, 1_137_000, slot=0)
    stop = {"trigger": Trigger.MARK_BELOW, "trigger_price": 1_130_000, "reduce_only": True}
    exchange.order(trader, 0, Side.SELL, 20_000, 1_100_000, slot=1, **stop)
    exchange.round(PRICES)
    fallen_by = fallen(10_000)
    exchange.order(maker, 0, Side.BUY, 12_000, fallen_by[0][1] + 100, slot=2)
    exchange.round(fallen_by)
    assert exchange.state.accounts[exchange.account(trader)].positions[0].size == 8_000
    exchange.round(fallen_by)
    exchange.compare()
    assert exchange.vault.slot(exchange.account(trader), 1).triggered
    exchange.order(maker, 0, Side.BUY, 12_000, fallen_by[0][1], slot=0)
    exchange.round(fallen_by)
    exchange.compare()
    assert exchange.state.accounts[exchange.account(trader)].positions[0].size == 0


def test_orders_under_one_signature_agree(exchange):
    """Twenty quotes under one agent's signature rest, fill over several batches, and settle with their paths."""
    maker, taker, agent = signer("maker"), signer("taker"), signer("agent")
    for owner in (maker, taker):
        exchange.deposit(owner, 500_000 * 10**6)
        exchange.approve(owner, agent, 10_000, 0)
    quotes = [(at % 2, Side.SELL, 900 + at, PRICES[at % 2][1] + at, 1 + at) for at in range(20)]
    exchange.place_together(maker, agent, quotes)
    exchange.order(taker, 0, Side.BUY, 4_000, PRICES[0][1] + 50, slot=0)
    exchange.round(PRICES)
    exchange.compare()
    takes = [(0, Side.BUY, 3_000, PRICES[0][1] + 50, 0), (1, Side.BUY, 5_000, PRICES[1][1] + 50, 0)]
    exchange.place_together(taker, agent, takes)
    exchange.round(PRICES)
    exchange.compare()
    assert exchange.state.accounts[exchange.account(maker)].positions[0].size == -7_000
