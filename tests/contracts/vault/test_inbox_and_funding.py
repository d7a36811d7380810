"""Sections 1 and 3: what comes through the inbox, and funding hours."""

import boa
import pytest
from boa.util.abi import Address
from builders import USDC, Exchange, Party, Refused, events, refused, send, signer
from governing import THIN, THIN_INDEX, Governing

from evermark.chain.governor import listing_arguments
from evermark.protocol import funding
from evermark.protocol.margin import funding_owed
from evermark.protocol.orders import Side
from tests.compiled_contracts import evaluate

PRICE = 600_000
LAST_HOUR = 499_999  # of the exchange's start


def consume(exchange: Exchange, *accounts: int | None, **more):
    batch = exchange.batch(**more)
    for account in accounts:
        batch.inbox(account)
    return batch.settle()


def deposit_entry(exchange: Exchange, number: int, amount: int, sub_account: int = 0) -> None:
    exchange.inbox.deposit(amount, sub_account, sender=exchange.fund_wallet(signer(number), amount))


def test_a_first_deposit_registers_the_account(exchange: Exchange) -> None:
    """The next id, its owner and its collateral; a second deposit finds it."""
    deposit_entry(exchange, 40, 50 * USDC, sub_account=9)
    deposit_entry(exchange, 40, 7, sub_account=9)
    account = exchange.vault.totals().accounts + 1
    computation = consume(exchange, account, account)
    (registered,) = events(exchange, computation, "AccountRegistered")
    assert (registered.account, registered.sub_account) == (account, 9)
    assert [event.amount for event in events(exchange, computation, "Deposited")] == [50 * USDC, 7]
    owner = Address(signer(40).address)
    assert exchange.vault.account_of(owner, 9) == account
    assert exchange.vault.account_of(owner, 8) == 0
    state = exchange.vault.account(account)
    assert (state.owner, state.sub_account, state.collateral) == (owner, 9, 50 * USDC + 7)


def test_a_new_account_trades_in_the_batch_of_its_deposit(exchange: Exchange, maker: Party) -> None:
    """Section 1 comes before the orders are verified."""
    deposit_entry(exchange, 40, 500 * USDC)
    party = Party(signer(40), exchange.vault.totals().accounts + 1)
    batch = exchange.batch()
    batch.inbox(party.account)
    batch.trade(maker, party, Side.BUY, 10, PRICE)
    batch.settle()
    assert exchange.vault.position(party.account, 0).size == 10


def test_an_entry_names_its_own_account(exchange: Exchange, maker: Party) -> None:
    """Crediting another account's index is refused, and so is naming none."""
    deposit_entry(exchange, 2, 50 * USDC)
    with refused("vault: entry of another account"):
        consume(exchange, maker.account)
    with refused("vault: no such account index"):
        consume(exchange, None)
    consume(exchange, 4)


def test_only_what_is_queued_is_consumed(exchange: Exchange) -> None:
    """More entries than the queue holds revert in the inbox."""
    deposit_entry(exchange, 2, 50 * USDC)
    with pytest.raises(Refused):
        consume(exchange, 4, 4)


@pytest.mark.safety("F05", "contract")
def test_a_donation_goes_to_the_fund(exchange: Exchange) -> None:
    """Account 1 is credited, nobody is registered."""
    before = exchange.vault.account(1).collateral
    exchange.donate(5 * USDC)
    assert exchange.vault.account(1).collateral == before + 5 * USDC


@pytest.mark.safety("E16", "contract")
def test_plain_transfers_change_nothing(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Tokens sent to the vault without the inbox are credited to nobody and break nothing."""
    exchange.token.mint(exchange.vault.address, 1)
    before = exchange.vault.totals()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    assert exchange.vault.totals().credited == before.credited


@pytest.mark.safety("C08", "contract")
def test_a_deposit_reaches_an_account_below_zero(exchange: Exchange, maker: Party) -> None:
    """Negative equity and collateral refuse no deposit."""
    party = exchange.deposit(20, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, party, Side.BUY, 60_000, PRICE)
    batch.settle()
    exchange.round({0: 560_000})
    assert exchange.margin(party.account).equity < 0 > exchange.vault.account(party.account).collateral
    deposit_entry(exchange, 20, 11 * USDC)
    before = exchange.vault.account(party.account).collateral
    consume(exchange, party.account)
    assert exchange.vault.account(party.account).collateral == before + 11 * USDC


def test_a_forced_withdrawal_pays_what_is_withdrawable(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """min(requested, withdrawable), as a claim of the owner."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 300_000, PRICE)
    batch.settle()
    withdrawable = exchange.margin(taker.account).withdrawable
    exchange.inbox.request_withdrawal(0, 10**12, sender=Address(taker.signer.address))
    (event,) = events(exchange, consume(exchange, taker.account), "ClaimCreated")
    assert event.amount == withdrawable
    exchange.inbox.request_withdrawal(0, 10**12, sender=Address(taker.signer.address))
    (skipped,) = events(exchange, consume(exchange, taker.account), "EntrySkipped")
    assert skipped.reason == 3
    exchange.inbox.request_withdrawal(0, 5, sender=Address(maker.signer.address))
    (event,) = events(exchange, consume(exchange, maker.account), "ClaimCreated")
    assert (event.amount, event.account) == (5, maker.account)


@pytest.mark.safety("A01", "contract")
def test_a_forced_withdrawal_on_a_stale_price_waits(exchange: Exchange, maker: Party, taker: Party) -> None:
    """It is not consumable: it stays at the head, its clock runs, and with a price again it pays."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    head = exchange.inbox.head()
    exchange.inbox.request_withdrawal(0, 5, sender=Address(taker.signer.address))
    exchange.round(seconds=70, abstain=[0])
    with refused("vault: no such account index"):
        consume(exchange, None)
    with refused("vault: positions not named"):
        consume(exchange, taker.account, pairs=(), markets=())
    with refused("vault: stale price"):
        consume(exchange, taker.account)
    assert exchange.inbox.head() == head
    exchange.round()
    (event,) = events(exchange, consume(exchange, taker.account), "ClaimCreated")
    assert event.amount == 5


@pytest.mark.safety("E12", "contract")
def test_a_withdrawal_waits_an_hour_for_a_price(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Until an hour after it was due, that second included; then it is skipped, so that a dead market holds up nobody else."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    number = exchange.inbox.request_withdrawal(0, 5, sender=Address(taker.signer.address))
    exchange.round(seconds=exchange.inbox.entry(number).due + 3_600 - exchange.clock, abstain=[0])
    with refused("vault: stale price"):
        consume(exchange, taker.account)
    exchange.round(abstain=[0])
    (skipped,) = events(exchange, consume(exchange, taker.account), "EntrySkipped")
    assert (skipped.entry, skipped.reason) == (number, 10)


@pytest.mark.safety("E12", "contract")
def test_an_entry_that_can_never_apply_is_skipped(exchange: Exchange, maker: Party, taker: Party) -> None:
    """With its reason in an event; what stands behind it goes on."""
    trader = exchange.deposit(60, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, trader, Side.BUY, 60_000, PRICE)
    batch.settle()
    exchange.inbox.request_withdrawal(0, 5, sender=Address(trader.signer.address))
    exchange.inbox.request_withdrawal(0, 5, sender=Address(maker.signer.address))
    computation = consume(exchange, trader.account, maker.account)
    (skipped,) = events(exchange, computation, "EntrySkipped")
    assert (skipped.entry, skipped.reason) == (exchange.inbox.head() - 2, 3)
    assert len(events(exchange, computation, "ClaimCreated")) == 1


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("self._who[{head}] += 1", 1),  # an owner without an account
        ("self._when[{head}] += 6", 4),  # a kind that no rule knows, in place of a cancel's 5
    ],
)
def test_what_the_inbox_lets_nobody_ask_is_skipped(
    exchange: Exchange, maker: Party, entry: str, reason: int
) -> None:
    """If such an entry stood in the queue all the same, it would leave with its reason and hold up nobody."""
    exchange.inbox.request_cancel(0, 1, 9, sender=Address(maker.signer.address))
    exchange.inbox.request_withdrawal(0, 5, sender=Address(maker.signer.address))
    head = exchange.inbox.head()
    evaluate(exchange.inbox, entry.format(head=head))
    computation = consume(exchange, maker.account, maker.account)
    (skipped,) = events(exchange, computation, "EntrySkipped")
    assert (skipped.entry, skipped.reason) == (head, reason)
    assert exchange.vault.slot(maker.account, 1).sequence == 0
    assert len(events(exchange, computation, "ClaimCreated")) == 1


@pytest.mark.safety("E15", "contract")
def test_a_fee_on_transfer_is_not_credited(exchange_with_token) -> None:
    """Credited is what arrived, not what was sent."""
    exchange = exchange_with_token("FeeToken")
    party = exchange.deposit(1, 1_000 * USDC)
    assert exchange.vault.account(party.account).collateral == 990 * USDC
    assert exchange.vault.totals().credited == 990 * USDC == exchange.token.balanceOf(exchange.vault.address)


# ---------------------------------------------------------------------------------------------------------------- funding


def apply_hours(exchange: Exchange, hours: list[int], markets: set[int] = frozenset({0})):
    batch = exchange.batch()
    batch.hours = hours
    batch.markets = set(markets)
    return batch.settle()


def next_hour(exchange: Exchange, rates: dict[int, int]) -> int:
    """Moves to the end of the running hour, posts its rates and a round."""
    hour = exchange.clock // 3_600
    exchange.round(seconds=3_600 - exchange.clock % 3_600 + 10)
    exchange.post_funding(hour, rates)
    return hour


@pytest.mark.safety("C04", "contract")
def test_an_hour_applies_once(exchange: Exchange) -> None:
    """cumulative += index x ltv x rate x 1000; the same or an earlier hour is refused, a gap is fine."""
    earlier = next_hour(exchange, {0: 77})
    hour = next_hour(exchange, {0: 12_345, 1: -5})
    (first, second) = events(exchange, apply_hours(exchange, [hour], {0, 1}), "FundingApplied")
    assert (first.market, first.hour, first.rate_ppb) == (0, hour, 12_345)
    assert first.cumulative == funding.cumulative_step(exchange.markets[0], PRICE, 12_345)
    assert second.cumulative == funding.cumulative_step(exchange.markets[1], 250_000, -5)
    assert exchange.vault.market_state(1).cumulative_funding == second.cumulative
    for again in (hour, earlier):
        with refused("vault: funding hour not next"):
            apply_hours(exchange, [again])
    later = next_hour(exchange, {0: 1})
    apply_hours(exchange, [later])


@pytest.mark.safety("C04", "contract")
def test_an_hour_without_rates_does_not_apply(exchange: Exchange) -> None:
    """Rates come from the oracle's quorum only."""
    with pytest.raises(Refused):
        apply_hours(exchange, [exchange.clock // 3_600])


@pytest.mark.safety("C03", "contract")
def test_rates_are_clamped(exchange: Exchange) -> None:
    """Either sign, at min(4 %, half the first maintenance fraction) an hour."""
    for rate, sign in ((2_000_000_000, 1), (-2_000_000_000, -1)):
        hour = next_hour(exchange, {0: rate, 3: rate})
        applied = events(exchange, apply_hours(exchange, [hour], {0, 3}), "FundingApplied")
        caps = [market.funding_cap_ppb for market in (exchange.markets[0], exchange.markets[3])]
        assert [event.rate_ppb for event in applied] == [sign * cap for cap in caps]


@pytest.mark.safety("C03", "contract")
@pytest.mark.parametrize(
    ("fraction_ppm", "cap"), [(159_999, 39_999_750), (160_000, 40_000_000), (10**6, 40_000_000)]
)
def test_an_hour_moves_four_per_cent_at_most(exchange: Exchange, fraction_ppm: int, cap: int) -> None:
    """However much margin the market's first tier asks for."""
    tiers = 2**39 + 64
    others = exchange.vault.word(tiers) & ~((2**24 - 1) << 48)
    exchange.vault.write(tiers, others | fraction_ppm << 48, sender=exchange.clerk.address)
    for rate in (cap, cap + 1):
        hour = next_hour(exchange, {0: -rate})
        (applied,) = events(exchange, apply_hours(exchange, [hour]), "FundingApplied")
        assert applied.rate_ppb == -cap


@pytest.mark.safety("A01", "contract")
def test_funding_needs_a_fresh_price(exchange: Exchange) -> None:
    """A stale market cannot apply an hour; one whose price is exactly as old as may be can."""
    hour = next_hour(exchange, {0: 5})
    exchange.round(seconds=exchange.markets[0].max_price_age_s, abstain=[0])
    with boa.env.anchor():
        apply_hours(exchange, [hour])
    exchange.round(abstain=[0])
    with refused("vault: stale price"):
        apply_hours(exchange, [hour])


def test_an_hour_from_before_a_listing_is_zero_there(exchange: Exchange, governing: Governing) -> None:
    """Its rates end before the market: it is applied to all at once, and the next one counts in the new market too."""
    proposal = governing.propose("listing", *listing_arguments(THIN), THIN_INDEX)
    governing.wait()
    hour = next_hour(exchange, {0: 500})
    governing.execute(proposal)
    governing.consume()
    exchange.list_market(THIN)
    exchange.round({4: THIN_INDEX})
    first, second = events(exchange, apply_hours(exchange, [hour], {0, 4}), "FundingApplied")
    assert (first.market, first.rate_ppb) == (0, 500)
    assert (second.market, second.hour, second.rate_ppb, second.cumulative) == (4, hour, 0, 0)
    later = next_hour(exchange, {4: 900})
    (applied,) = events(exchange, apply_hours(exchange, [later], {4}), "FundingApplied")
    assert (applied.rate_ppb, applied.cumulative) == (900, funding.cumulative_step(THIN, THIN_INDEX, 900))


@pytest.mark.safety("C06", "contract")
@pytest.mark.safety("C01", "contract")
def test_funding_settles_when_a_position_changes(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Debits up, credits down, the difference is the pool's and its dust; the withdrawable amount counts it before."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 7, PRICE)
    batch.settle()
    hour = next_hour(exchange, {0: 333})
    apply_hours(exchange, [hour])
    cumulative = exchange.vault.market_state(0).cumulative_funding
    paid, received = funding_owed(7, cumulative, 0), funding_owed(-7, cumulative, 0)
    assert (paid, received) == (2, -1)
    before = (
        exchange.vault.account(taker.account).collateral,
        exchange.vault.account(maker.account).collateral,
    )
    batch = exchange.batch()
    batch.trade(maker, taker, Side.SELL, 7, PRICE)
    batch.settle()
    fees = -(-7 * PRICE * 400 // 10**6), -(-7 * PRICE * 100 // 10**6)
    assert exchange.vault.account(taker.account).collateral == before[0] + 7 * PRICE - paid - fees[0]
    assert exchange.vault.account(maker.account).collateral == before[1] - 7 * PRICE - received - fees[1]
    totals = exchange.vault.totals()
    rounded = (paid + received) * 10**12
    assert (
        totals.funding_pool * 10**12 + totals.dust
        == rounded - (rounded // 10**12 - totals.funding_pool) * 10**12
    )
    assert (totals.funding_pool, totals.dust) == (0, 0)
    assert exchange.vault.position(taker.account, 0).entry_cumulative == cumulative


@pytest.mark.safety("B14", "contract")
def test_unsettled_funding_counts_in_margin(exchange: Exchange, maker: Party) -> None:
    """An account that owes funding is checked as if it had paid."""
    party = exchange.deposit(20, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, party, Side.BUY, 60_000, PRICE)
    batch.settle()
    hour = next_hour(exchange, {0: 6_000_000})
    apply_hours(exchange, [hour])
    owed = funding_owed(60_000, exchange.vault.market_state(0).cumulative_funding, 0)
    assert owed == 60_000 * PRICE * 6 // 1_000
    batch = exchange.batch()
    batch.trade(maker, party, Side.BUY, 1, PRICE)
    with refused("vault: below initial margin"):
        batch.settle()


@pytest.mark.safety("C07", "contract")
def test_a_year_of_funding_settles_in_one_step(exchange: Exchange, maker: Party, taker: Party) -> None:
    """However many hours an account slept, settling it costs the same."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    hour = exchange.clock // 3_600
    exchange.round(seconds=3_600 - exchange.clock % 3_600 + 10)
    for offset in range(3):
        exchange.post_funding(hour - 2 + offset, {0: 1_000 * (offset + 1)})
    apply_hours(exchange, [hour - 2, hour - 1, hour])
    cumulative = exchange.vault.market_state(0).cumulative_funding
    assert cumulative == funding.cumulative_step(exchange.markets[0], PRICE, 6_000)
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 1, PRICE)
    batch.settle()


def test_unknown_funding_tags_are_refused(exchange: Exchange) -> None:
    """Resolutions have no rule yet."""
    data = exchange.batch().data()
    for tag in (0, 3, 4):
        with refused("vault: funding tag reserved"):
            send(exchange, data[:-5] + bytes([1, tag]) + bytes(4) + data[-4:])


@pytest.mark.safety("C10", "contract")
def test_collateral_has_a_bound(exchange: Exchange) -> None:
    """A deposit that would leave 96 signed bits is refused, up to the bound it is credited."""
    deposit_entry(exchange, 41, 2**95 - 1)
    deposit_entry(exchange, 41, 1)
    account = exchange.vault.totals().accounts + 1
    with refused("vault: collateral out of range"):
        consume(exchange, account, account)
    consume(exchange, account)
    assert exchange.vault.account(account).collateral == 2**95 - 1
