"""What a hostile sequencer may do to a lawful batch. Each attack takes the world and a batch and returns another batch.

The attacker knows every signature ever given to the sequencer and holds the keys of the hostile traders. Attacks on bytes are in
`hostile_bytes.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hostile_world import World
from msgspec.structs import replace

from evermark.protocol import batch as codec
from evermark.protocol import oracle, signing
from evermark.protocol.orders import Signature, TimeInForce, Withdraw

Attack = Callable[[World, codec.Batch], codec.Batch]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


def changed(items: tuple[Any, ...], index: int, item: Any) -> tuple[Any, ...]:
    return (*items[:index], item, *items[index + 1 :])


def some_row(world: World, batch: codec.Batch) -> int | None:
    return world.random.randrange(len(batch.orders)) if batch.orders else None


# ------------------------------------------------------------------------------------------------------------------ signatures


@attack
def forge_signature(world: World, batch: codec.Batch) -> codec.Batch:
    """Somebody's order under the attacker's signature, a damaged one, its high-s twin, or none at all."""
    index = some_row(world, batch)
    if index is None:
        return batch
    row = batch.orders[index]
    own = world.hostile[0].signer.sign(signing.digest(world.exchange.separator, row.order))
    old = row.signature
    signature = world.random.choice(
        (
            own,
            Signature(old.r ^ 1 << world.random.randrange(256), old.s, old.parity),
            Signature(old.r, old.s, 1 - old.parity),
            Signature(old.r, signing.SECP256K1_N - old.s, 1 - old.parity),
            Signature(0, 0, 0),
            Signature(signing.SECP256K1_N, 1, 0),
        )
    )
    return replace(batch, orders=changed(batch.orders, index, replace(row, signature=signature)))


@attack
def swap_signatures(world: World, batch: codec.Batch) -> codec.Batch:
    """Two rows with each other's signature."""
    if len(batch.orders) < 2:
        return batch
    first, second = world.random.sample(range(len(batch.orders)), 2)
    rows = list(batch.orders)
    rows[first] = replace(batch.orders[first], signature=batch.orders[second].signature)
    rows[second] = replace(batch.orders[second], signature=batch.orders[first].signature)
    return replace(batch, orders=tuple(rows))


@attack
def edit_order(world: World, batch: codec.Batch) -> codec.Batch:
    """A signed order with one field changed to the attacker's advantage."""
    index = some_row(world, batch)
    if index is None:
        return batch
    row, pick = batch.orders[index], world.random
    order = row.order
    market = (
        batch.pairs[row.pair][1] if row.pair < len(batch.pairs) else 0
    )  # an earlier change may have cut the table
    mark = world.exchange.last[market].mark_ticks
    change = pick.choice(
        (
            {"size": order.size * 2},
            {"limit_price": max(1, mark + order.side.sign * mark // 25)},
            {"side": order.side.opposite},
            {"max_fee_ppm": 65_535},
            {"reduce_only": not order.reduce_only},
            {"post_only": not order.post_only},
            {"amend": not order.amend},
            {"expiry": order.expiry + 86_400},
            {"sequence": order.sequence + 1},
            {"slot": order.slot ^ 1},
            {"time_in_force": TimeInForce((order.time_in_force + 2) % 4)},
            {"trigger_price": 1},
            {"builder": world.hostile[0].signer.address, "max_builder_fee_ppm": 1_000},
            {"builder": world.hostile[0].signer.address},
            {"max_builder_fee_ppm": min(65_535, order.max_builder_fee_ppm * 2 + 1)},
            {"max_builder_fee_ppm": 65_535},
        )
    )
    return replace(batch, orders=changed(batch.orders, index, replace(row, order=replace(order, **change))))


@attack
def own_cheque(world: World, batch: codec.Batch) -> codec.Batch:
    """A withdrawal from somebody's account, signed by the attacker."""
    if not batch.accounts:
        return batch
    index = world.random.randrange(len(batch.accounts))
    account = batch.accounts[index]
    owner = world.now.owner_of(account) if account in world.now.accounts else bytes(20)
    message = codec_withdraw(world, owner, 5_000_000)
    signature = world.hostile[0].signer.sign(signing.digest(world.exchange.separator, message))
    return replace(batch, withdrawals=(*batch.withdrawals, codec.Withdrawal(index, message, 0, signature)))


def codec_withdraw(world: World, owner: bytes, amount: int) -> Withdraw:
    return Withdraw(
        owner=owner,
        sub_account=0,
        amount=amount,
        max_fee=0,
        action_sequence=world.exchange.sequence(),
        deadline=world.exchange.clock + 60,
    )


@attack
def edit_withdrawal(world: World, batch: codec.Batch) -> codec.Batch:
    """A signed withdrawal with a higher fee, another amount, or from another account; or the same one twice."""
    if not batch.withdrawals:
        return batch
    index = world.random.randrange(len(batch.withdrawals))
    entry = batch.withdrawals[index]
    other = world.random.choice(
        (
            replace(entry, fee=entry.withdraw.max_fee + 1),
            replace(entry, fee=entry.withdraw.amount + 1),
            replace(entry, withdraw=replace(entry.withdraw, max_fee=2**90)),
            replace(entry, withdraw=replace(entry.withdraw, amount=entry.withdraw.amount + 1)),
            replace(entry, account_index=(entry.account_index + 1) % max(1, len(batch.accounts))),
        )
    )
    if world.random.random() < 0.25:
        return replace(batch, withdrawals=(*batch.withdrawals, entry))
    return replace(batch, withdrawals=changed(batch.withdrawals, index, other))


@attack
def edit_action(world: World, batch: codec.Batch) -> codec.Batch:
    """A cancel, approval or transfer with one field changed, of another account, or twice."""
    if not batch.actions:
        return batch
    pick = world.random
    index = pick.randrange(len(batch.actions))
    action = batch.actions[index]
    other = pick.randrange(len(batch.accounts))
    if pick.random() < 0.3:
        return replace(batch, actions=(*batch.actions, action))
    if isinstance(action, codec.SlotCancel):
        longer = replace(action.cancel, sequence=action.cancel.sequence + 10_000)
        changes = [{"account_index": other}, {"cancel": longer}, {"cancel": replace(longer, all_slots=True)}]
    elif isinstance(action, codec.WriteOff):
        changes = [{"account_index": other}]
    elif isinstance(action, codec.CollateralTransfer):
        more = replace(action.transfer, amount=action.transfer.amount * 9)
        changes = [{"account_index": other}, {"target_index": other}, {"transfer": more}]
    else:
        thief = replace(action.approval, agent=world.hostile[1].signer.address, transfer_cap=2**90)
        changes = [{"account_index": other}, {"approval": thief}]
    return replace(batch, actions=changed(batch.actions, index, replace(action, **pick.choice(changes))))


# ------------------------------------------------------------------------------------------------------------- rows and tables


@attack
def reorder_rows(world: World, batch: codec.Batch) -> codec.Batch:
    """Rows in another order, with the fills still pointing at the same orders, or not."""
    places = list(range(len(batch.orders)))
    world.random.shuffle(places)
    rows = tuple(batch.orders[place] for place in places)
    if world.random.random() < 0.5:
        return replace(batch, orders=rows)
    at = {old: new for new, old in enumerate(places)}
    return replace(batch, orders=rows, fills=tuple(moved(fill, at) for fill in batch.fills))


def moved(fill: codec.Fill, at: dict[int, int]) -> codec.Fill:
    """A fill that names rows by new places."""
    first, second = fill.first, fill.second
    if fill.kind in (codec.FILL_ORDERS, codec.FILL_FUND):
        first = at.get(first, first)
    if fill.kind in (codec.FILL_ORDERS, codec.FILL_LIQUIDATION):
        second = at.get(second, second)
    return replace(fill, first=first, second=second)


@attack
def repeat_row(world: World, batch: codec.Batch) -> codec.Batch:
    """The same signed order in two rows, each of them filled."""
    index = some_row(world, batch)
    if index is None:
        return batch
    at = {old: old + (old > index) for old in range(len(batch.orders))}
    fills = [moved(fill, at) for fill in batch.fills]
    twin = {index: index + 1}
    fills += [moved(fill, at | twin) for fill in batch.fills if index in (fill.first, fill.second)]
    rows = (*batch.orders[: index + 1], *batch.orders[index:])
    return replace(batch, orders=rows, fills=tuple(fills))


@attack
def replay_order(world: World, batch: codec.Batch) -> codec.Batch:
    """An order of an earlier batch, filled, replaced or void, put in the place of another row."""
    index = some_row(world, batch)
    if index is None or not world.resting:
        return batch
    row, old = batch.orders[index], world.random.choice(world.resting)
    rows = changed(batch.orders, index, replace(row, order=old.order, signature=old.signature))
    return replace(batch, orders=rows)


@attack
def alias_tables(world: World, batch: codec.Batch) -> codec.Batch:
    """An account, market or pair twice, or a table out of order."""
    pick = world.random
    name = pick.choice(("accounts", "pairs", "markets"))
    table = list(getattr(batch, name))
    if not table:
        return batch
    if pick.random() < 0.5:
        table.insert(pick.randrange(len(table) + 1), pick.choice(table))
    else:
        pick.shuffle(table)
    return replace(batch, **{name: tuple(table)})


@attack
def omit_pair(world: World, batch: codec.Batch) -> codec.Batch:
    """An open position is not named, so that its risk would not count; later pairs move up."""
    if not batch.pairs:
        return batch
    gone = world.random.randrange(len(batch.pairs))
    rows = tuple(replace(row, pair=row.pair - (row.pair > gone)) for row in batch.orders)
    return replace(batch, pairs=(*batch.pairs[:gone], *batch.pairs[gone + 1 :]), orders=rows)


@attack
def redirect_builder(world: World, batch: codec.Batch) -> codec.Batch:
    """A row's builder is another account than the signed one: the attacker's, a reserved one, an unregistered one, or none."""
    built = [index for index, row in enumerate(batch.orders) if row.order.max_builder_fee_ppm]
    if not built or not batch.accounts:
        return batch
    pick, index = world.random, world.random.choice(built)
    row, accounts = batch.orders[index], batch.accounts
    wrong = pick.choice((codec.NO_INDEX, len(accounts), pick.randrange(len(accounts)), -1))
    if wrong == -1:  # a last entry of the table that no account has
        accounts, wrong = (*accounts, max(accounts[-1], world.now.totals.accounts) + 1), len(accounts)
    rows = changed(batch.orders, index, replace(row, builder_index=wrong))
    return replace(batch, accounts=accounts, orders=rows)


@attack
def other_account(world: World, batch: codec.Batch) -> codec.Batch:
    """A table entry names another account than the one that signed."""
    if not batch.accounts:
        return batch
    index = world.random.randrange(len(batch.accounts))
    account = world.random.choice((1, 2, *[party.account for party in world.parties], 99))
    return replace(batch, accounts=changed(batch.accounts, index, account))


# ----------------------------------------------------------------------------------------------------------------------- fills


@attack
def edit_fill(world: World, batch: codec.Batch) -> codec.Batch:
    """A fill of another size, kind, row or keeper; or the same fill twice."""
    if not batch.fills:
        return batch
    pick = world.random
    index = pick.randrange(len(batch.fills))
    fill = batch.fills[index]
    rows = max(1, len(batch.orders))
    other = pick.choice(
        (
            replace(fill, size=fill.size + 1),
            replace(fill, size=fill.size * 2),
            replace(fill, size=2**62 - 1),
            replace(fill, size=2**63),
            replace(fill, kind=pick.choice((1, 2, 3, 4, 5, 6, 7, 9, 15))),
            replace(fill, first=pick.randrange(rows)),
            replace(fill, second=pick.randrange(rows)),
            replace(fill, first=fill.second, second=fill.first),
            replace(fill, first=65_535),
            replace(fill, keeper=pick.randrange(max(1, len(batch.accounts)))),
        )
    )
    if pick.random() < 0.2:
        return replace(batch, fills=(*batch.fills, fill))
    return replace(batch, fills=changed(batch.fills, index, other))


@attack
def reorder_fills(world: World, batch: codec.Batch) -> codec.Batch:
    fills = list(batch.fills)
    world.random.shuffle(fills)
    return replace(batch, fills=tuple(fills))


@attack
def overcharge(world: World, batch: codec.Batch) -> codec.Batch:
    """Fee rates above what was signed, or a rebate that the taker's fee does not pay for."""
    rates = world.random.choice(
        ((100, 65_535), (32_767, 400), (-32_768, 400), (-401, 400), (-400, 400), (1_000, 1_000), (1_001, 400))
    )
    return replace(batch, fee_classes=(rates,))


@attack
def close_out_anybody(world: World, batch: codec.Batch) -> codec.Batch:
    """A liquidation or take-over of a position that may be healthy, with the attacker as keeper."""
    if not batch.pairs:
        return batch
    pick = world.random
    target = pick.randrange(len(batch.pairs))
    account_index, market = batch.pairs[target]
    size = abs(world.now.held(batch.accounts[account_index], market)) or 1
    keeper = pick.choice((codec.NO_INDEX, pick.randrange(len(batch.accounts))))
    second = pick.randrange(max(1, len(batch.orders)))
    kind = pick.choice((codec.FILL_LIQUIDATION, codec.FILL_TAKEOVER))
    if kind == codec.FILL_TAKEOVER:
        second = pick.randrange(len(batch.pairs))
    fill = codec.Fill(kind, target, second, pick.choice((size, size + 1, 1)), keeper)
    return replace(batch, fills=pick.choice(((fill,), (*batch.fills, fill), (fill, *batch.fills))))


# ------------------------------------------------------------------------------------------------------------------------ rest


@attack
def wrong_round(world: World, batch: codec.Batch) -> codec.Batch:
    """Another round than the pinned one, or a hash of other prices, or another place in the sequence of batches."""
    pick = world.random
    pinned = world.exchange.pinned
    assert pinned is not None
    other = tuple(replace(price, mark_ticks=price.mark_ticks * 2) for price in pinned.prices)
    header = pick.choice(
        (
            {"round": batch.round - 1},
            {"round": batch.round + 1},
            {"round": batch.round - 4_096},
            {"prices_hash": bytes(32)},
            {"prices_hash": oracle.prices_hash(replace(pinned, prices=other))},
            {"batch_id": batch.batch_id + 1},
            {"batch_id": batch.batch_id - 1},
            {"batch_id": 0},
        )
    )
    return replace(batch, **header)


@attack
def misdirect_inbox(world: World, batch: codec.Batch) -> codec.Batch:
    """Entries credited to other accounts, more entries than there are, or fewer."""
    uses = [codec.InboxUse(world.random.randrange(max(1, len(batch.accounts)))) for _ in batch.inbox]
    if world.random.random() < 0.4:
        uses.append(codec.InboxUse(0))
    elif uses and world.random.random() < 0.4:
        uses.pop()
    return replace(batch, inbox=tuple(uses))


@attack
def funding_again(world: World, batch: codec.Batch) -> codec.Batch:
    """An hour that was applied, that nobody posted, or the same one twice."""
    hour = world.exchange.clock // 3_600
    hours = world.random.choice(((hour - 1,), (hour,), (hour + 9,), (hour - 1, hour - 1), (0,)))
    return replace(batch, funding_hours=hours, markets=tuple(range(len(world.exchange.markets))))


@attack
def omit_part(world: World, batch: codec.Batch) -> codec.Batch:
    """Omitting is the sequencer's right: a whole section is left out."""
    name = world.random.choice(("inbox", "actions", "fills", "withdrawals", "orders"))
    return replace(batch, **{name: ()})
