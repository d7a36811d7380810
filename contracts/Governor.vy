# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize codesize
"""
@title Governor
@license Apache-2.0
@notice Timelocked proposals and short pauses; see `interfaces/IGovernor.vyi` for rules and trust assumptions.
"""

from .interfaces import IGovernor
from .interfaces import IMarginVault
from .interfaces import IPriceOracle
from .modules import feeds
from .modules import ledger
from .modules import market_bounds
from .modules import market_terms
from .modules import units

implements: IGovernor


interface IVault:
    def word(key: uint256) -> uint256: view


interface IQueue:
    def queue_change(kind: uint8, topic: uint16, data: uint256) -> uint256: payable


LIST: constant(uint256) = 1
TUNE: constant(uint256) = 2
DELIST: constant(uint256) = 3
KEEPER: constant(uint256) = 4
QUORUMS: constant(uint256) = 5
SEQUENCER: constant(uint256) = 6
REFERENCE: constant(uint256) = 7
GUARDIAN: constant(uint256) = 8
GOVERNOR: constant(uint256) = 9
SETTLE: constant(uint256) = 10

PROPOSED: constant(uint256) = 1
CANCELLED: constant(uint256) = 2
EXECUTED: constant(uint256) = 3
IN_FORCE: constant(uint256) = 4
WITHOUT_EFFECT: constant(uint256) = 5

DELAY_S: constant(uint256) = 172_800  # 48 hours
LONG_DELAY_S: constant(uint256) = 1_209_600  # 14 days
WINDOW_S: constant(uint256) = 86_400  # from the end of the delay to the latest deadline
MAX_PAUSE_S: constant(uint256) = 259_200  # 72 hours
NOTICE_S: constant(uint256) = 259_200  # from a delisting in force, which leaves reduce-only, to the settlement in cash
PAUSE_REST_S: constant(uint256) = 604_800  # a week between the end of a market's pauses and the next
POST_ONLY: constant(uint256) = 1
REDUCE_ONLY: constant(uint256) = 2
CANCEL_ONLY: constant(uint256) = 3
HALTED: constant(uint256) = 4
SETTLED: constant(uint256) = 5
MAX_MARKETS: constant(uint256) = 64
CHANGE_ENTRY: constant(uint8) = 9
PAUSE_ENTRY: constant(uint8) = 10

VAULT: public(immutable(address))
INBOX: public(immutable(address))
ORACLE: public(immutable(address))

governor: public(address)
guardian: public(address)
proposal_count: public(uint256)
pauses_end: public(HashMap[uint256, uint256])  # by market: when the pauses that have begun are over at the latest
_proposals: HashMap[uint256, IGovernor.Proposal]
_configs: HashMap[uint256, IMarginVault.MarketConfig]
_terms: HashMap[uint256, IGovernor.Terms]
_references: HashMap[uint256, IPriceOracle.Reference]


@deploy
def __init__(vault: address, inbox: address, oracle: address, governor: address, guardian: address):
    assert empty(address) not in [vault, inbox, oracle, governor, guardian], "governor: zero address"
    assert governor != guardian, "governor: one for two roles"
    VAULT = vault
    INBOX = inbox
    ORACLE = oracle
    self.governor = governor
    self.guardian = guardian


# -------------------------------------------------------------------------------------------------------------- proposals


@external
def propose_listing(
    config: IMarginVault.MarketConfig, terms: IGovernor.Terms, index_ticks: uint256, deadline: uint256
) -> uint256:
    market_bounds.check(config, terms)
    market_bounds.check_thin(config, index_ticks)
    assert not self._is_listed(keccak256(config.symbol)), "governor: symbol is listed"
    id: uint256 = self._propose(LIST, convert(keccak256(config.symbol), uint256), index_ticks, DELAY_S, deadline)
    self._configs[id] = config
    self._terms[id] = terms
    return id


@external
def propose_tuning(
    market: uint256, config: IMarginVault.MarketConfig, terms: IGovernor.Terms, deadline: uint256
) -> uint256:
    market_bounds.check(config, terms)
    h: uint256 = self._word(ledger.MARKET_H, market)
    assert convert(keccak256(config.symbol), uint256) == h, "governor: another symbol"
    id: uint256 = self._propose(TUNE, market, 0, DELAY_S, deadline)
    self._configs[id] = config
    self._terms[id] = terms
    return id


@external
def propose_delisting(market: uint256, deadline: uint256) -> uint256:
    assert self._word(ledger.MARKET_P, market) != 0, "governor: no such market"
    return self._propose(DELIST, market, 0, DELAY_S, deadline)


@external
def propose_keeper(role: uint256, keeper: address, registered: bool, deadline: uint256) -> uint256:
    assert role < 2 and keeper != empty(address), "governor: no such role"
    delay_s: uint256 = DELAY_S
    detail: uint256 = role
    if registered:
        delay_s = LONG_DELAY_S
        detail |= 1 << 8
    return self._propose(KEEPER, convert(keeper, uint256), detail, delay_s, deadline)


@external
def propose_quorums(oracle_quorum: uint256, funding_quorum: uint256, deadline: uint256) -> uint256:
    assert oracle_quorum % 2 == 1 and oracle_quorum < 16, "governor: bad quorum"
    assert funding_quorum % 2 == 1 and funding_quorum < 16, "governor: bad quorum"
    # Always the long delay: whether it lowers one is known only when it takes effect.
    return self._propose(QUORUMS, 0, oracle_quorum | funding_quorum << 8, LONG_DELAY_S, deadline)


@external
def propose_sequencer(sequencer: address, deadline: uint256) -> uint256:
    assert sequencer != empty(address), "governor: zero address"
    return self._propose(SEQUENCER, convert(sequencer, uint256), 0, DELAY_S, deadline)


@external
def propose_reference(market: uint256, reference: IPriceOracle.Reference, deadline: uint256) -> uint256:
    id: uint256 = self._propose(REFERENCE, market, 0, DELAY_S, deadline)
    self._references[id] = reference
    return id


@external
def propose_role(action: uint256, holder: address, deadline: uint256) -> uint256:
    assert action == GUARDIAN or action == GOVERNOR, "governor: no such role"
    assert holder != empty(address), "governor: zero address"
    return self._propose(action, convert(holder, uint256), 0, LONG_DELAY_S, deadline)


@external
def cancel(proposal_id: uint256):
    proposal: IGovernor.Proposal = self._proposals[proposal_id]
    if msg.sender == self.guardian:
        assert proposal.action != GUARDIAN, "governor: guardian's own end"
    else:
        assert msg.sender == self.governor, "governor: not governor or guardian"
    assert proposal.state == PROPOSED, "governor: not proposed"
    self._proposals[proposal_id].state = CANCELLED
    log IGovernor.Cancelled(id=proposal_id, by=msg.sender)


@payable
@nonreentrant
@external
def execute(proposal_id: uint256) -> uint256:
    proposal: IGovernor.Proposal = self._proposals[proposal_id]
    assert proposal.state == PROPOSED, "governor: not proposed"
    assert block.timestamp >= proposal.ready_at, "governor: too early"
    assert block.timestamp <= proposal.deadline, "governor: deadline has passed"
    self._proposals[proposal_id].state = EXECUTED
    entry: uint256 = 0
    if proposal.action >= REFERENCE:
        assert msg.value == 0, "governor: needs no bond"
        self._at_once(proposal_id, proposal)
    else:
        if proposal.action == TUNE:
            self._check_live(proposal.subject, self._configs[proposal_id])
        entry = extcall IQueue(INBOX).queue_change(CHANGE_ENTRY, 0, proposal_id, value=msg.value)
    log IGovernor.Executed(id=proposal_id, entry=entry)
    return entry


@payable
@nonreentrant
@external
def settle(market: uint256) -> uint256:
    ends_at: uint256 = 0
    price: uint256 = 0
    settled: bool = False
    ends_at, price, settled = staticcall IPriceOracle(ORACLE).ending(market)
    assert price != 0, "governor: no settlement price"
    assert not settled, "governor: settled"
    id: uint256 = self._add(SETTLE, market, price, block.timestamp, block.timestamp)
    self._proposals[id].state = EXECUTED
    entry: uint256 = extcall IQueue(INBOX).queue_change(CHANGE_ENTRY, 0, id, value=msg.value)
    log IGovernor.Executed(id=id, entry=entry)
    return entry


# --------------------------------------------------------------------------------------------------------------- guardian


@payable
@nonreentrant
@external
def pause(markets: DynArray[uint256, 64], mode: uint256, duration_s: uint256):
    assert msg.sender == self.guardian, "governor: only the guardian"
    assert len(markets) != 0, "governor: no markets"
    assert mode <= HALTED, "governor: no such mode"
    assert (mode == 0) == (duration_s == 0), "governor: mode and duration"
    assert duration_s <= MAX_PAUSE_S, "governor: longer than 72 hours"
    assert msg.value % len(markets) == 0, "governor: uneven bonds"
    until: uint256 = 0
    if mode != 0:
        until = block.timestamp + duration_s
    for market: uint256 in markets:
        assert self._word(ledger.MARKET_P, market) != 0, "governor: no such market"
        if mode != 0:
            if block.timestamp >= self.pauses_end[market] + PAUSE_REST_S:
                self.pauses_end[market] = block.timestamp + MAX_PAUSE_S
            assert until <= self.pauses_end[market], "governor: paused for too long"
        entry: uint256 = extcall IQueue(INBOX).queue_change(
            PAUSE_ENTRY, convert(market, uint16), mode | until << 8, value=msg.value // len(markets)
        )
        log IGovernor.Paused(market=market, mode=mode, until=until, entry=entry)


# ------------------------------------------------------------------------------------------------------------- taking effect


@external
def took_effect(proposal_id: uint256):
    assert msg.sender == INBOX, "governor: only the inbox"
    proposal: IGovernor.Proposal = self._proposals[proposal_id]
    applied: bool = self._take_effect(proposal_id, proposal)
    self._proposals[proposal_id].state = IN_FORCE if applied else WITHOUT_EFFECT
    log IGovernor.TookEffect(id=proposal_id, applied=applied)


@internal
def _take_effect(id: uint256, proposal: IGovernor.Proposal) -> bool:
    """
    @dev Whether it still applies. Never reverts, since that would hold up the inbox. The oracle's refusals are caught: what they need is far
         less gas than the rest of the batch, so a submitter cannot feign one by sending too little.
    """
    action: uint256 = proposal.action
    if action == LIST:
        market: uint256 = staticcall IPriceOracle(ORACLE).market_count()
        if market >= MAX_MARKETS or self._is_listed(convert(proposal.subject, bytes32)):
            return False
        self._proposals[id].detail = market
        extcall IPriceOracle(ORACLE).add_market(self._terms[id].jump_ppm_per_s)
        return True
    if action == TUNE:
        if not self._fits(proposal.subject, self._configs[id]):
            return False
        extcall IPriceOracle(ORACLE).set_jump(proposal.subject, self._terms[id].jump_ppm_per_s)
        return True
    if action == DELIST:
        if self._is_ending(proposal.subject):
            return False
        extcall IPriceOracle(ORACLE).end_market(proposal.subject, block.timestamp + NOTICE_S)
        return True
    if action == SETTLE:
        extcall IPriceOracle(ORACLE).settle_market(proposal.subject)
        return True
    if action == KEEPER:
        call: Bytes[36] = abi_encode(proposal.subject, method_id=method_id("remove_oracle_keeper(address)"))
        if proposal.detail == 1:
            call = abi_encode(proposal.subject, method_id=method_id("remove_funding_keeper(address)"))
        elif proposal.detail == 1 << 8:
            call = abi_encode(proposal.subject, method_id=method_id("add_oracle_keeper(address)"))
        elif proposal.detail == (1 << 8 | 1):
            call = abi_encode(proposal.subject, method_id=method_id("add_funding_keeper(address)"))
        return raw_call(ORACLE, call, revert_on_failure=False)
    if action == QUORUMS:
        return raw_call(
            ORACLE,
            abi_encode(proposal.detail & 255, proposal.detail >> 8, method_id=method_id("set_quorums(uint256,uint256)")),
            revert_on_failure=False,
        )
    if action == SEQUENCER:
        extcall IPriceOracle(ORACLE).set_sequencer(convert(convert(proposal.subject, uint160), address))
    return True


@view
@external
def words(kind: uint8, topic: uint16, data: uint256) -> DynArray[uint256, 16]:
    if kind == PAUSE_ENTRY:
        return self._pause_words(convert(topic, uint256), data & units.U8, data >> 8)
    return self._words(data)


@view
@internal
def _words(proposal_id: uint256) -> DynArray[uint256, 16]:
    proposal: IGovernor.Proposal = self._proposals[proposal_id]
    if proposal.state != IN_FORCE:
        return []
    if proposal.action == SEQUENCER:
        return [ledger.SEQUENCER, proposal.subject]
    if proposal.action == LIST:
        market: uint256 = proposal.detail
        new: market_terms.Words = market_terms.pack(self._configs[proposal_id])
        return [
            ledger.MARKET_P | market, new.p,
            ledger.MARKET_S | market, market_terms.running_word(new.t0),
            ledger.MARKET_T0 | market, new.t0,
            ledger.MARKET_T1 | market, new.t1,
            ledger.MARKET_H | market, proposal.subject,
        ]
    market: uint256 = proposal.subject
    if proposal.action == TUNE:
        tuned: market_terms.Words = market_terms.pack(self._configs[proposal_id])
        mode: uint256 = self._word(ledger.MARKET_P, market) >> ledger.P_MODE
        return [
            ledger.MARKET_P | market, tuned.p | mode << ledger.P_MODE,
            ledger.MARKET_T0 | market, tuned.t0,
            ledger.MARKET_T1 | market, tuned.t1,
        ]
    if proposal.action == DELIST:
        return self._delisting_words(market)
    if proposal.action == SETTLE:
        return self._mode_words(market, SETTLED, 0)
    return [0]  # in force in the oracle; no word changes


@view
@internal
def _pause_words(market: uint256, mode: uint256, until: uint256) -> DynArray[uint256, 16]:
    """
    @dev Mode 0 lifts. Beside a mode that stays for good, the stricter of both holds.
    """
    stays: uint256 = self._word(ledger.MARKET_P, market) >> ledger.P_MODE
    m: uint256 = self._word(ledger.MARKET_M, market)
    if m & units.U40 != 0:
        stays = m >> ledger.M_AFTER & units.U8
    if mode == 0:
        return self._mode_words(market, stays, 0)
    return self._mode_words(market, self._stricter(mode, stays), until | stays << ledger.M_AFTER)


@view
@internal
def _delisting_words(market: uint256) -> DynArray[uint256, 16]:
    """
    @dev Reduce-only for good; a pause that runs goes on beside it.
    """
    until: uint256 = self._word(ledger.MARKET_M, market) & units.U40
    mode: uint256 = self._word(ledger.MARKET_P, market) >> ledger.P_MODE
    if until == 0:
        return self._mode_words(market, REDUCE_ONLY, 0)
    return self._mode_words(market, self._stricter(mode, REDUCE_ONLY), until | REDUCE_ONLY << ledger.M_AFTER)


@pure
@internal
def _stricter(mode: uint256, stays: uint256) -> uint256:
    """
    @dev What post-only leaves of reduce-only is cancelling.
    """
    if mode == POST_ONLY and stays == REDUCE_ONLY:
        return CANCEL_ONLY
    return max(mode, stays)


@view
@internal
def _mode_words(market: uint256, mode: uint256, m: uint256) -> DynArray[uint256, 16]:
    p: uint256 = self._word(ledger.MARKET_P, market)
    return [ledger.MARKET_P | market, p & (2**248 - 1) | mode << ledger.P_MODE, ledger.MARKET_M | market, m]


# ------------------------------------------------------------------------------------------------------------------ views


@view
@external
def proposal(proposal_id: uint256) -> IGovernor.Proposal:
    return self._proposals[proposal_id]


@view
@external
def listing(proposal_id: uint256) -> (IMarginVault.MarketConfig, IGovernor.Terms):
    return self._configs[proposal_id], self._terms[proposal_id]


# --------------------------------------------------------------------------------------------------------------- internals


@internal
def _propose(action: uint256, subject: uint256, detail: uint256, delay_s: uint256, deadline: uint256) -> uint256:
    """
    @dev The deadline is within a day of the end of the delay: a transaction that was signed more than a day ago proposes nothing.
    """
    assert msg.sender == self.governor, "governor: only the governor"
    ready_at: uint256 = block.timestamp + delay_s
    assert deadline >= ready_at, "governor: deadline before delay"
    assert deadline <= ready_at + WINDOW_S, "governor: deadline too far"
    return self._add(action, subject, detail, ready_at, deadline)


@internal
def _add(action: uint256, subject: uint256, detail: uint256, ready_at: uint256, deadline: uint256) -> uint256:
    id: uint256 = self.proposal_count + 1
    self.proposal_count = id
    self._proposals[id] = IGovernor.Proposal(
        action=action,
        state=PROPOSED,
        proposed_at=block.timestamp,
        ready_at=ready_at,
        deadline=deadline,
        subject=subject,
        detail=detail,
    )
    log IGovernor.Proposed(id=id, action=action, subject=subject, detail=detail, ready_at=ready_at, deadline=deadline)
    return id


@internal
def _at_once(id: uint256, proposal: IGovernor.Proposal):
    """
    @dev What no batch depends on.
    """
    self._proposals[id].state = IN_FORCE
    if proposal.action == REFERENCE:
        self._check_reference(proposal.subject, self._references[id])
        extcall IPriceOracle(ORACLE).set_reference(proposal.subject, self._references[id])
        return
    holder: address = convert(convert(proposal.subject, uint160), address)
    if proposal.action == GUARDIAN:
        self.guardian = holder
    else:
        self.governor = holder
    assert self.governor != self.guardian, "governor: one for two roles"
    log IGovernor.RoleSet(role=proposal.action, holder=holder)


@view
@internal
def _word(table: uint256, market: uint256) -> uint256:
    assert market < MAX_MARKETS, "governor: no such market"
    return staticcall IVault(VAULT).word(table | market)


@view
@internal
def _is_listed(symbol_hash: bytes32) -> bool:
    for market: uint256 in range(MAX_MARKETS):
        h: uint256 = staticcall IVault(VAULT).word(ledger.MARKET_H | market)
        if h == 0:
            return False
        if h == convert(symbol_hash, uint256):
            return True
    return False


@view
@internal
def _is_ending(market: uint256) -> bool:
    """
    @dev Whether a delisting has taken effect: the market's mode is for good.
    """
    mode: uint256 = self._word(ledger.MARKET_P, market) >> ledger.P_MODE
    m: uint256 = self._word(ledger.MARKET_M, market)
    return m >> ledger.M_AFTER & units.U8 != 0 or (m & units.U40 == 0 and mode != 0)


@view
@internal
def _fits(market: uint256, config: IMarginVault.MarketConfig) -> bool:
    """
    @dev Whether parameters are within reach of those in force: a cap at most doubles, the first fraction at most doubles or halves, and a lot's
         worth stays. A market that ends is tuned no more.
    """
    p: uint256 = self._word(ledger.MARKET_P, market)
    fraction: uint256 = self._word(ledger.MARKET_T0, market) >> 48 & units.U24
    first: uint256 = config.tiers[0].initial_fraction_ppm
    return (
        not self._is_ending(market)
        and p & units.U32 == config.lot_tick_value
        and config.open_interest_cap_lots <= 2 * (p >> ledger.P_OPEN_INTEREST_CAP & units.U64)
        and 2 * first >= fraction
        and first <= 2 * fraction
    )


@view
@internal
def _live_index(market: uint256) -> uint256:
    """
    @dev The newest accepted index in ticks; it must be fresh, and no jump may be held back.
    """
    lane: uint8 = 0
    round: uint256 = 0
    lane, round = staticcall IPriceOracle(ORACLE).newest_round()
    words: DynArray[uint256, 33] = staticcall IPriceOracle(ORACLE).round_words(lane, round)
    assert market // 2 + 1 < len(words), "governor: no live price"
    price: uint256 = words[market // 2 + 1] >> 128 * (market % 2)
    age: uint256 = self._word(ledger.MARKET_P, market) >> ledger.P_MAX_PRICE_AGE & units.U16
    assert (price >> 64 & units.U40) + age >= block.timestamp, "governor: no live price"
    assert price >> 104 & 1 == 0, "governor: no live price"
    return price & units.U32


@view
@internal
def _check_live(market: uint256, config: IMarginVault.MarketConfig):
    """
    @dev Parameters of a live market are measured by its live index in the step that queues them.
    """
    assert self._fits(market, config), "governor: too large a step"
    market_bounds.check_interest(config, self._live_index(market))


@view
@internal
def _check_reference(market: uint256, reference: IPriceOracle.Reference):
    """
    @dev A feed must answer, and agree with the live index, when it becomes the reference.
    """
    if reference.feed == empty(address):
        return
    known: bool = False
    answer: int256 = 0
    since: uint256 = 0
    updated_at: uint256 = 0
    known, answer, since, updated_at = feeds.ask(reference.feed)
    assert known and answer > 0 and answer < 2**128, "governor: the feed is silent"
    assert updated_at + reference.heartbeat_s >= block.timestamp, "governor: the feed is silent"
    ours: uint256 = self._live_index(market) * reference.tick_scale
    theirs: uint256 = convert(answer, uint256) * 10**18
    distance: uint256 = max(ours, theirs) - min(ours, theirs)
    assert distance * units.PPM <= theirs * reference.deviation_ppm, "governor: the feed disagrees"
