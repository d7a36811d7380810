"""What a freeze pins and how it counts: the newer price of both lanes, of any market, and a thousand accounts a call."""

import boa
import pytest
from builders import MARKETS, USDC, Exchange, Party
from eth_abi import decode
from eth_hash.auto import keccak
from governing import THIN_INDEX, Governing
from msgspec.structs import replace
from test_exit import ANYBODY, PRICE, apply_hour, freeze, take_and_pay, trade
from test_market_modes import clamp

from evermark.protocol.orders import Side

COUNTERS = (1 << 39) + 512
WEEK_S = 7 * 86_400
FROZEN, COUNTED = "Frozen(uint256,uint256,uint256)", "Counted(uint256,uint256,int256)"
TAKEN, RECLAIMED = "Taken(uint256,uint256,uint256)", "Reclaimed(uint256,uint256,uint256)"


@pytest.mark.safety("E11", "contract")
@pytest.mark.parametrize("apart_s", [1, 10])
@pytest.mark.parametrize("held_back", [False, True])
def test_each_market_is_pinned_at_its_newer_price(
    exchange: Exchange, maker: Party, taker: Party, apart_s: int, held_back: bool
) -> None:
    """By a second or a round, whichever lane it is in, also where the older one is marked as held back."""
    trade(exchange, maker, taker, Side.BUY, 100)
    exchange.round({0: PRICE + 10, 1: 250_010})
    if held_back:
        clamp(exchange)
    exchange.post_public({0: PRICE + 20}, abstain=(1,), seconds=apart_s)
    freeze(exchange, taker)
    assert (exchange.exit.marks(0), exchange.exit.marks(1)) == (PRICE + 20, 250_010)


@pytest.mark.safety("E11", "contract")
def test_of_equally_new_prices_the_sequencers_lane_counts(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Who posts other reports of the same second in the public lane changes nothing, however high they are."""
    trade(exchange, maker, taker, Side.BUY, 100)
    exchange.round({0: PRICE + 10})
    exchange.post_public({0: 2**31}, seconds=0)
    freeze(exchange, taker)
    assert exchange.exit.marks(0) == PRICE + 10


@pytest.mark.safety("E11", "contract")
@pytest.mark.parametrize("market", [0, 1, 2, 3])
def test_any_market_freezes_after_a_week_without_a_price(
    exchange: Exchange, maker: Party, taker: Party, market: int
) -> None:
    """Not a second earlier, wherever in a round's words its price lies, and whatever a tick of a lot is worth there."""
    batch = exchange.batch()
    mark = exchange.last[market].mark_ticks
    batch.trade(maker, taker, Side.BUY, 10, mark, market=market)
    batch.settle()
    at = exchange.clock
    exchange.round(seconds=100, abstain=(market,))
    boa.env.timestamp = at + WEEK_S
    with boa.reverts("exit: not a week without a price"):
        exchange.exit.freeze_dead_market(market)
    boa.env.timestamp = at + WEEK_S + 1
    exchange.exit.freeze_dead_market(market)
    assert exchange.exit.marks(market) == mark
    for party in (maker, taker):
        assert exchange.exit.equity(party.account) == exchange.margin(party.account).equity


@pytest.mark.safety("E11", "contract")
def test_a_position_in_the_last_of_64_markets_counts() -> None:
    """It is pinned, valued and paid like one in any other; who holds only the first is counted without a look at the rest."""
    with boa.env.anchor():
        markets = tuple(replace(MARKETS[0], market_id=at, symbol=f"M{at}-PERP") for at in range(64))
        exchange = Exchange(markets=markets)
        exchange.round(dict.fromkeys(range(64), PRICE))
        parties = [exchange.deposit(number, 1_000 * USDC) for number in (1, 2, 3, 4)]
        batch = exchange.batch()
        batch.trade(*parties[:2], Side.BUY, 100, PRICE, market=63)
        batch.trade(*parties[2:], Side.BUY, 100, PRICE, market=0)
        batch.settle()
        exchange.round({63: PRICE + 1_000})
        expected = [exchange.margin(party.account).equity for party in parties]
        with boa.env.anchor():
            boa.env.timestamp += WEEK_S + 1
            exchange.exit.freeze_dead_market(63)
        freeze(exchange, parties[0])
        assert exchange.exit.marks(63) == PRICE + 1_000
        assert [exchange.exit.equity(party.account) for party in parties] == expected
        exchange.exit.push(2)
        of_last, _, of_first, _ = (gas_of_a_count(exchange) for _ in parties)
        assert of_last > 3 * of_first
        assert [take_and_pay(exchange, party) for party in parties] == expected


def gas_of_a_count(exchange: Exchange) -> int:
    exchange.exit.push(1, sender=ANYBODY)
    return int(exchange.exit._computation.get_gas_used())


@pytest.mark.safety("E11", "contract")
def test_a_market_that_one_lane_has_not_heard_of_freezes_by_the_other(
    exchange: Exchange, governing: Governing, maker: Party, taker: Party
) -> None:
    """The public lane's last round is from before it was listed, and says nothing about it."""
    exchange.post_public({})
    governing.list_thin()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 1_000_000, THIN_INDEX, market=4)
    batch.settle()
    boa.env.timestamp = exchange.clock + WEEK_S
    with boa.reverts("exit: not a week without a price"):
        exchange.exit.freeze_dead_market(4)
    boa.env.timestamp += 1
    exchange.exit.freeze_dead_market(4)
    assert exchange.exit.marks(4) == THIN_INDEX


def told(exchange: Exchange, signature: str, *types: str) -> tuple[int, ...]:
    """Indexed and plain numbers of the exit's one event of this name in its last call."""
    topic = int.from_bytes(keccak(signature.encode()), "big")
    logs = exchange.exit._computation.get_log_entries()
    ((indexed, data),) = [(topics[1:], data) for _, topics, data in logs if topics[0] == topic]
    return (*indexed, *decode(types, data))


def test_every_step_is_told(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Which entry was overdue or that a market was dead, how far the count is, and each claim, whose numbers count up."""
    trade(exchange, maker, taker, Side.BUY, 100)
    batches, accounts = exchange.vault.totals().batch_id, exchange.vault.totals().accounts
    with boa.env.anchor():
        boa.env.timestamp = exchange.clock + WEEK_S + 1
        exchange.exit.freeze_dead_market(0)
        assert told(exchange, FROZEN, "uint256", "uint256") == (0, batches, accounts)
    exchange.inbox.deposit(20 * USDC, 0, sender=exchange.fund_wallet(maker.signer, 20 * USDC))
    entry = exchange.inbox.head()
    freeze(exchange, taker)
    assert told(exchange, FROZEN, "uint256", "uint256") == (entry, batches, accounts)
    assert (exchange.exit.last_batch(), exchange.exit.cursor()) == (batches, 1)
    for counted in range(1, accounts + 1):
        assert not exchange.exit.complete()
        exchange.exit.push(1, sender=ANYBODY)
        event = told(exchange, COUNTED, "uint256", "uint256", "int256")
        assert event == (counted, exchange.exit.positive_equity(), exchange.exit.pot())
    with boa.reverts("exit: nothing to count"):
        exchange.exit.push(1, sender=ANYBODY)
    for number, party in enumerate((maker, taker), 1):
        claim = exchange.exit.take(party.account)
        assert told(exchange, TAKEN, "uint256") == (party.account, claim, exchange.vault.claim(claim).amount)
        assert claim == exchange.vault.totals().claims == number
    claim = exchange.exit.reclaim(entry)
    assert told(exchange, RECLAIMED, "uint256") == (entry, claim, 20 * USDC)
    assert claim == exchange.vault.totals().claims == 3


def test_the_pot_counts_what_the_funding_pool_lent(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Who closed was paid out of it before the other side paid in: the pool is negative, and the pot what the vault holds. Who
    withdrew all takes nothing."""
    trade(exchange, maker, taker, Side.BUY, 50_001)
    apply_hour(exchange, 77_777)
    trade(exchange, exchange.parties[5], maker, Side.BUY, 50_001, exchange.last[0].mark_ticks)
    assert exchange.vault.totals().funding_pool < 0
    empty = exchange.deposit(40, 100 * USDC)
    batch = exchange.batch()
    batch.withdraw(empty, 100 * USDC)
    batch.settle()
    exchange.vault.pay(exchange.vault.totals().claims)
    freeze(exchange, maker)
    for count in (1, exchange.vault.totals().accounts - 2, 1):
        exchange.exit.push(count, sender=ANYBODY)
    assert exchange.exit.pot() == exchange.vault.totals().credited >= exchange.exit.positive_equity()
    with boa.reverts("exit: nothing to take"):
        exchange.exit.take(empty.account)


@pytest.mark.safety("B17", "contract")
@pytest.mark.parametrize("left", [-1, 0, 1])
def test_only_what_withdrawals_left_is_shared(exchange_with_token, maker_of, left: int) -> None:
    """Who won from somebody deep below zero and withdrew gets the last unit that is left, and nothing of nothing or less."""
    exchange = exchange_with_token("TestUSDC")
    loser, winner = (maker_of(exchange, number) for number in (1, 2))
    batch = exchange.batch()
    batch.fee_classes = ((0, 0),)
    batch.trade(loser, winner, Side.BUY, 15_000, PRICE)
    batch.settle()
    exchange.round({0: PRICE * 3 // 2})
    batch = exchange.batch()
    batch.withdraw(winner, 2_000 * USDC - left)
    batch.settle()
    freeze(exchange, winner)
    exchange.exit.push(10, sender=ANYBODY)
    assert exchange.exit.pot() == left
    assert exchange.exit.positive_equity() == exchange.exit.equity(winner.account) == 3_500 * USDC + left
    assert exchange.exit.payout(winner.account) == max(left, 0)


def test_a_thousand_accounts_are_counted_at_once(exchange: Exchange, maker: Party) -> None:
    """However many were asked for; then the rest. The accounts that a test can afford hold nothing."""
    with boa.env.anchor():
        counters = exchange.vault.word(COUNTERS) & ~((2**32 - 1) << 112)
        exchange.vault.write(COUNTERS, counters | 1_500 << 112, sender=exchange.backstop.address)
        freeze(exchange, maker)
        assert exchange.exit.accounts() == 1_500
        exchange.exit.push(10**6, sender=ANYBODY)
        assert exchange.exit.cursor() == 1_001
        exchange.exit.push(1_000, sender=ANYBODY)
        assert exchange.exit.complete()
        assert exchange.exit.pot() == exchange.vault.totals().credited
