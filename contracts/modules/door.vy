# pragma version 0.4.3
"""
@title door
@license Apache-2.0
@notice The vault as the contracts see it that work for it within a batch: its words, the margin of an account, its events.
"""

from . import ledger


struct Margin:
    equity: int256
    initial: uint256
    maintenance: uint256
    notional: uint256
    fresh: bool
    open_positions: uint256


interface IVault:
    def clerk_task() -> (uint256, address, address): view
    def running_margin(account_index: uint256) -> Margin: view
    def market_count() -> uint256: view
    def close_outcome(now: uint256, entry_id: uint256, data: uint256, account: uint256, index: uint256) -> uint256: view
    def liquidation_outcome(inbox: address, account: uint256, index: uint256) -> uint256: view
    def word(key: uint256) -> uint256: view
    def write(key: uint256, word: uint256): nonpayable
    def relay(topics: DynArray[bytes32, 4], data: Bytes[128]): nonpayable


@view
@internal
def word(vault: IVault, key: uint256) -> uint256:
    """
    @dev One place that calls: a third of the code size of a call at every use.
    """
    return staticcall vault.word(key)


@internal
def write(vault: IVault, key: uint256, word: uint256):
    extcall vault.write(key, word)


@internal
def add_to(vault: IVault, account: uint256, amount: int256):
    a: uint256 = self.word(vault, account)
    self.write(vault, account, ledger.with_collateral(a, ledger.collateral_of(a) + amount))
