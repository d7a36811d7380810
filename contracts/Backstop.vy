# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize codesize
"""
@title Backstop
@license Apache-2.0
@notice Of section 4 of a batch what is not an order fill: whether an account below maintenance may be closed out, and what that may
        cost it.
@dev Has no storage and no privilege but the vault's trust by immutable address: the vault asks it, it reads and writes the vault's words
     (modules/ledger.vy has their numbers), and the vault emits the events. Whoever else calls it only has it call themselves.
"""

from .interfaces import IInbox
from .interfaces import IPriceOracle
from .modules import door
from .modules import forced
from .modules import lateness
from .modules import ledger
from .modules import liquidation
from .modules import running
from .modules import units

LIQUIDATION: constant(uint256) = 1
TAKEOVER: constant(uint256) = 2
DELEVERAGING: constant(uint256) = 3
FORCED_ON_BOOK: constant(uint256) = 5
CASH: constant(uint256) = 7
HALTED: constant(uint256) = 4  # modes of a market
SETTLED: constant(uint256) = 5
PRICES: constant(uint256) = 1 << 64  # key of the batch's price of market 0
CONTEXT: constant(uint256) = 4 << 64

LIQUIDATED: constant(bytes32) = keccak256("Liquidated(uint256,uint256,uint256,int256,uint256,uint256)")
DELEVERAGED: constant(bytes32) = keccak256("Deleveraged(uint256,uint256,uint256,int256)")
FORCED_CLOSE: constant(bytes32) = keccak256("ForcedClose(uint256,uint256,uint256,uint256,int256,uint256)")

CASH_SETTLED: constant(bytes32) = keccak256("CashSettled(uint256,uint256,uint256,uint256,uint256)")


@external
def close_target(
    kind: uint256,
    pair: uint256,
    counterparty: uint256,
    size: uint256,
    price: uint256,
    keeper: uint256,
    has_keeper: bool,
) -> (bool, int256, int256):
    """
    @dev Whether an account may be closed out by `size` lots at `price`, at what loss against the mark; pays the fee.
    @param pair The vault's table entry: market id u6, account id u32 at 6, account index u16 at 40; of a deleveraging also `counterparty`.
    @return Whether the target sells, what it pays beside the price, and what fund or counterparty pay (negative: receive).
    """
    vault: door.IVault = door.IVault(msg.sender)
    if kind == CASH:
        return self._settle(vault, pair, counterparty, size, price)
    if kind >= FORCED_ON_BOOK:
        return self._force(vault, kind, pair, counterparty, size, price)
    market: uint256 = pair & 63
    account: uint256 = pair >> 6 & units.U32
    if account < ledger.FIRST_USER_ACCOUNT:
        units.fail("vault: reserved account")
    position: int256 = self._held(vault, pair & units.U38)
    if convert(abs(position), uint256) < size:
        units.fail("vault: larger than the position")
    if forced.deposit_waits(vault, self._inbox(vault), account, market):
        units.fail("vault: a deposit waits")
    if staticcall IPriceOracle((staticcall vault.clerk_task())[2]).restarted():
        units.fail("vault: chain was down")
    p: uint256 = staticcall vault.word(ledger.MARKET_P | market)
    loss: int256 = 0
    room: int256 = 0
    loss, room = self._loss(vault, kind, pair, position, convert(size, int256), price, p)
    fee_ppm: int256 = convert(p >> ledger.P_LIQUIDATION_FEE & units.U16, int256)
    value: int256 = convert(p & units.U32, int256)
    fee: int256 = liquidation.liquidation_fee(convert(size * price, int256) * value, fee_ppm, room)
    share: int256 = 0
    if has_keeper:
        if staticcall vault.word(ledger.B | keeper) == 0:
            units.fail("vault: keeper not registered")
        share = liquidation.keeper_share(fee)
        door.add_to(vault, keeper, share)
    extcall vault.relay(
        [LIQUIDATED, convert(account, bytes32), convert(market, bytes32)], abi_encode(size, loss, fee, kind)
    )
    if kind == LIQUIDATION:
        door.add_to(vault, ledger.INSURANCE_FUND, fee - share)
        return position > 0, fee, 0
    if kind == DELEVERAGING:
        if counterparty >> 6 & units.U32 < ledger.FIRST_USER_ACCOUNT:
            units.fail("vault: reserved account")
        self._meet(vault, market, counterparty, position, convert(size, int256), loss, p)
        return position > 0, loss, -loss
    self._check_fund_cap(vault, market, position > 0, convert(size, int256), p)
    return position > 0, loss, share - loss


@view
@external
def is_allowed(
    base: int256, equity: int256, initial: uint256, fresh: bool, first: uint256, positions: DynArray[uint256, 64]
) -> bool:
    """
    @dev The closing check of an account of the calling vault that is below its initial margin or has a stale price: True, or a
         revert with the reason.
    """
    running.check_closing(door.IVault(msg.sender), base, equity, initial, fresh, first, positions)
    return True


@internal
def _force(
    vault: door.IVault, kind: uint256, pair: uint256, counterparty: uint256, size: uint256, price: uint256
) -> (bool, int256, int256):
    """
    @dev A part of the close that the entry at the head of the inbox asks for, by an account at or above maintenance: against an order no
         further below the mark than the penalty, which its owner signed; against fund or counterparty at a price of the rule's.
    """
    market: uint256 = pair & 63
    account: uint256 = pair >> 6 & units.U32
    inbox: address = self._inbox(vault)
    id: uint256 = staticcall IInbox(inbox).head()
    entry: IInbox.Entry = staticcall IInbox(inbox).entry(id)
    named: uint256 = convert(entry.owner, uint256) | convert(entry.sub_account, uint256) << ledger.B_SUB_ACCOUNT
    if entry.kind != forced.CLOSE or entry.data & units.U8 != market or staticcall vault.word(named) != account:
        units.fail("vault: head asks for no close")
    position: int256 = self._held(vault, pair & units.U38)
    closed: uint256 = forced.closed_lots(vault, id) + size
    if (position > 0) != (entry.data >> forced.LONG & 1 == 1) or convert(abs(position), uint256) < size:
        units.fail("vault: larger than the position")
    if closed > entry.data >> forced.LOTS & units.U62:
        units.fail("vault: more than asked for")
    p: uint256 = staticcall vault.word(ledger.MARKET_P | market)
    if p >> ledger.P_MODE >= HALTED:
        units.fail("vault: market halted")
    sum: door.Margin = running.margin(vault, pair >> 40 & units.U16)
    if not sum.fresh:
        units.fail("vault: stale price")
    if sum.equity < convert(sum.maintenance, int256):
        units.fail("vault: below maintenance")
    hour: uint256 = forced.hour_of(vault, market, (staticcall vault.word(CONTEXT)) & units.U40)
    hour += size << forced.HOUR_LOTS
    if hour >> forced.HOUR_LOTS & units.U64 > hour >> forced.HOUR_CAP:
        units.fail("vault: cap of the hour")
    extcall vault.write(ledger.FORCED | market, hour)
    extcall vault.write(ledger.CLOSING, id | closed << forced.CLOSED | block.timestamp << forced.CLOSED_AT)
    # In quote, signed as the closer loses: what the mark is above the price, and what it is above the mark when the entry was made.
    mark: int256 = convert((staticcall vault.word(PRICES | market)) >> 32 & units.U32, int256)
    lots: int256 = convert(size * (p & units.U32), int256)
    most: int256 = forced.penalty(vault, market, mark * lots, p)
    if position < 0:
        lots = -lots
    loss: int256 = (mark - convert(price, int256)) * lots
    if kind == FORCED_ON_BOOK:
        if loss > most:
            units.fail("vault: loss above bound")
    else:
        loss = forced.close_loss(most, (mark - convert(entry.data >> forced.MARK & units.U32, int256)) * lots)
        self._meet(vault, market, counterparty, position, convert(size, int256), loss, p)
    extcall vault.relay(
        [FORCED_CLOSE, convert(id, bytes32), convert(account, bytes32), convert(market, bytes32)],
        abi_encode(size, loss, kind),
    )
    if kind == FORCED_ON_BOOK:
        return position > 0, 0, 0
    return position > 0, loss, -loss


@internal
def _settle(vault: door.IVault, pair: uint256, counterparty: uint256, size: uint256, price: uint256) -> (bool, int256, int256):
    """
    @dev Two opposite positions of a settled market end against each other at its settlement price. Nobody's margin is asked: equity stays as it
         is, since positions are valued at that price anyway.
    """
    market: uint256 = pair & 63
    if counterparty & 63 != market:
        units.fail("vault: markets differ")
    if (staticcall vault.word(ledger.MARKET_P | market)) >> ledger.P_MODE != SETTLED:
        units.fail("vault: market not settled")
    ends_at: uint256 = 0
    settlement_price: uint256 = 0
    settled: bool = False
    ends_at, settlement_price, settled = staticcall IPriceOracle((staticcall vault.clerk_task())[2]).ending(market)
    if price != settlement_price:
        units.fail("vault: not settlement price")
    position: int256 = self._held(vault, pair & units.U38)
    other: int256 = self._held(vault, counterparty & units.U38)
    if (position ^ other) >= 0:
        units.fail("vault: same side")
    if convert(min(abs(position), abs(other)), uint256) < size:
        units.fail("vault: larger than the position")
    extcall vault.relay(
        [CASH_SETTLED, convert(market, bytes32)],
        abi_encode(pair >> 6 & units.U32, counterparty >> 6 & units.U32, size, price),
    )
    return position > 0, 0, 0


@view
@external
def check_late(time: uint256) -> bool:
    """
    @dev The closing check of the calling vault's late batch at the newest posted round: True, or a revert with the reason.
    """
    oracle: address = (staticcall door.IVault(msg.sender).clerk_task())[2]
    lateness.check(door.IVault(msg.sender), oracle, time)
    return True


@view
@internal
def _inbox(vault: door.IVault) -> address:
    task: uint256 = 0
    inbox: address = empty(address)
    oracle: address = empty(address)
    task, inbox, oracle = staticcall vault.clerk_task()
    return inbox


@view
@internal
def _loss(
    vault: door.IVault, kind: uint256, pair: uint256, position: int256, size: int256, price: uint256, p: uint256
) -> (int256, int256):
    """
    @dev The loss against the mark, which must be within the bound of its kind, and what the fee may take at most.
    """
    sum: door.Margin = running.margin(vault, pair >> 40 & units.U16)
    if not sum.fresh:
        units.fail("vault: stale price")
    mark: int256 = convert((staticcall vault.word(PRICES | pair & 63)) >> 32 & units.U32, int256)
    value: int256 = convert(p & units.U32, int256)
    maintenance: int256 = convert(sum.maintenance, int256)
    position_maintenance: int256 = self._maintenance(vault, pair & 63, abs(position) * mark * value, p)
    bound: int256 = liquidation.loss_bound(sum.equity, maintenance, position_maintenance, size, abs(position))
    if kind != LIQUIDATION:
        if sum.equity * 3 >= maintenance * 2:
            units.fail("vault: not below two thirds")
        if kind == TAKEOVER:
            return bound, bound
        one: int256 = liquidation.loss_bound(sum.equity, maintenance, position_maintenance, 1, abs(position))
        if self._fund_takes_one(vault, pair & 63, position > 0, mark * value, one, p):
            units.fail("vault: the fund could take it")
        return liquidation.deleveraging_loss(bound), 0
    if sum.equity < 0 or sum.equity >= maintenance:
        units.fail("vault: not liquidatable on book")
    loss: int256 = (mark - convert(price, int256)) * size * value
    if position < 0:
        loss = -loss
    if loss > liquidation.book_loss_bound(bound, position_maintenance, size, abs(position)):
        units.fail("vault: loss above bound")
    return loss, bound - max(loss, 0)


@view
@internal
def _fund_takes_one(
    vault: door.IVault, market: uint256, buys: bool, price: int256, received: int256, p: uint256
) -> bool:
    """
    @dev Whether the insurance fund could take over one more lot, worth `price`, for `received` less a keeper's share: by the market's
         cap, the number of open markets, and its own initial margin, or because it shrinks and loses nothing.
    """
    held: int256 = self._held(vault, ledger.INSURANCE_FUND << 6 | market)
    after: int256 = held - 1
    if buys:
        after = held + 1
    if convert(abs(after), uint256) > p >> ledger.P_FUND_CAP & units.U64:
        return False
    if abs(after) < abs(held) and received >= 0:
        return True
    fee: int256 = liquidation.liquidation_fee(price, convert(p >> ledger.P_LIQUIDATION_FEE & units.U16, int256), received)
    sum: door.Margin = running.margin(vault, 0)
    if held == 0 and sum.open_positions >= ledger.MAX_OPEN_MARKETS:
        return False
    initial: int256 = convert(sum.initial, int256) + self._initial(vault, market, abs(after) * price, p)
    initial -= self._initial(vault, market, abs(held) * price, p)
    return sum.fresh and sum.equity + received - liquidation.keeper_share(fee) >= initial


@internal
def _meet(
    vault: door.IVault, market: uint256, counterparty: uint256, position: int256, size: int256, loss: int256, p: uint256
):
    """
    @dev The counterparty has an opposite position in this market, which shrinks. A user ends at or above maintenance; the fund, which only
         a forced close meets, passes the closing check.
    """
    account: uint256 = counterparty >> 6 & units.U32
    if counterparty & 63 != market:
        units.fail("vault: markets differ")
    held: int256 = self._held(vault, counterparty & units.U38)
    if (held ^ position) >= 0:
        units.fail("vault: same side")
    if abs(held) < size:
        units.fail("vault: larger than the position")
    if account < ledger.FIRST_USER_ACCOUNT:
        return
    sum: door.Margin = running.margin(vault, counterparty >> 40 & units.U16)
    if not sum.fresh:
        units.fail("vault: stale price")
    price: int256 = convert(((staticcall vault.word(PRICES | market)) >> 32 & units.U32) * (p & units.U32), int256)
    maintenance: int256 = convert(sum.maintenance, int256) - self._maintenance(vault, market, abs(held) * price, p)
    maintenance += self._maintenance(vault, market, (abs(held) - size) * price, p)
    if sum.equity + loss < maintenance:
        units.fail("vault: counterparty unhealthy")
    extcall vault.relay(
        [DELEVERAGED, convert(account, bytes32), convert(market, bytes32)], abi_encode(size, -loss)
    )


@view
@internal
def _held(vault: door.IVault, key: uint256) -> int256:
    """
    @dev Lots of a position; its key is account id << 6 | market id.
    """
    return units.signed(staticcall vault.word(ledger.POSITIONS | key), 192)


@view
@internal
def _maintenance(vault: door.IVault, market: uint256, notional: int256, p: uint256) -> int256:
    """
    @dev Maintenance margin of one position.
    """
    return (self._initial(vault, market, notional, p) + 1) >> 1


@view
@internal
def _initial(vault: door.IVault, market: uint256, notional: int256, p: uint256) -> int256:
    third_tier_from: uint256 = p >> ledger.P_THIRD_TIER & units.U32
    tiers: uint256 = ledger.MARKET_T0
    if ledger.reaches(third_tier_from, convert(notional, uint256)):
        tiers = ledger.MARKET_T1
    word: uint256 = staticcall vault.word(tiers | market)
    return convert(ledger.tiered(word, convert(notional, uint256)), int256)


@view
@internal
def _check_fund_cap(vault: door.IVault, market: uint256, buys: bool, size: int256, p: uint256):
    """
    @dev The fund's position after a take-over stays within the market's cap.
    """
    held: int256 = self._held(vault, ledger.INSURANCE_FUND << 6 | market)
    if not buys:
        held = -held
    if convert(abs(held + size), uint256) > p >> ledger.P_FUND_CAP & units.U64:
        units.fail("vault: fund position above cap")
