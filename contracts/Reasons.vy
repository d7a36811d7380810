# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize codesize
"""
@title Reasons
@license Apache-2.0
@notice Spells the numbers by which the vault refuses; the table is modules/reasons.vy. No storage, no rights.
"""

from .modules import reasons


@pure
@external
def reason(code: uint256) -> String[32]:
    """
    @dev What the vault says when it refuses for this reason.
    """
    return reasons.text(code)
