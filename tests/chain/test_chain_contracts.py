"""Reads and calls of a deployed exchange, against what the Python side computes from the same inputs."""

import pytest
from chain_cases import GENESIS_TIME, SEQUENCER, address, funding_reports, price_reports
from web3.exceptions import ContractLogicError

from evermark.chain import ExchangeContracts, TransactionReverted, TransactionSender
from evermark.chain.vault import PUBLIC_LANE, SEQUENCER_LANE, decode_round
from evermark.devnet import dev_key
from evermark.protocol.markets import load_markets
from evermark.protocol.oracle import NO_PRICE, aggregate, median_rates, pack_price, prices_hash, round_words
from evermark.protocol.units import USDC

MARKETS = len(load_markets())


@pytest.fixture
def exchange(w3, manifest):
    return ExchangeContracts(w3, manifest)


@pytest.fixture
def owner(w3):
    return TransactionSender(w3, dev_key(9))


@pytest.fixture
def sequencer(w3):
    return TransactionSender(w3, dev_key(SEQUENCER))


def reports_for(exchange, timestamps, spread=0):
    rows = [
        tuple(pack_price(100_000 + 7 * k + spread, 100_001 + 5 * k) for _ in range(MARKETS)) for k in range(3)
    ]
    return price_reports(exchange.manifest.address("oracle"), timestamps, rows)


async def test_a_new_exchange_is_empty(exchange):
    """Nothing is registered, owed or settled; unknown accounts read as zero."""
    totals = await exchange.totals()
    assert (totals.batch_id, totals.credited, totals.claims, totals.funding_pool) == (0, 0, 0, 0)
    assert await exchange.account_of(address(9), 0) == 0
    assert (await exchange.account(77)).collateral == 0
    assert (await exchange.position(77, 0)).size == 0
    assert (await exchange.slot(77, 1)).sequence == 0
    assert (await exchange.agent(77, address(3))).expiry == 0
    assert (await exchange.market(0)).open_interest == 0
    assert (await exchange.claim(1)).amount == 0
    assert await exchange.inbox_range() == (1, 1)
    assert await exchange.last_round() == 0


async def test_deposits_and_donations_wait_in_the_inbox(exchange, owner):
    """Tokens are in the vault at once, the entries wait with their due times, and the sums add up."""
    await exchange.mint(owner, owner.address, 100 * USDC)
    assert await exchange.deposit(owner, 30 * USDC, 5) == 1
    assert await exchange.donate(owner, 7 * USDC) == 2
    first, second = await exchange.inbox_entry(1), await exchange.inbox_entry(2)
    assert (first.kind, first.owner, first.sub_account, first.amount) == (1, owner.address, 5, 30 * USDC)
    assert first.due == first.created + 600
    assert (second.kind, second.amount) == (2, 7 * USDC)
    assert await exchange.inbox_range() == (1, 3)
    assert await exchange.inbox_sums() == (37 * USDC, 37 * USDC)
    assert await exchange.tokens_of(exchange.manifest.addresses["vault"]) == 37 * USDC
    assert await exchange.tokens_of(owner.address) == 63 * USDC
    with pytest.raises(TransactionReverted, match="inbox: unknown account"):
        await exchange.request_withdrawal(owner, USDC, 5)


async def test_a_posted_round_is_the_aggregated_one(exchange, sequencer, owner):
    """The words on the chain, decoded, are what `aggregate` makes of the same reports, in each lane."""
    reports = reports_for(exchange, [GENESIS_TIME + 1, GENESIS_TIME, GENESIS_TIME + 2])
    expected = aggregate([item.report for item in reports], 3, [NO_PRICE] * MARKETS, [0] * MARKETS)
    with pytest.raises(TransactionReverted, match="oracle: only the sequencer"):
        await owner.send(exchange.oracle.address, exchange.post_round_calldata(reports))
    await sequencer.send(exchange.oracle.address, exchange.post_round_calldata(reports))
    assert await exchange.last_round() == expected.round
    assert await exchange.round(expected.round) == expected
    assert await exchange.oracle.functions.prices_hash(SEQUENCER_LANE, expected.round).call() == prices_hash(
        expected
    )
    assert await exchange.last_round(PUBLIC_LANE) == 0
    await owner.send(exchange.oracle.address, exchange.post_round_calldata(reports, public=True))
    assert await exchange.round(expected.round, PUBLIC_LANE) == expected
    with pytest.raises(ContractLogicError, match="oracle: "):
        await exchange.round(expected.round + 1)
    assert decode_round(round_words(expected), MARKETS) == expected
    assert decode_round(round_words(expected), MARKETS + 1) == expected  # listed since


async def test_a_posted_hour_has_the_median_rates(exchange, owner):
    """Anyone may post; the rates are `median_rates` of the reports."""
    hour = GENESIS_TIME // 3600 - 1
    rates = [tuple(100 * k - market for market in range(MARKETS)) for k in (3, -1, 2)]
    reports = funding_reports(exchange.manifest.address("oracle"), hour, rates)
    assert await exchange.funding_posted_at(hour) == 0
    with pytest.raises(ContractLogicError, match="oracle: "):
        await exchange.funding_rates(hour)
    await owner.send(exchange.oracle.address, exchange.post_funding_calldata(reports))
    assert await exchange.funding_rates(hour) == median_rates([item.report for item in reports], MARKETS)
    assert await exchange.funding_posted_at(hour) >= GENESIS_TIME


async def test_settle_takes_raw_bytes(exchange, owner):
    """The batch follows the selector; one that is not next is refused, whoever sends it."""
    data = exchange.settle_calldata(bytes(81))
    assert len(data) == 85
    with pytest.raises(TransactionReverted, match="vault: batch id not next"):
        await owner.send(exchange.vault.address, data)
    with pytest.raises(TransactionReverted, match="vault: nothing to pay"):
        await owner.send(exchange.vault.address, exchange.pay_calldata(1))


async def test_reads_are_as_of_a_block(exchange, owner, w3):
    """A read names the block that it is made for."""
    await exchange.mint(owner, owner.address, 100 * USDC)
    block = await w3.eth.block_number
    await exchange.deposit(owner, 30 * USDC)
    assert await exchange.inbox_range(block) == (1, 1)
    assert await exchange.inbox_range() == (1, 2)
