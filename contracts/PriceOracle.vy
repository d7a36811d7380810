# pragma version 0.4.3
# pragma evm-version prague
"""
@title PriceOracle
@license Apache-2.0
@notice Median prices and funding rates from quorums of keepers; see `interfaces/IPriceOracle.vyi` and docs/oracle.md. The mirror
        of `evermark/protocol/oracle.py`.
"""

from .interfaces import IPriceOracle
from .modules import feeds
from .modules import medians
from .modules import oracle_roles

implements: IPriceOracle
initializes: oracle_roles
exports: oracle_roles.__interface__

RING: constant(uint256) = 4096  # rounds kept per lane
MAX_MARKETS: constant(uint256) = 64
MAX_REPORTS: constant(uint256) = 15
FUTURE_S: constant(uint256) = 5  # how far a report may be ahead of the block
SEQUENCER_LANE: constant(uint8) = 0
PUBLIC_LANE: constant(uint8) = 1
MIN_JUMP_PPM: constant(uint256) = 1_000  # bounds of how far a price may move in a second
MAX_JUMP_PPM: constant(uint256) = 100_000
MIN_DEVIATION_PPM: constant(uint256) = 1_000  # bounds of how far a price may be from its reference
MAX_DEVIATION_PPM: constant(uint256) = 500_000
MIN_HEARTBEAT_S: constant(uint256) = 60  # bounds of how old a reference may be
MAX_HEARTBEAT_S: constant(uint256) = 172_800
MAX_SCALE_DIGITS: constant(uint256) = 36
RESTART_GRACE_S: constant(uint256) = 3_600  # after an outage of the chain: time to add margin before anybody is liquidated
PPM: constant(uint256) = 1_000_000
U8: constant(uint256) = 2**8 - 1
U32: constant(uint256) = 2**32 - 1
U64: constant(uint256) = 2**64 - 1
MEAN_S: constant(uint256) = 3_600  # the hour whose mean index a delisted market settles at
# Word of what a market's prices follow: how far one moves in a second u32, when the market ends u40 at 32 (0: never), and at 72 its
# settlement price u32, once it is in force.
ENDS_AT: constant(uint256) = 32
SETTLED_AT: constant(uint256) = 72
# Word of a market that ends: sum of index x seconds u64, the time up to which it was summed u40 at 64, the index then u32 at 104, and the mean
# u32 at 136, once the hour is over.
SUMMED_TO: constant(uint256) = 64
LAST_INDEX: constant(uint256) = 104
MEAN: constant(uint256) = 136
U40: constant(uint256) = 2**40 - 1
U80: constant(uint256) = 2**80 - 1
U128: constant(uint256) = 2**128 - 1
MAX_RATE_PPB: constant(int256) = 2**31 - 1
HALF_N: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
DOMAIN_TYPE_HASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
PRICE_TYPE_HASH: constant(bytes32) = keccak256("PriceReport(uint64 round,uint64 timestamp,uint256[] prices)")
FUNDING_TYPE_HASH: constant(bytes32) = keccak256("FundingReport(uint64 hour,int256[] ratesPpb,bytes32 samples)")

ROUND_SECONDS: public(immutable(uint256))
UPTIME_FEED: public(immutable(address))

market_count: public(uint256)
reference: public(HashMap[uint256, IPriceOracle.Reference])
last_round: public(HashMap[uint8, uint256])
funding_posted_at: public(HashMap[uint256, uint256])
_ring: HashMap[uint8, uint256[33][4096]]
_terms: HashMap[uint256, uint256]
_endings: HashMap[uint256, uint256]
_rates: HashMap[uint256, DynArray[int256, 64]]


@deploy
def __init__(
    round_seconds: uint256,
    oracle_quorum: uint256,
    jumps_ppm_per_s: DynArray[uint256, 64],
    oracle_keepers: DynArray[address, 15],
    funding_quorum: uint256,
    funding_keepers: DynArray[address, 15],
    sequencer: address,
    governor: address,
    uptime_feed: address,
):
    """
    @param jumps_ppm_per_s By market id; as many markets as there are.
    @param governor May not exist yet: governor and oracle name each other.
    @param uptime_feed An L2's AggregatorV3Interface that answers 0 while the chain is up, or nobody.
    """
    assert round_seconds > 0 and len(jumps_ppm_per_s) > 0, "oracle: bad parameters"
    oracle_roles.__init__(oracle_quorum, oracle_keepers, funding_quorum, funding_keepers, sequencer, governor)
    ROUND_SECONDS = round_seconds
    UPTIME_FEED = uptime_feed
    for jump_ppm: uint256 in jumps_ppm_per_s:
        self._set_jump(self.market_count, jump_ppm)
        self.market_count += 1


# --------------------------------------------------------------------------------------------------------------- governor


@external
def add_market(jump_ppm_per_s: uint256) -> uint256:
    oracle_roles.only_governor()
    market: uint256 = self.market_count
    assert market < MAX_MARKETS, "oracle: too many markets"
    self._set_jump(market, jump_ppm_per_s)
    self.market_count = market + 1
    return market


@external
def set_jump(market: uint256, jump_ppm_per_s: uint256):
    oracle_roles.only_governor()
    assert market < self.market_count, "oracle: no such market"
    self._set_jump(market, jump_ppm_per_s)


@external
def set_reference(market: uint256, reference: IPriceOracle.Reference):
    oracle_roles.only_governor()
    assert market < self.market_count, "oracle: no such market"
    if reference.feed != empty(address):
        assert MIN_DEVIATION_PPM <= reference.deviation_ppm, "oracle: reference deviation"
        assert reference.deviation_ppm <= MAX_DEVIATION_PPM, "oracle: reference deviation"
        assert MIN_HEARTBEAT_S <= reference.heartbeat_s, "oracle: reference heartbeat"
        assert reference.heartbeat_s <= MAX_HEARTBEAT_S, "oracle: reference heartbeat"
        assert reference.tick_scale > 0, "oracle: reference scale"
        assert reference.tick_scale <= 10**MAX_SCALE_DIGITS, "oracle: reference scale"
    self.reference[market] = reference
    log IPriceOracle.ReferenceSet(
        market=market,
        feed=reference.feed,
        deviation_ppm=reference.deviation_ppm,
        heartbeat_s=reference.heartbeat_s,
        tick_scale=reference.tick_scale,
    )


@external
def end_market(market: uint256, ends_at: uint256):
    oracle_roles.only_governor()
    terms: uint256 = self._terms[market]
    assert terms != 0 and terms >> ENDS_AT == 0, "oracle: no market to end"
    self._terms[market] = terms | ends_at << ENDS_AT
    log IPriceOracle.MarketEnds(market=market, ends_at=ends_at)


@external
def settle_market(market: uint256):
    oracle_roles.only_governor()
    price: uint256 = self._endings[market] >> MEAN
    terms: uint256 = self._terms[market]
    assert price != 0 and terms >> SETTLED_AT == 0, "oracle: no market to settle"
    self._terms[market] = terms | price << SETTLED_AT


@internal
def _set_jump(market: uint256, jump_ppm_per_s: uint256):
    assert MIN_JUMP_PPM <= jump_ppm_per_s and jump_ppm_per_s <= MAX_JUMP_PPM, "oracle: jump band"
    self._terms[market] = self._terms[market] >> ENDS_AT << ENDS_AT | jump_ppm_per_s
    log IPriceOracle.JumpSet(market=market, jump_ppm_per_s=jump_ppm_per_s)


# ---------------------------------------------------------------------------------------------------------------- rounds


@external
def post_round(reports: DynArray[IPriceOracle.Report, 15]):
    assert msg.sender == oracle_roles.sequencer, "oracle: only the sequencer"
    self._post(SEQUENCER_LANE, reports)


@external
def post_round_public(reports: DynArray[IPriceOracle.Report, 15]):
    self._post(PUBLIC_LANE, reports)


@external
def post_funding(reports: DynArray[IPriceOracle.FundingReport, 15]):
    assert len(reports) >= oracle_roles.funding_quorum, "oracle: below the quorum"
    hour: uint256 = convert(reports[0].hour, uint256)
    assert self.funding_posted_at[hour] == 0, "oracle: hour already posted"
    assert hour * 3600 + 3600 <= block.timestamp + FUTURE_S, "oracle: hour not over"
    markets: uint256 = self.market_count
    last: uint256 = 0
    for report: IPriceOracle.FundingReport in reports:
        assert convert(report.hour, uint256) == hour, "oracle: hours differ"
        assert len(report.rates_ppb) <= markets, "oracle: too many markets"
        signer: address = self._signer(self._funding_hash(report), report.r, report.s, report.v)
        assert oracle_roles.is_funding_keeper[signer], "oracle: unknown keeper"
        assert convert(signer, uint256) > last, "oracle: signers not ascending"
        last = convert(signer, uint256)
    rates: DynArray[int256, 64] = []
    for market: uint256 in range(markets, bound=MAX_MARKETS):
        values: DynArray[int256, MAX_REPORTS] = []
        for report: IPriceOracle.FundingReport in reports:
            rate: int256 = 0
            if market < len(report.rates_ppb):
                rate = report.rates_ppb[market]
            assert rate >= -MAX_RATE_PPB and rate <= MAX_RATE_PPB, "oracle: rate out of range"
            values.append(rate)
        rates.append(medians.median(values))
    self._rates[hour] = rates
    self.funding_posted_at[hour] = block.timestamp
    log IPriceOracle.FundingPosted(hour=hour, rates_ppb=rates)


@internal
def _post(lane: uint8, reports: DynArray[IPriceOracle.Report, 15]):
    quorum: uint256 = oracle_roles.oracle_quorum
    markets: uint256 = self.market_count
    assert len(reports) >= quorum, "oracle: below the quorum"
    round_: uint256 = convert(reports[0].round, uint256)
    last: uint256 = self.last_round[lane]
    assert round_ > last, "oracle: round not newer"
    times: DynArray[int256, MAX_REPORTS] = self._verify(round_, reports, markets)
    timestamp: uint256 = convert(medians.median(times), uint256)
    header: uint256 = round_ | (timestamp << 40)
    words: DynArray[uint256, 33] = [header]
    old: uint256 = 0
    word: uint256 = 0
    for market: uint256 in range(markets, bound=MAX_MARKETS):
        at: uint256 = market // 2 + 1
        if market % 2 == 0:
            old = self._ring[lane][last % RING][at]
            word = 0
        offset: uint256 = 128 * (market % 2)
        terms: uint256 = self._terms[market]
        price: uint256 = self._price(market, reports, timestamp, (old >> offset) & U128, quorum, terms)
        if terms >> ENDS_AT != 0:
            self._weigh(market, terms >> ENDS_AT & U40, timestamp, price & U32)
        word |= price << offset
        if market % 2 == 1 or market + 1 == markets:
            self._ring[lane][round_ % RING][at] = word
            words.append(word)
    # Markets are never taken away, so what lies behind the last word is zero, whatever older lap of the ring wrote here.
    prices_hash: bytes32 = keccak256(slice(abi_encode(words), 64, 32 * len(words)))
    self._ring[lane][round_ % RING][0] = header | markets << 80 | convert(prices_hash, uint256) >> 88 << 88
    self.last_round[lane] = round_
    log IPriceOracle.RoundPosted(lane=lane, round=round_, timestamp=timestamp, prices_hash=prices_hash)


@view
@internal
def _verify(
    round_: uint256, reports: DynArray[IPriceOracle.Report, 15], markets: uint256
) -> DynArray[int256, MAX_REPORTS]:
    """
    @dev Every report's signer and time; returns the times.
    """
    times: DynArray[int256, MAX_REPORTS] = []
    last: uint256 = 0
    for report: IPriceOracle.Report in reports:
        timestamp: uint256 = convert(report.timestamp, uint256)
        assert convert(report.round, uint256) == round_, "oracle: rounds differ"
        assert timestamp // ROUND_SECONDS == round_, "oracle: time outside the round"
        assert timestamp <= block.timestamp + FUTURE_S, "oracle: time in the future"
        assert len(report.prices) <= markets, "oracle: too many markets"
        signer: address = self._signer(self._price_hash(report), report.r, report.s, report.v)
        assert oracle_roles.is_oracle_keeper[signer], "oracle: unknown keeper"
        assert convert(signer, uint256) > last, "oracle: signers not ascending"
        last = convert(signer, uint256)
        times.append(convert(report.timestamp, int256))
    return times


@view
@internal
def _price(
    market: uint256, reports: DynArray[IPriceOracle.Report, 15], timestamp: uint256, old: uint256, quorum: uint256, terms: uint256
) -> uint256:
    """
    @dev A market's 128 bits: lower medians of index and mark, or the old price where too few keepers report. A settled market has its
         settlement price, as of now, whatever is reported.
    """
    settled: uint256 = terms >> SETTLED_AT
    if settled != 0:
        return settled | settled << 32 | timestamp << 64
    indices: DynArray[int256, MAX_REPORTS] = []
    marks: DynArray[int256, MAX_REPORTS] = []
    for report: IPriceOracle.Report in reports:
        if market >= len(report.prices):
            continue
        price: uint256 = report.prices[market]
        if price == 0:
            continue
        assert price >> 64 == 0, "oracle: price too large"
        assert price >> 32 != 0 and price & U32 != 0, "oracle: zero price"
        indices.append(convert(price >> 32, int256))
        marks.append(convert(price & U32, int256))
    if len(indices) < quorum:
        return old
    index: uint256 = convert(medians.median(indices), uint256)
    mark: uint256 = convert(medians.median(marks), uint256)
    self._check_reference(market, index)
    return medians.accepted(old, index, mark, timestamp, terms & U32)


@internal
def _weigh(market: uint256, ends_at: uint256, timestamp: uint256, index: uint256):
    """
    @dev Sums the index over the last hour of a market that ends: each one counts from the time of its round to that of the next, in whichever
         lane, and the first one from the beginning of the hour. The first round at or after the end fixes the mean.
    """
    word: uint256 = self._endings[market]
    since: uint256 = word >> SUMMED_TO & U40
    last: uint256 = word >> LAST_INDEX & U32
    if since == 0:
        since = ends_at - MEAN_S
        last = index
    if timestamp <= since or word >> MEAN != 0:
        return
    sum: uint256 = (word & U64) + last * (min(timestamp, ends_at) - since)
    mean: uint256 = 0
    if timestamp >= ends_at:
        mean = max(sum // MEAN_S, 1)  # without any price there are no positions
        log IPriceOracle.SettlementPrice(market=market, price=mean)
    self._endings[market] = sum | timestamp << SUMMED_TO | index << LAST_INDEX | mean << MEAN


@view
@internal
def _check_reference(market: uint256, index: uint256):
    """
    @dev A median that is far from a live reference is refused. One that is silent or broken bounds nothing: a dead feed must not
         be able to stop the exchange.
    """
    reference: IPriceOracle.Reference = self.reference[market]
    if reference.feed == empty(address):
        return
    known: bool = False
    answer: int256 = 0
    since: uint256 = 0
    updated_at: uint256 = 0
    known, answer, since, updated_at = feeds.ask(reference.feed)
    if not known or answer <= 0 or answer >= 2**128 or updated_at + reference.heartbeat_s < block.timestamp:
        return
    # In units of the feed: ticks * tick_scale / 1e18.
    ours: uint256 = index * reference.tick_scale
    theirs: uint256 = convert(answer, uint256) * 10**18
    distance: uint256 = max(ours, theirs) - min(ours, theirs)
    assert distance * PPM <= theirs * reference.deviation_ppm, "oracle: far from its reference"


@view
@internal
def _price_hash(report: IPriceOracle.Report) -> bytes32:
    # EIP-712 hashes an array's elements; their ABI encoding is the same behind its offset and length.
    prices: bytes32 = keccak256(slice(abi_encode(report.prices), 64, 32 * len(report.prices)))
    return keccak256(abi_encode(PRICE_TYPE_HASH, report.round, report.timestamp, prices))


@view
@internal
def _funding_hash(report: IPriceOracle.FundingReport) -> bytes32:
    rates: bytes32 = keccak256(slice(abi_encode(report.rates_ppb), 64, 32 * len(report.rates_ppb)))
    return keccak256(abi_encode(FUNDING_TYPE_HASH, report.hour, rates, report.samples))


@view
@internal
def _signer(struct_hash: bytes32, r: uint256, s: uint256, v: uint8) -> address:
    assert s <= HALF_N, "oracle: high s"
    signer: address = ecrecover(keccak256(concat(b"\x19\x01", self._separator(), struct_hash)), v, r, s)
    assert signer != empty(address), "oracle: no signer"
    return signer


@view
@internal
def _separator() -> bytes32:
    return keccak256(
        abi_encode(DOMAIN_TYPE_HASH, keccak256("Evermark Oracle"), keccak256("1"), chain.id, self)
    )


@view
@internal
def _header(lane: uint8, round_: uint256) -> uint256:
    header: uint256 = self._ring[lane][round_ % RING][0]
    assert round_ > 0 and header & U40 == round_, "oracle: no such round"
    return header


@view
@internal
def _words(lane: uint8, round_: uint256) -> DynArray[uint256, 33]:
    header: uint256 = self._header(lane, round_)
    words: DynArray[uint256, 33] = [header & U80]
    for at: uint256 in range(1, ((header >> 80 & U8) + 1) // 2 + 1, bound=32):
        words.append(self._ring[lane][round_ % RING][at])
    return words


@view
@external
def round_words(lane: uint8, round_: uint256) -> DynArray[uint256, 33]:
    return self._words(lane, round_)


@view
@external
def some_words(lane: uint8, round_: uint256, wanted: uint256) -> DynArray[uint256, 33]:
    words: DynArray[uint256, 33] = [self._header(lane, round_)]
    for at: uint256 in range(1, 33):
        if wanted >> at & 1 == 1:
            words.append(self._ring[lane][round_ % RING][at])
    return words


@view
@external
def prices_hash(lane: uint8, round_: uint256) -> bytes32:
    words: DynArray[uint256, 33] = self._words(lane, round_)
    return keccak256(slice(abi_encode(words), 64, 32 * len(words)))


@view
@external
def newest_round() -> (uint8, uint256):
    if self.last_round[PUBLIC_LANE] > self.last_round[SEQUENCER_LANE]:
        return PUBLIC_LANE, self.last_round[PUBLIC_LANE]
    return SEQUENCER_LANE, self.last_round[SEQUENCER_LANE]


@view
@external
def jump_ppm_per_s(market: uint256) -> uint256:
    return self._terms[market] & U32


@view
@external
def ending(market: uint256) -> (uint256, uint256, bool):
    terms: uint256 = self._terms[market]
    return terms >> ENDS_AT & U40, self._endings[market] >> MEAN, terms >> SETTLED_AT != 0


@view
@external
def restarted() -> bool:
    if UPTIME_FEED == empty(address):
        return False
    known: bool = False
    down: int256 = 0
    since: uint256 = 0
    updated_at: uint256 = 0
    known, down, since, updated_at = feeds.ask(UPTIME_FEED)
    return not known or down != 0 or block.timestamp < since + RESTART_GRACE_S


@view
@external
def funding_rates(hour: uint256) -> DynArray[int256, 64]:
    assert self.funding_posted_at[hour] != 0, "oracle: hour not posted"
    return self._rates[hour]


@view
@external
def domain_separator() -> bytes32:
    return self._separator()
