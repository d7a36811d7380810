# pragma version 0.4.3
"""
@title Feed
@license Apache-2.0
@notice A test's AggregatorV3Interface: says what it is told, or nothing.
"""

answer: public(int256)
started_at: public(uint256)
updated_at: public(uint256)
silent: public(bool)


@external
def tell(answer: int256, started_at: uint256, updated_at: uint256):
    self.answer = answer
    self.started_at = started_at
    self.updated_at = updated_at


@external
def fall_silent():
    self.silent = True


@view
@external
def latestRoundData() -> (uint80, int256, uint256, uint256, uint80):
    assert not self.silent, "feed: silent"
    return 1, self.answer, self.started_at, self.updated_at, 1
