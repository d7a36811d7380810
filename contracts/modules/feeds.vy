# pragma version 0.4.3
"""
@title feeds
@license Apache-2.0
@notice Reads an AggregatorV3Interface without trusting it to answer.
"""

U40: constant(uint256) = 2**40 - 1


@view
@internal
def ask(feed: address) -> (bool, int256, uint256, uint256):
    """
    @dev AggregatorV3Interface.latestRoundData(): whether it answered at all, its answer, since when, and when it was last updated.
         It cannot be starved of gas to silence it: the 64th part that is left is too little to store a round.
    """
    ok: bool = False
    data: Bytes[160] = b""
    ok, data = raw_call(
        feed,
        method_id("latestRoundData()"),
        max_outsize=160,
        gas=100_000,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not ok or len(data) != 160:
        return False, 0, 0, 0
    round_id: uint256 = 0
    answer: int256 = 0
    started_at: uint256 = 0
    updated_at: uint256 = 0
    answered_in: uint256 = 0
    round_id, answer, started_at, updated_at, answered_in = abi_decode(
        data, (uint256, int256, uint256, uint256, uint256)
    )
    return True, answer, min(started_at, U40), min(updated_at, U40)
