# pragma version 0.4.3
"""
@title governance
@license Apache-2.0
@notice Section 1 of a batch, entries of governor and guardian: the words of the exchange that they change.
@dev Whatever the governor's code may answer, only parameters can change here: not a funding index, an open interest, a symbol or a lot's worth of
     a market that exists, nor anything of an account.
"""

from . import door
from . import ledger
from . import units

WORD_SET: constant(bytes32) = keccak256("WordSet(uint256,uint256)")


@internal
def write(vault: door.IVault, words: DynArray[uint256, 16]):
    """
    @param words Numbers of words, each before its new content.
    """
    for i: uint256 in range(len(words) // 2, bound=8):
        key: uint256 = words[2 * i]
        word: uint256 = words[2 * i + 1]
        old: uint256 = staticcall vault.word(key)
        fixed: uint256 = 0  # bits that stay
        if old != 0:
            if key < ledger.MARKET_T0:
                fixed = units.U32
            elif key >= ledger.MARKET_H and key < ledger.MARKET_M:
                fixed = max_value(uint256)
        if key >= ledger.FORCED and key < ledger.SEQUENCER:
            key = 0
        if key >> 9 != ledger.MARKET_P >> 9 or (old ^ word) & fixed != 0:
            units.fail("vault: not the governor's word")
        if key == ledger.SEQUENCER:
            extcall vault.write(ledger.COUNTERS, staticcall vault.word(ledger.COUNTERS) | ledger.ROTATED)
        extcall vault.write(key, word)
        extcall vault.relay([WORD_SET, convert(key, bytes32)], abi_encode(word))
