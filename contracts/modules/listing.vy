# pragma version 0.4.3
"""
@title listing
@license Apache-2.0
@notice The markets that a vault begins with; later ones come through the inbox (modules/governance.vy).
"""

from . import ledger
from . import market_terms
from ..interfaces import IMarginVault

uses: ledger


@internal
def add(market: uint256, config: IMarginVault.MarketConfig):
    """
    @dev Lists a market under the next id, `market`.
    """
    words: market_terms.Words = market_terms.pack(config)
    symbol_hash: bytes32 = keccak256(config.symbol)
    for other: uint256 in range(market, bound=64):
        assert ledger.words[ledger.MARKET_H | other] != convert(symbol_hash, uint256), "vault: symbol listed twice"
    ledger.words[ledger.MARKET_P | market] = words.p
    ledger.words[ledger.MARKET_T0 | market] = words.t0
    ledger.words[ledger.MARKET_T1 | market] = words.t1
    ledger.words[ledger.MARKET_H | market] = convert(symbol_hash, uint256)
    ledger.words[ledger.MARKET_S | market] = market_terms.running_word(words.t0)
