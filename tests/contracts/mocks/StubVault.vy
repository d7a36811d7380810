# pragma version 0.4.3
"""
@title StubVault
@notice Stands where the vault stands for the inbox: says who is registered, consumes, and can pass tokens on.
"""

from contracts.interfaces import IERC20
from contracts.interfaces import IInbox

COUNTERS: constant(uint256) = 2**39 + 512
B: constant(uint256) = 1 << 40

batch_id: public(uint256)
ids: HashMap[address, HashMap[uint16, uint256]]
owners: HashMap[uint256, address]


@external
def register(owner: address, sub_account: uint16, account_id: uint256):
    self.ids[owner][sub_account] = account_id
    self.owners[account_id] = owner


@view
@external
def account_of(owner: address, sub_account: uint16) -> uint256:
    return self.ids[owner][sub_account]


@external
def freeze():
    self.batch_id = 2**48 - 1


@view
@external
def word(key: uint256) -> uint256:
    if key == COUNTERS:
        return self.batch_id
    return convert(self.owners[key ^ B], uint256)


@external
def consume(inbox: address, count: uint256):
    extcall IInbox(inbox).consume(count, msg.sender)


@external
def pass_on(token: address, to: address, amount: uint256):
    extcall IERC20(token).transfer(to, amount)
