"""The state as canonical bytes, and its hash: the same for equal states, whatever the order in which they
grew.

Caches (margin sums, the price epoch, the expiries) are left out and made again on restoring.
"""

from hashlib import sha256
from typing import Any

import msgspec

from evermark.protocol.merkle import Path
from evermark.protocol.oracle import NO_PRICE, Round
from evermark.protocol.orders import Order
from evermark.protocol.outflow import Outflow
from evermark.protocol.units import check
from sequencer.engine.commands import Genesis, MarketMode
from sequencer.engine.ledger import nonce_of, position_for
from sequencer.engine.market_state import MarketState
from sequencer.engine.open_orders import count_waiting, enlist_untriggered
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.risk import resting_fee
from sequencer.engine.snapshot_batch import dump_batch, load_batch, signature_of
from sequencer.engine.state import Account, EngineState, Position, SlotState

FORMAT = 12  # raise it with any change of the layout; older snapshots are refused, and the journal replayed

STATE_FIELDS = (
    "sequence",
    "stamp_ms",
    "funding_hour",
    "funding_pool",
    "dust",
    "credited",
    "claimed",
    "claim_count",
    "chain_restarted",
    "hold_began",
    "entry_count",
    "closing_entry",
    "closed_lots",
    "trade_count",
    "sealed_batch",
    "confirmed_batch",
)
ACCOUNT_FIELDS = (
    "collateral",
    "action_sequence",
    "min_sequence",
    "taker_sequence",
    "trigger_hour",
    "trigger_placed",
    "used_taker_sequence",
)
POSITION_FIELDS = ("size", "entry_cumulative", "entry_mark", "entry_notional")
SLOT_FIELDS = ("sequence", "used_sequence", "filled")
MODE_FIELDS = ("mode", "set_by_operator", "paused", "mode_for_good")
MARKET_FIELDS = (
    "paused_until",
    "cumulative",
    "funding_hour",
    "open_interest",
    "last_price",
    "forced_hour",
    "forced_lots",
    "forced_cap",
    "settlement_price",
)
ORDER_FIELDS = 8  # of `_order_fields`
_WIDE = 1  # extension code of an integer beyond 64 bits


class SnapshotRefused(ValueError):
    """The bytes are no snapshot of this format."""


def snapshot(state: EngineState) -> bytes:
    """The whole state as MessagePack; equal states give equal bytes."""
    return msgspec.msgpack.encode(_plain(_dump(state)))


def state_hash(state: EngineState) -> bytes:
    """32 bytes that two engines have in common exactly when their states are equal."""
    return sha256(snapshot(state)).digest()


def restore(data: bytes) -> EngineState:
    """The state that `snapshot` was taken of. Raises SnapshotRefused for bytes of another format."""
    try:
        fields = msgspec.msgpack.Decoder(ext_hook=_wide).decode(data)
        if not isinstance(fields, list) or fields[0] != FORMAT:
            raise SnapshotRefused("snapshot: another format")
        return _load(fields)
    except (msgspec.MsgspecError, IndexError, TypeError, KeyError) as error:
        raise SnapshotRefused(f"snapshot: unreadable ({error})") from error


def _dump(state: EngineState) -> list[Any]:
    return [
        FORMAT,
        _fields(state, STATE_FIELDS),
        state.genesis,
        state.round,
        state.unsettled,
        [[*key, *value] for key, value in sorted(state.agents.items())],
        [_fields(at, MODE_FIELDS + MARKET_FIELDS) for at in state.markets],
        [_dump_account(account) for _, account in sorted(state.accounts.items())],
        [_dump_book(at) for at in state.markets],
        [
            [*_order_fields(order), order.market_id, order.arrival, order.trigger_price, *_twap_fields(order)]
            for _, account in sorted(state.accounts.items())
            for _, order in sorted(account.untriggered.items())
        ],
        sorted(state.stirred),
        dump_batch(state.batch),
        state.outflow,
        sorted(state.delayed_claims),
        sorted(state.negatives),
        # What is rarely there, each kind by its length.
        *([key, *value] for key, value in sorted(state.waiting_deposits.items())),
        *([account, liquidation] for account, liquidation in sorted(state.halted.items())),
    ]


def _load(fields: list[Any]) -> EngineState:
    _, numbers, genesis, round_, unsettled, agents, markets, accounts, books, *rest = fields
    untriggered, stirred, batch, outflow, delayed, negatives, *waiting = rest
    state = EngineState()
    for key, *values in waiting:
        if len(values) == 1:
            state.halted[key] = bool(values[0])
        else:
            owner, sub_account, created = values
            state.waiting_deposits[key] = (owner, sub_account, created)
    _set(state, STATE_FIELDS, numbers)
    state.genesis = msgspec.convert(genesis, Genesis | None)
    state.round = msgspec.convert(round_, Round)
    state.unsettled = [(moment, notional) for moment, notional in unsettled]
    state.unsettled_sealed = sum(notional for _, notional in state.unsettled)
    state.agents = {(account, agent): (expiry, cap) for account, agent, expiry, cap in agents}
    listed = state.genesis.markets if state.genesis is not None else ()
    unpriced = [NO_PRICE] * (len(listed) - len(state.round.prices))  # listed since the round
    for market, price, values in zip(listed, (*state.round.prices, *unpriced), markets, strict=True):
        at = MarketState(market, price)
        modes = [MarketMode(value) for value in values[: len(MODE_FIELDS)]]
        _set(at, MODE_FIELDS + MARKET_FIELDS, modes + values[len(MODE_FIELDS) :])
        at.stale = not price.is_fresh(state.now, market.max_price_age_s)
        state.stale_markets += at.stale
        state.markets.append(at)
        state.market_ids[market.symbol] = market.market_id
    for values in accounts:
        account = _load_account(values)
        state.add_account(account)
        if account.account_id > 2:
            state.account_ids[account.owner, account.sub_account] = account.account_id
        for market_id, position in account.positions.items():
            if position.size:
                state.markets[market_id].holders.add(account.account_id)
        if not account.open_positions and account.collateral < 0:
            state.debtors.add(account.account_id)
    for at, orders in zip(state.markets, books, strict=True):
        _make_signed(orders)
        for values in orders:
            _load_order(state, at, values)
    _make_signed(untriggered)
    for values in untriggered:
        _load_untriggered(state, values)
    state.stirred = set(stirred)
    state.outflow = Outflow(*outflow)
    state.negatives = set(negatives)
    state.delayed_claims = [(due, claim, account, amount) for due, claim, account, amount in delayed]
    state.batch = load_batch(batch, state)
    return state


def _dump_account(account: Account) -> list[Any]:
    return [
        account.account_id,
        account.owner,
        account.sub_account,
        _fields(account, ACCOUNT_FIELDS),
        [[key, *_fields(value, POSITION_FIELDS)] for key, value in sorted(account.positions.items())],
        [[key, *_fields(value, SLOT_FIELDS)] for key, value in sorted(account.slots.items())],
    ]


def _load_account(values: list[Any]) -> Account:
    account_id, owner, sub_account, numbers, positions, slots = values
    account = Account(account_id, owner, sub_account)
    _set(account, ACCOUNT_FIELDS, numbers)
    for market_id, *rest in positions:
        position = account.positions[market_id] = Position(market_id)
        _set(position, POSITION_FIELDS, rest)
        account.open_positions += position.size != 0
    for slot, sequence, used_sequence, filled in slots:
        account.slots[slot] = SlotState(sequence, used_sequence, filled)
    return account


def _dump_book(at: MarketState) -> list[Any]:
    return [
        [*_order_fields(order), order.fee_reserve, *([order.hidden] if order.display_size else [])]
        for side in (at.book.bids, at.book.asks)
        for level in side.best_first()
        for order in level.orders()
    ]


def _order_fields(order: RestingOrder) -> list[Any]:
    return [
        order.account,
        order.order,
        order.order_hash,
        order.signature.to_bytes(),
        order.signer,
        order.client_id,
        order.filled,
        order.path,
    ]


def _twap_fields(order: RestingOrder) -> list[int]:
    """Only of a TWAP: other orders look as they did before there were any."""
    return [order.twap_start, order.twap_sent] if order.twap_interval else []


def _make_signed(orders: list[list[Any]]) -> None:
    """Make messages of what was signed, all at once: most of the work lies in beginning."""
    signed = msgspec.convert([values[1] for values in orders], list[Order])
    for values, message in zip(orders, signed, strict=True):
        values[1] = message


def _order_of(state: EngineState, market_id: int, values: list[Any]) -> RestingOrder:
    account_id, signed, order_hash, signature, signer, client_id, filled, path = values
    order = RestingOrder(
        market_id,
        signed,
        order_hash,
        signature_of(signature),
        signer,
        client_id,
        None if path is None else msgspec.convert(path, Path),
    )
    order.belong_to(state.accounts[account_id])
    order.remaining -= filled
    order.builder = state.account_ids.get((order.order.builder, 0), 0)
    return order


def _load_order(state: EngineState, at: MarketState, values: list[Any]) -> None:
    """Put an order into the book and count what it reserves. Its margin is worked out with the account's other sums, once
    somebody needs them: no restored account is at the epoch of the state."""
    fields, fee_reserve, hidden = values[:ORDER_FIELDS], values[ORDER_FIELDS], values[ORDER_FIELDS + 1 :]
    order = _order_of(state, at.market.market_id, fields)
    account = order.trader
    order.hidden = hidden[0] if hidden else 0
    at.book.add(order)
    account.orders[order.slot] = nonce_of(order).live = order
    if order.reduce_only:
        position_for(order).reduce_orders += 1
    else:
        count_waiting(position_for(order), order)
        order.fee_reserve = resting_fee(at, order, order.remaining)
        check(order.fee_reserve == fee_reserve, "snapshot: another fee reserve")
        account.order_fees += fee_reserve
    state.expiries.add(order)


def _load_untriggered(state: EngineState, values: list[Any]) -> None:
    fields = values[:ORDER_FIELDS]
    market_id, arrival, trigger_price, *twap = values[ORDER_FIELDS:]
    order = _order_of(state, market_id, fields)
    order.arrival, order.trigger_price = arrival, trigger_price
    if twap:
        order.twap_start, order.twap_sent = twap
    enlist_untriggered(state, order.trader, order)


def _fields(thing: object, names: tuple[str, ...]) -> list[Any]:
    return [getattr(thing, name) for name in names]


def _set(thing: object, names: tuple[str, ...], values: list[Any]) -> None:
    for name, value in zip(names, values, strict=True):
        setattr(thing, name, value)


def _plain(value: Any) -> Any:
    """What MessagePack can hold: messages as maps, wide integers as extensions."""
    if isinstance(value, bool) or value is None or isinstance(value, (bytes, str)):
        return value
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return int(value)
        width = value.bit_length() // 8 + 1
        return msgspec.msgpack.Ext(_WIDE, value.to_bytes(width, "big", signed=True))
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    names = value.__struct_fields__
    return {name: _plain(getattr(value, name)) for name in names}


def _wide(code: int, data: memoryview) -> int:
    if code != _WIDE:
        raise SnapshotRefused(f"snapshot: extension {code}")
    return int.from_bytes(data, "big", signed=True)
