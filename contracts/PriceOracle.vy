# pragma version 0.4.3
# pragma evm-version prague
"""
@title PriceOracle
@license Apache-2.0
@notice Median prices and funding rates from quorums of keepers; see `interfaces/IPriceOracle.vyi`. The mirror of
        `evermark/protocol/oracle.py`.
"""

from contracts.interfaces import IPriceOracle

implements: IPriceOracle

RING: constant(uint256) = 4096  # rounds kept per lane
MAX_MARKETS: constant(uint256) = 64
MAX_REPORTS: constant(uint256) = 15
FUTURE_S: constant(uint256) = 5  # how far a report may be ahead of the block
SEQUENCER_LANE: constant(uint8) = 0
PUBLIC_LANE: constant(uint8) = 1
U32: constant(uint256) = 2**32 - 1
U40: constant(uint256) = 2**40 - 1
U128: constant(uint256) = 2**128 - 1
MAX_RATE_PPB: constant(int256) = 2**31 - 1
HALF_N: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
DOMAIN_TYPE_HASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
PRICE_TYPE_HASH: constant(bytes32) = keccak256("PriceReport(uint64 round,uint64 timestamp,uint256[] prices)")
FUNDING_TYPE_HASH: constant(bytes32) = keccak256("FundingReport(uint64 hour,int256[] ratesPpb,bytes32 samples)")

ROUND_SECONDS: public(immutable(uint256))
ORACLE_QUORUM: public(immutable(uint256))
FUNDING_QUORUM: public(immutable(uint256))
MARKETS: public(immutable(uint256))
SEQUENCER: public(immutable(address))

is_oracle_keeper: public(HashMap[address, bool])
is_funding_keeper: public(HashMap[address, bool])
last_round: public(HashMap[uint8, uint256])
funding_posted_at: public(HashMap[uint256, uint256])
_ring: HashMap[uint8, uint256[33][4096]]
_rates: HashMap[uint256, DynArray[int256, 64]]


@deploy
def __init__(
    round_seconds: uint256,
    oracle_quorum: uint256,
    markets: uint256,
    oracle_keepers: DynArray[address, 15],
    funding_quorum: uint256,
    funding_keepers: DynArray[address, 15],
    sequencer: address,
):
    assert round_seconds > 0 and markets > 0 and markets <= MAX_MARKETS, "oracle: bad parameters"
    assert oracle_quorum % 2 == 1 and oracle_quorum <= len(oracle_keepers), "oracle: bad quorum"
    assert funding_quorum % 2 == 1 and funding_quorum <= len(funding_keepers), "oracle: bad funding quorum"
    ROUND_SECONDS = round_seconds
    ORACLE_QUORUM = oracle_quorum
    FUNDING_QUORUM = funding_quorum
    MARKETS = markets
    SEQUENCER = sequencer
    for keeper: address in oracle_keepers:
        assert keeper != empty(address) and not self.is_oracle_keeper[keeper], "oracle: keeper repeated"
        self.is_oracle_keeper[keeper] = True
    for keeper: address in funding_keepers:
        assert keeper != empty(address) and not self.is_funding_keeper[keeper], "oracle: keeper repeated"
        self.is_funding_keeper[keeper] = True


@external
def post_round(reports: DynArray[IPriceOracle.Report, 15]):
    assert msg.sender == SEQUENCER, "oracle: only the sequencer"
    self._post(SEQUENCER_LANE, reports)


@external
def post_round_public(reports: DynArray[IPriceOracle.Report, 15]):
    self._post(PUBLIC_LANE, reports)


@external
def post_funding(reports: DynArray[IPriceOracle.FundingReport, 15]):
    assert len(reports) >= FUNDING_QUORUM, "oracle: below the quorum"
    hour: uint256 = convert(reports[0].hour, uint256)
    assert self.funding_posted_at[hour] == 0, "oracle: hour already posted"
    assert hour * 3600 + 3600 <= block.timestamp + FUTURE_S, "oracle: hour not over"
    last: uint256 = 0
    for report: IPriceOracle.FundingReport in reports:
        assert convert(report.hour, uint256) == hour, "oracle: hours differ"
        assert len(report.rates_ppb) == MARKETS, "oracle: wrong number of markets"
        signer: address = self._signer(self._funding_hash(report), report.r, report.s, report.v)
        assert self.is_funding_keeper[signer], "oracle: unknown keeper"
        assert convert(signer, uint256) > last, "oracle: signers not ascending"
        last = convert(signer, uint256)
    rates: DynArray[int256, 64] = []
    for market: uint256 in range(MARKETS, bound=MAX_MARKETS):
        values: DynArray[int256, MAX_REPORTS] = []
        for report: IPriceOracle.FundingReport in reports:
            rate: int256 = report.rates_ppb[market]
            assert rate >= -MAX_RATE_PPB and rate <= MAX_RATE_PPB, "oracle: rate out of range"
            values.append(rate)
        rates.append(self._median(values))
    self._rates[hour] = rates
    self.funding_posted_at[hour] = block.timestamp
    log IPriceOracle.FundingPosted(hour=hour, rates_ppb=rates)


@internal
def _post(lane: uint8, reports: DynArray[IPriceOracle.Report, 15]):
    assert len(reports) >= ORACLE_QUORUM, "oracle: below the quorum"
    round_: uint256 = convert(reports[0].round, uint256)
    last: uint256 = self.last_round[lane]
    assert round_ > last, "oracle: round not newer"
    times: DynArray[int256, MAX_REPORTS] = self._verify(round_, reports)
    timestamp: uint256 = convert(self._median(times), uint256)
    self._ring[lane][round_ % RING][0] = round_ | (timestamp << 40)
    old: uint256 = 0
    word: uint256 = 0
    for market: uint256 in range(MARKETS, bound=MAX_MARKETS):
        at: uint256 = market // 2 + 1
        if market % 2 == 0:
            old = self._ring[lane][last % RING][at]
            word = 0
        offset: uint256 = 128 * (market % 2)
        word |= self._price(market, reports, timestamp, (old >> offset) & U128) << offset
        if market % 2 == 1 or market + 1 == MARKETS:
            self._ring[lane][round_ % RING][at] = word
    self.last_round[lane] = round_
    log IPriceOracle.RoundPosted(
        lane=lane, round=round_, timestamp=timestamp, prices_hash=self._prices_hash(lane, round_)
    )


@view
@internal
def _verify(round_: uint256, reports: DynArray[IPriceOracle.Report, 15]) -> DynArray[int256, MAX_REPORTS]:
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
        assert len(report.prices) == MARKETS, "oracle: wrong number of markets"
        signer: address = self._signer(self._price_hash(report), report.r, report.s, report.v)
        assert self.is_oracle_keeper[signer], "oracle: unknown keeper"
        assert convert(signer, uint256) > last, "oracle: signers not ascending"
        last = convert(signer, uint256)
        times.append(convert(report.timestamp, int256))
    return times


@view
@internal
def _price(
    market: uint256, reports: DynArray[IPriceOracle.Report, 15], timestamp: uint256, old: uint256
) -> uint256:
    """
    @dev A market's 128 bits: lower medians of index and mark, or the old price where too few keepers report.
    """
    indices: DynArray[int256, MAX_REPORTS] = []
    marks: DynArray[int256, MAX_REPORTS] = []
    for report: IPriceOracle.Report in reports:
        price: uint256 = report.prices[market]
        if price == 0:
            continue
        assert price >> 64 == 0, "oracle: price too large"
        assert price >> 32 != 0 and price & U32 != 0, "oracle: zero price"
        indices.append(convert(price >> 32, int256))
        marks.append(convert(price & U32, int256))
    if len(indices) < ORACLE_QUORUM:
        return old
    index: uint256 = convert(self._median(indices), uint256)
    mark: uint256 = convert(self._median(marks), uint256)
    return index | (mark << 32) | (timestamp << 64)


@pure
@internal
def _median(values: DynArray[int256, MAX_REPORTS]) -> int256:
    """
    @dev The lower median, by insertion sort.
    """
    ordered: DynArray[int256, MAX_REPORTS] = values
    for i: uint256 in range(1, len(values), bound=MAX_REPORTS):
        value: int256 = ordered[i]
        at: uint256 = i
        for _: uint256 in range(MAX_REPORTS):
            if at == 0 or ordered[at - 1] <= value:
                break
            ordered[at] = ordered[at - 1]
            at -= 1
        ordered[at] = value
    return ordered[(len(values) - 1) // 2]


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
def _words(lane: uint8, round_: uint256) -> DynArray[uint256, 33]:
    header: uint256 = self._ring[lane][round_ % RING][0]
    assert round_ > 0 and header & U40 == round_, "oracle: no such round"
    words: DynArray[uint256, 33] = [header]
    for at: uint256 in range(1, (MARKETS + 1) // 2 + 1, bound=32):
        words.append(self._ring[lane][round_ % RING][at])
    return words


@view
@internal
def _prices_hash(lane: uint8, round_: uint256) -> bytes32:
    words: DynArray[uint256, 33] = self._words(lane, round_)
    return keccak256(slice(abi_encode(words), 64, 32 * len(words)))


@view
@external
def round_words(lane: uint8, round_: uint256) -> DynArray[uint256, 33]:
    return self._words(lane, round_)


@view
@external
def prices_hash(lane: uint8, round_: uint256) -> bytes32:
    return self._prices_hash(lane, round_)


@view
@external
def funding_rates(hour: uint256) -> DynArray[int256, 64]:
    assert self.funding_posted_at[hour] != 0, "oracle: hour not posted"
    return self._rates[hour]


@view
@external
def domain_separator() -> bytes32:
    return self._separator()
