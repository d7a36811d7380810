"""The judge of the invariant tests finds what it should: each rule is broken once, by a lie about what was signed or there."""

from dataclasses import replace

import pytest
from builders import USDC, send
from hostile_ledger import check_moment, check_nothing_falls, look
from hostile_rules import Signatures, judge
from hostile_world import World, anchored, deployed
from msgspec import structs

from evermark.protocol.orders import Side


@pytest.fixture
def world():
    with anchored():
        yield World(deployed(), 1)


@pytest.fixture
def settled(world):
    """A batch of one fill and a withdrawal, settled but not yet judged: before, after, calldata, signatures."""
    batch = world.exchange.batch()
    rich, other = world.honest[:2]
    mark = world.exchange.last[1].mark_ticks
    resting = world.order(batch, rich, Side.BUY, 900, mark + 3, 1, slot=2)
    batch.fill(resting, world.order(batch, other, Side.SELL, 600, mark, 1), 600)
    batch.withdraw(other, 7 * USDC, fee=2)
    data = batch.data()
    send(world.exchange, data)
    return world.now, look(world.exchange), data, world.signed


def with_collateral(moment, changes):
    accounts = {
        number: account._replace(collateral=account.collateral + changes.get(number, 0))
        for number, account in moment.accounts.items()
    }
    return replace(moment, accounts=accounts)


def test_a_lawful_batch_passes(world, settled) -> None:
    before, after, data, signed = settled
    judge(world.exchange, signed, before, after, data)


def test_tokens_that_appear_are_found(world, settled) -> None:
    before, after, data, signed = settled
    account = world.hostile[0].account
    with pytest.raises(AssertionError, match="invariant 1"):
        judge(world.exchange, signed, before, with_collateral(after, {account: 1}), data)


def test_a_position_without_a_counterparty_is_found(world, settled) -> None:
    _, after, _, _ = settled
    key = (world.honest[0].account, 1)
    position = after.positions[key]
    grown = after.positions | {key: position._replace(size=position.size + 1)}
    with pytest.raises(AssertionError, match="invariant 2"):
        check_moment(world.exchange, replace(after, positions=grown))


def test_an_order_that_nobody_signed_is_found(world, settled) -> None:
    before, after, data, _ = settled
    with pytest.raises(AssertionError, match="nobody signed"):
        judge(world.exchange, Signatures(), before, after, data)


@pytest.mark.parametrize("change", [{"size": 599}, {"size": 601}, {"limit_price": 1}, {"max_fee_ppm": 399}])
def test_an_order_with_another_limit_is_found(world, settled, change) -> None:
    before, after, data, signed = settled
    orders = {
        key: [structs.replace(order, **change) for order in orders] for key, orders in signed.orders.items()
    }
    with pytest.raises(AssertionError, match="nobody signed"):
        judge(world.exchange, Signatures(orders), before, after, data)


def test_a_fill_beyond_what_was_left_is_found(world, settled) -> None:
    before, after, data, signed = settled
    key = (world.honest[1].account, 0)
    filled = {(*key, order.sequence): 1 for _, order in orders_of(signed) if order.slot == 0}
    with pytest.raises(AssertionError, match="beyond the signed size"):
        judge(world.exchange, Signatures(signed.orders, dict.fromkeys(filled, 600)), before, after, data)


def orders_of(signed):
    return [(key, order) for key, orders in signed.orders.items() for order in orders]


def test_money_that_moves_without_a_signature_is_found(world, settled) -> None:
    before, after, data, signed = settled
    victim, thief = world.honest[2].account, world.hostile[0].account
    with pytest.raises(AssertionError, match="invariant 10"):
        judge(world.exchange, signed, before, with_collateral(after, {victim: -1, thief: 1}), data)


def test_fees_that_leave_the_fee_account_are_found(world, settled) -> None:
    before, after, data, signed = settled
    thief = world.hostile[0].account
    with pytest.raises(AssertionError, match="fees were paid out"):
        judge(world.exchange, signed, before, with_collateral(after, {2: -(10**9), thief: 10**9}), data)


def test_a_fund_that_pays_for_nothing_is_found(world, settled) -> None:
    before, after, data, signed = settled
    thief = world.hostile[0].account
    with pytest.raises(AssertionError, match="the fund lost"):
        judge(world.exchange, signed, before, with_collateral(after, {1: -1, thief: 1}), data)


def test_a_sequence_that_falls_is_found(world, settled) -> None:
    before, after, *_ = settled
    with pytest.raises(AssertionError, match="fell"):
        check_nothing_falls(after, before)


def test_a_withdrawal_that_repeats_is_found(world, settled) -> None:
    before, after, data, signed = settled
    judge(world.exchange, signed, before, after, data)
    signed.filled.clear()
    with pytest.raises(AssertionError, match="withdrawn twice"):
        judge(world.exchange, signed, before, after, data)


@pytest.fixture
def closed(world):
    """A close by the inbox of an honest trader's position against the richest, settled but not yet judged."""
    owner, rich = world.honest[2], world.honest[0]
    world.request_close(owner)
    account, market, _, left = world.asked(world.now.totals.inbox_head)
    assert account == owner.account
    batch = world.exchange.batch()
    batch.force(account, market, rich.account, min(left, 700))
    data = batch.data()
    send(world.exchange, data)
    return world.now, look(world.exchange), data, world.signed


def test_a_close_that_was_asked_for_passes(world, closed) -> None:
    before, after, data, signed = closed
    judge(world.exchange, signed, before, after, data)


def test_a_close_that_nobody_asked_for_is_found(world, closed) -> None:
    """The entry behind the consumed ones is another one."""
    before, after, data, signed = closed
    other = before.totals._replace(inbox_head=1)
    with pytest.raises(AssertionError, match="closed without being asked"):
        judge(world.exchange, signed, replace(before, totals=other), after, data)


def test_a_close_that_costs_more_than_the_penalty_is_found(world, closed) -> None:
    before, after, data, signed = closed
    victim, thief = world.honest[2].account, world.hostile[0].account
    with pytest.raises(AssertionError, match="invariant 10"):
        judge(world.exchange, signed, before, with_collateral(after, {victim: -(10**9), thief: 10**9}), data)


def test_a_counterparty_that_pays_for_a_close_is_found(world, closed) -> None:
    before, after, data, signed = closed
    rich, thief = world.honest[0].account, world.hostile[0].account
    with pytest.raises(AssertionError, match="invariant 10"):
        judge(world.exchange, signed, before, with_collateral(after, {rich: -(10**9), thief: 10**9}), data)


def test_a_builder_that_nobody_named_is_found(world) -> None:
    """The fee went to the account that the order names; one with a sub-account, or of another owner, would not have been its."""
    exchange, (rich, other, builder) = world.exchange, world.honest[:3]
    batch, mark = exchange.batch(), exchange.last[1].mark_ticks
    more = {"builder": builder.signer.address, "max_builder_fee_ppm": 333}
    resting = world.order(batch, rich, Side.BUY, 900, mark, 1, slot=2)
    batch.fill(resting, world.order(batch, other, Side.SELL, 600, mark, 1, **more), 600)
    data, before = batch.data(), world.now
    send(exchange, data)
    after = look(exchange)
    judge(exchange, world.signed.copy(), before, after, data)
    for change in ({"sub_account": 1}, {"owner": "0x" + rich.signer.address.hex()}):
        lies = [
            replace(
                moment,
                accounts=moment.accounts
                | {builder.account: moment.accounts[builder.account]._replace(**change)},
            )
            for moment in (before, after)
        ]
        with pytest.raises(AssertionError, match="another builder"):
            judge(exchange, world.signed.copy(), *lies, data)
