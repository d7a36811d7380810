# pragma version 0.4.3
"""
@title reasons
@license Apache-2.0
@notice Why the vault refuses, as numbers: the vault's code names a number and `Reasons` spells it, which saves the
        vault 40 bytes a check.
"""


interface IReasons:
    def reason(code: uint256) -> String[32]: view


NOTHING_TO_PAY: constant(uint256) = 1
TOKEN_REFUSED: constant(uint256) = 2
NOT_THE_SEQUENCER: constant(uint256) = 3
BATCH_ID_NOT_NEXT: constant(uint256) = 4
BATCH_TOO_LARGE: constant(uint256) = 5
TRAILING_BYTES: constant(uint256) = 6
PRICES_HASH_DIFFERS: constant(uint256) = 7
ROUND_TOO_OLD: constant(uint256) = 8
MARKETS_NOT_ASCENDING: constant(uint256) = 9
NO_SUCH_MARKET: constant(uint256) = 10
OPEN_INTEREST_ABOVE_CAP: constant(uint256) = 11
NOT_ONE_OF_ITS_CONTRACTS: constant(uint256) = 12
ACCOUNTS_NOT_ASCENDING: constant(uint256) = 13
PAIRS_NOT_ASCENDING: constant(uint256) = 14
NO_SUCH_ACCOUNT_INDEX: constant(uint256) = 15
MARKET_NOT_IN_TABLE: constant(uint256) = 16
NO_SUCH_PAIR: constant(uint256) = 17
TARGET_ALSO_TRADES: constant(uint256) = 18
TOO_MANY_OPEN_MARKETS: constant(uint256) = 19
POSITION_TOO_LARGE: constant(uint256) = 20
COLLATERAL_OUT_OF_RANGE: constant(uint256) = 21
POSITIONS_NOT_NAMED: constant(uint256) = 22
BELOW_INITIAL_MARGIN: constant(uint256) = 23
GREW_ON_A_STALE_PRICE: constant(uint256) = 24
DEFICIT_GREW: constant(uint256) = 25
MARGIN_RATIO_FELL: constant(uint256) = 26
ROWS_NOT_ASCENDING: constant(uint256) = 27
ORDER_EXPIRED: constant(uint256) = 28
SEQUENCE_TOO_FAR_AHEAD: constant(uint256) = 29
ORDER_TOO_LARGE: constant(uint256) = 30
ORDER_VOIDED: constant(uint256) = 31
NO_SUCH_FEE_CLASS: constant(uint256) = 32
SLOT_0_NEVER_RESTS: constant(uint256) = 33
NOT_OWNER_NOR_LIVE_AGENT: constant(uint256) = 34
ROWS_NOT_VERIFIED: constant(uint256) = 35
UNKNOWN_ACCOUNT: constant(uint256) = 36
UNKNOWN_TRIGGER: constant(uint256) = 37
FEE_ABOVE_SIGNED_MAXIMUM: constant(uint256) = 38
ORDER_OVERFILLED: constant(uint256) = 39
ORDER_REPLACED: constant(uint256) = 40
TAKER_SEQUENCE_TOO_LOW: constant(uint256) = 41
SLOT_SEQUENCE_TOO_LOW: constant(uint256) = 42
ORDER_NOT_TRIGGERED: constant(uint256) = 43
FILL_DOES_NOT_REDUCE: constant(uint256) = 44
NO_SUCH_ORDER_ROW: constant(uint256) = 45
FILL_KIND_RESERVED: constant(uint256) = 46
FILL_SIZE_OUT_OF_RANGE: constant(uint256) = 47
NOT_THE_FUNDS_PAIR: constant(uint256) = 48
SAME_SIDE: constant(uint256) = 49
REBATE_ABOVE_TAKER_FEE: constant(uint256) = 50
STALE_PRICE: constant(uint256) = 51
MARKETS_DIFFER: constant(uint256) = 52
ORDER_NEVER_MAKES: constant(uint256) = 53
PRICE_OUTSIDE_BAND: constant(uint256) = 54
POST_ONLY_WOULD_TAKE: constant(uint256) = 55
PRICE_BEYOND_LIMIT: constant(uint256) = 56
NOTIONAL_TOO_LARGE: constant(uint256) = 57
HIGH_S: constant(uint256) = 58
NO_SIGNER: constant(uint256) = 59
FROZEN: constant(uint256) = 60
PAYABLE_AT: constant(uint256) = 61  # with the time, above the lowest eight bits
NOT_THE_BUILDER: constant(uint256) = 62
TOO_LATE_FOR_IT: constant(uint256) = 63
MARKET_CLOSED: constant(uint256) = 70

REASONS: immutable(address)


@deploy
def __init__(reasons: address):
    REASONS = reasons


@view
@internal
def fail(code: uint256):
    raise staticcall IReasons(REASONS).reason(code)


@pure
@internal
def text(code: uint256) -> String[32]:
    if code & 255 == PAYABLE_AT:
        return concat("vault: payable at ", uint2str(convert(code >> 8, uint40)))
    if code == NOTHING_TO_PAY:
        return "vault: nothing to pay"
    if code == TOKEN_REFUSED:
        return "vault: token refused"
    if code == NOT_THE_SEQUENCER:
        return "vault: not the sequencer"
    if code == BATCH_ID_NOT_NEXT:
        return "vault: batch id not next"
    if code == BATCH_TOO_LARGE:
        return "vault: batch too large"
    if code == TRAILING_BYTES:
        return "vault: trailing bytes"
    if code == PRICES_HASH_DIFFERS:
        return "vault: prices hash differs"
    if code == ROUND_TOO_OLD:
        return "vault: round too old"
    if code == MARKETS_NOT_ASCENDING:
        return "vault: markets not ascending"
    if code == NO_SUCH_MARKET:
        return "vault: no such market"
    if code == OPEN_INTEREST_ABOVE_CAP:
        return "vault: open interest above cap"
    if code == NOT_ONE_OF_ITS_CONTRACTS:
        return "vault: not one of its contracts"
    if code == ACCOUNTS_NOT_ASCENDING:
        return "vault: accounts not ascending"
    if code == PAIRS_NOT_ASCENDING:
        return "vault: pairs not ascending"
    if code == NO_SUCH_ACCOUNT_INDEX:
        return "vault: no such account index"
    if code == MARKET_NOT_IN_TABLE:
        return "vault: market not in table"
    if code == NO_SUCH_PAIR:
        return "vault: no such pair"
    if code == TARGET_ALSO_TRADES:
        return "vault: target also trades"
    if code == TOO_MANY_OPEN_MARKETS:
        return "vault: too many open markets"
    if code == POSITION_TOO_LARGE:
        return "vault: position too large"
    if code == COLLATERAL_OUT_OF_RANGE:
        return "vault: collateral out of range"
    if code == POSITIONS_NOT_NAMED:
        return "vault: positions not named"
    if code == BELOW_INITIAL_MARGIN:
        return "vault: below initial margin"
    if code == GREW_ON_A_STALE_PRICE:
        return "vault: grew on a stale price"
    if code == DEFICIT_GREW:
        return "vault: deficit grew"
    if code == MARGIN_RATIO_FELL:
        return "vault: margin ratio fell"
    if code == ROWS_NOT_ASCENDING:
        return "vault: rows not ascending"
    if code == ORDER_EXPIRED:
        return "vault: order expired"
    if code == SEQUENCE_TOO_FAR_AHEAD:
        return "vault: sequence too far ahead"
    if code == ORDER_TOO_LARGE:
        return "vault: order too large"
    if code == ORDER_VOIDED:
        return "vault: order voided"
    if code == NO_SUCH_FEE_CLASS:
        return "vault: no such fee class"
    if code == SLOT_0_NEVER_RESTS:
        return "vault: slot 0 never rests"
    if code == NOT_OWNER_NOR_LIVE_AGENT:
        return "vault: not owner nor live agent"
    if code == ROWS_NOT_VERIFIED:
        return "vault: rows not verified"
    if code == UNKNOWN_ACCOUNT:
        return "vault: unknown account"
    if code == UNKNOWN_TRIGGER:
        return "vault: unknown trigger"
    if code == FEE_ABOVE_SIGNED_MAXIMUM:
        return "vault: fee above signed maximum"
    if code == ORDER_OVERFILLED:
        return "vault: order overfilled"
    if code == ORDER_REPLACED:
        return "vault: order replaced"
    if code == TAKER_SEQUENCE_TOO_LOW:
        return "vault: taker sequence too low"
    if code == SLOT_SEQUENCE_TOO_LOW:
        return "vault: slot sequence too low"
    if code == ORDER_NOT_TRIGGERED:
        return "vault: order not triggered"
    if code == FILL_DOES_NOT_REDUCE:
        return "vault: fill does not reduce"
    if code == NO_SUCH_ORDER_ROW:
        return "vault: no such order row"
    if code == FILL_KIND_RESERVED:
        return "vault: fill kind reserved"
    if code == FILL_SIZE_OUT_OF_RANGE:
        return "vault: fill size out of range"
    if code == NOT_THE_FUNDS_PAIR:
        return "vault: not the fund's pair"
    if code == SAME_SIDE:
        return "vault: same side"
    if code == REBATE_ABOVE_TAKER_FEE:
        return "vault: rebate above taker fee"
    if code == STALE_PRICE:
        return "vault: stale price"
    if code == MARKETS_DIFFER:
        return "vault: markets differ"
    if code == ORDER_NEVER_MAKES:
        return "vault: order never makes"
    if code == PRICE_OUTSIDE_BAND:
        return "vault: price outside band"
    if code == POST_ONLY_WOULD_TAKE:
        return "vault: post-only would take"
    if code == PRICE_BEYOND_LIMIT:
        return "vault: price beyond limit"
    if code == NOTIONAL_TOO_LARGE:
        return "vault: notional too large"
    if code == HIGH_S:
        return "vault: high s"
    if code == NO_SIGNER:
        return "vault: no signer"
    if code == FROZEN:
        return "vault: frozen"
    if code == NOT_THE_BUILDER:
        return "vault: not the builder's account"
    if code == TOO_LATE_FOR_IT:
        return "vault: late, so only order fills"
    if code == MARKET_CLOSED:
        return "vault: market closed to trades"
    return "vault: refused"
