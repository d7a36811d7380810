# pragma version 0.4.3
"""
@title oracle_roles
@license Apache-2.0
@notice Who reports to the price oracle and how many of them it takes, who writes the sequencer lane, and the governor, who alone
        changes that.
"""

from ..interfaces import IPriceOracle

MAX_KEEPERS: constant(uint256) = 15

GOVERNOR: public(immutable(address))

sequencer: public(address)
oracle_quorum: public(uint256)
funding_quorum: public(uint256)
oracle_keeper_count: public(uint256)
funding_keeper_count: public(uint256)
is_oracle_keeper: public(HashMap[address, bool])
is_funding_keeper: public(HashMap[address, bool])


@deploy
def __init__(
    oracle_quorum: uint256,
    oracle_keepers: DynArray[address, 15],
    funding_quorum: uint256,
    funding_keepers: DynArray[address, 15],
    sequencer: address,
    governor: address,
):
    assert sequencer != empty(address) and governor != empty(address), "oracle: zero address"
    GOVERNOR = governor
    self.sequencer = sequencer
    for keeper: address in oracle_keepers:
        self.add_oracle(keeper)
    for keeper: address in funding_keepers:
        self.add_funding(keeper)
    self.put_quorums(oracle_quorum, funding_quorum)


@external
def set_sequencer(sequencer: address):
    self.only_governor()
    assert sequencer != empty(address), "oracle: zero address"
    self.sequencer = sequencer
    log IPriceOracle.SequencerSet(sequencer=sequencer)


@external
def add_oracle_keeper(keeper: address):
    self.only_governor()
    self.add_oracle(keeper)


@external
def remove_oracle_keeper(keeper: address):
    self.only_governor()
    assert self.is_oracle_keeper[keeper], "oracle: unknown keeper"
    assert self.oracle_keeper_count > self.oracle_quorum, "oracle: bad quorum"
    self.is_oracle_keeper[keeper] = False
    self.oracle_keeper_count -= 1
    log IPriceOracle.KeeperSet(keeper=keeper, role=0, registered=False)


@external
def add_funding_keeper(keeper: address):
    self.only_governor()
    self.add_funding(keeper)


@external
def remove_funding_keeper(keeper: address):
    self.only_governor()
    assert self.is_funding_keeper[keeper], "oracle: unknown keeper"
    assert self.funding_keeper_count > self.funding_quorum, "oracle: bad funding quorum"
    self.is_funding_keeper[keeper] = False
    self.funding_keeper_count -= 1
    log IPriceOracle.KeeperSet(keeper=keeper, role=1, registered=False)


@external
def set_quorums(oracle_quorum: uint256, funding_quorum: uint256):
    self.only_governor()
    self.put_quorums(oracle_quorum, funding_quorum)


@view
@internal
def only_governor():
    assert msg.sender == GOVERNOR, "oracle: only the governor"


@internal
def add_oracle(keeper: address):
    assert keeper != empty(address) and not self.is_oracle_keeper[keeper], "oracle: keeper repeated"
    assert self.oracle_keeper_count < MAX_KEEPERS, "oracle: too many keepers"
    self.is_oracle_keeper[keeper] = True
    self.oracle_keeper_count += 1
    log IPriceOracle.KeeperSet(keeper=keeper, role=0, registered=True)


@internal
def add_funding(keeper: address):
    assert keeper != empty(address) and not self.is_funding_keeper[keeper], "oracle: keeper repeated"
    assert self.funding_keeper_count < MAX_KEEPERS, "oracle: too many keepers"
    self.is_funding_keeper[keeper] = True
    self.funding_keeper_count += 1
    log IPriceOracle.KeeperSet(keeper=keeper, role=1, registered=True)


@internal
def put_quorums(oracle_quorum: uint256, funding_quorum: uint256):
    assert oracle_quorum % 2 == 1 and oracle_quorum <= self.oracle_keeper_count, "oracle: bad quorum"
    assert funding_quorum % 2 == 1 and funding_quorum <= self.funding_keeper_count, "oracle: bad funding quorum"
    self.oracle_quorum = oracle_quorum
    self.funding_quorum = funding_quorum
    log IPriceOracle.QuorumsSet(oracle_quorum=oracle_quorum, funding_quorum=funding_quorum)
