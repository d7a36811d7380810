# pragma version 0.4.3
"""
@title ledger
@license Apache-2.0
@notice What the vault stores, packed as docs/settlement.md ("Storage") says, and the few ways it changes.
@dev Fixed arrays instead of mappings spare a hash per access.
"""

from . import units

INSURANCE_FUND: constant(uint256) = 1
FEE_ACCOUNT: constant(uint256) = 2
FIRST_USER_ACCOUNT: constant(uint256) = 3
MAX_OPEN_MARKETS: constant(uint256) = 16

# Bit offsets inside the words.
A_TAKER_SEQUENCE: constant(uint256) = 96
A_MIN_SEQUENCE: constant(uint256) = 144
A_OPEN_POSITIONS: constant(uint256) = 192
B_SUB_ACCOUNT: constant(uint256) = 160
B_ACTION_SEQUENCE: constant(uint256) = 176
B_REGISTERED: constant(uint256) = 224
P_PRICE_BAND: constant(uint256) = 32
P_LIQUIDATION_FEE: constant(uint256) = 56
P_MAX_PRICE_AGE: constant(uint256) = 72
P_OPEN_INTEREST_CAP: constant(uint256) = 88
P_FUND_CAP: constant(uint256) = 152
P_THIRD_TIER: constant(uint256) = 216
P_MODE: constant(uint256) = 248
REDUCE_ONLY: constant(uint256) = 2  # a mode
# Word M: when the mode of word P ends u40 (0: never), and the mode after it u8.
M_AFTER: constant(uint256) = 40
S_OPEN_INTEREST: constant(uint256) = 128
S_LAST_HOUR: constant(uint256) = 192
# The first tier, for a notional of less than 2^bits that no other tier can apply to: spares reading the tiers' word.
S_FIRST_FRACTION: constant(uint256) = 225  # u20
S_FIRST_BITS: constant(uint256) = 245  # u7, 0: read the tiers' word
COUNTERS_FEES: constant(uint256) = 184
ROTATED: constant(uint256) = 1 << 111  # in the counters: the sequencer is no longer the vault's first one
SLOT_TRIGGERED: constant(uint256) = 110

# Tables in `words`, which is one array so that a word is named by one number; account word A is at the account's id.
MARKET_P: constant(uint256) = 1 << 39
MARKET_T0: constant(uint256) = MARKET_P + 64
MARKET_T1: constant(uint256) = MARKET_P + 128
MARKET_H: constant(uint256) = MARKET_P + 192
MARKET_S: constant(uint256) = MARKET_P + 256
MARKET_M: constant(uint256) = MARKET_P + 320
FORCED: constant(uint256) = MARKET_P + 384  # forced closes of the hour; modules/forced.vy
SEQUENCER: constant(uint256) = MARKET_P + 448  # who settles since the first rotation; `ROTATED` says that there was one
# Last batch id u48, inbox head u63, rotated u1, account count u32, claim count u40, the fee account's collateral u72: rebates never exceed the taker's
# fee, so it is never negative, and it costs no word of its own.
COUNTERS: constant(uint256) = MARKET_P + 512
POOL: constant(uint256) = MARKET_P + 513  # funding pool int128, dust u64
CREDITED: constant(uint256) = MARKET_P + 514  # tokens that collateral, pool and claims share out
DEPOSITS: constant(uint256) = MARKET_P + 515  # int128: what collateral and pool share out, credited tokens without the claims
OUTFLOW: constant(uint256) = MARKET_P + 516  # how much left lately; modules/outflow.vy
CLOSING: constant(uint256) = MARKET_P + 520  # how far the inbox entry is that was last closed for
B: constant(uint256) = 1 << 40
CLAIMS: constant(uint256) = 1 << 41
CLAIM_DUES: constant(uint256) = CLAIMS | 1 << 40  # from when on a claim is payable, 0 for at once
POSITIONS: constant(uint256) = 1 << 46  # account id << 6 | market id
SLOTS: constant(uint256) = 1 << 47  # account id << 15 | slot >> 1
# Tables in `named`: account ids by owner | sub-account << 160, agents by agent | account id << 160 with this bit.
AGENTS: constant(uint256) = 1 << 255

words: uint256[2**48]
named: HashMap[uint256, uint256]


@deploy
def __init__():
    """
    @dev Reserved accounts begin with a taker sequence of 1: their word is then never zero, and no first use is dear.
    """
    self.words[INSURANCE_FUND] = 1 << A_TAKER_SEQUENCE
    self.words[FEE_ACCOUNT] = 1 << A_TAKER_SEQUENCE
    self.words[COUNTERS] = 1 << 48 | 2 << 112


@pure
@internal
def collateral_of(a: uint256) -> int256:
    return convert(convert(a << 160, bytes32), int256) >> 160


@pure
@internal
def with_collateral(a: uint256, collateral: int256) -> uint256:
    """
    @dev Word A with another collateral, which must fit 96 bits.
    """
    if collateral > units.MAX_COLLATERAL or collateral < -units.MAX_COLLATERAL:
        units.fail("vault: collateral out of range")
    return a >> 96 << 96 | convert(convert(collateral, bytes32), uint256) & units.U96


@view
@internal
def account_word(account: uint256) -> uint256:
    """
    @dev Word A as everybody else sees it: the fee account's collateral is kept with the counters.
    """
    if account == FEE_ACCOUNT:
        return self.words[FEE_ACCOUNT] | self.words[COUNTERS] >> COUNTERS_FEES
    return self.words[account]


@internal
def set_account_word(account: uint256, word: uint256):
    kept: uint256 = word
    if account == FEE_ACCOUNT:
        kept = word >> 96 << 96
        self.set_counters(self.words[COUNTERS] & units.U184, word & units.U96)
    self.words[account] = kept


@internal
def set_counters(counters: uint256, fees: uint256):
    """
    @dev Counters and the fee account's collateral; a negative one is refused as a huge one.
    """
    if fees > units.U72:
        units.fail("vault: collateral out of range")
    self.words[COUNTERS] = counters & units.U184 | fees << COUNTERS_FEES


@internal
def credit(account: uint256, amount: int256):
    a: uint256 = self.words[account]
    self.words[account] = self.with_collateral(a, self.collateral_of(a) + amount)


@internal
def settle_funding(owed: int256, remainder: int256) -> int256:
    """
    @dev Pays what positions owed, in sum, into the pool, and joins what rounding added to the dust.
    @return Whole units of dust, which leave the pool and belong to the insurance fund.
    """
    word: uint256 = self.words[POOL]
    dust: int256 = unsafe_add(convert(word >> 128, int256), remainder)
    whole: int256 = unsafe_div(dust, units.FUNDING_SCALE)
    pool: int256 = units.signed(word, 128) + owed - whole
    self.words[POOL] = units.bits(pool) & units.U128 | units.bits(unsafe_sub(dust, whole * units.FUNDING_SCALE)) << 128
    return whole


@view
@internal
def initial_margin(market: uint256, p: uint256, notional: uint256) -> uint256:
    """
    @dev `margin.initial_margin`, by the words of tiers.
    """
    if self.reaches(p >> P_THIRD_TIER & units.U32, notional):
        return self.tiered(self.words[MARKET_T1 | market], notional)
    return self.tiered(self.words[MARKET_T0 | market], notional)


@pure
@internal
def first_tier_margin(s: uint256, notional: uint256) -> uint256:
    """
    @dev The same by word S, for a notional whose bits are within those of the first tier.
    """
    return unsafe_div(
        unsafe_add(unsafe_mul(notional, s >> S_FIRST_FRACTION & units.U20), units.PPM - 1), units.PPM
    )


@pure
@internal
def first_tier(tiers: uint256) -> uint256:
    """
    @dev The first tier as word S keeps it: its fraction, and the bits of a notional that is below the second tier.
    """
    second: uint256 = (tiers >> 128 & units.U48) * units.USDC
    size: uint256 = 127
    if second != 0:
        for _: uint256 in range(127):
            if second >> size != 0:
                break
            size = unsafe_sub(size, 1)
    return (tiers >> 48 & units.U20) << S_FIRST_FRACTION | size << S_FIRST_BITS


@pure
@internal
def reaches(third_tier_from: uint256, notional: uint256) -> bool:
    return third_tier_from != 0 and notional >= unsafe_mul(third_tier_from, units.USDC)


@pure
@internal
def tiered(tiers: uint256, notional: uint256) -> uint256:
    """
    @dev N * fraction_n - deduction_n, rounded up, for the tier of a word of two that applies. A tier is: lower notional in
         whole USDC u48, initial fraction ppm u24, deduction u56; 0 for no such tier.
    """
    tier: uint256 = tiers >> 128
    if tier == 0 or notional < unsafe_mul(tier & units.U48, units.USDC):
        tier = tiers & units.U128
    margin: uint256 = unsafe_add(notional * (tier >> 48 & units.U24), units.PPM - 1) // units.PPM
    return unsafe_sub(margin, tier >> 72 & (2**56 - 1))
