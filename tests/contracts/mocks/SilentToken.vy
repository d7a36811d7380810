# pragma version 0.4.3
"""
@title SilentToken
@notice A token that returns nothing from its transfers, as some old ones do.
"""

balanceOf: public(HashMap[address, uint256])


@external
def mint(receiver: address, amount: uint256):
    self.balanceOf[receiver] += amount


@external
def transferFrom(owner: address, to: address, amount: uint256):
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount
