# pragma version 0.4.3
"""
@title OddToken
@notice A token with the habits that real ones have: it may take a fee, answer false, answer nothing that decodes as true,
        or call somebody in the middle of a transfer.
"""

balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
fee_percent: public(uint256)
extra: public(uint256)
refuses: public(bool)
called_back: public(address)
call_data: public(Bytes[256])


@external
def mint(receiver: address, amount: uint256):
    self.balanceOf[receiver] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    return True


@external
def take_fee(percent: uint256):
    self.fee_percent = percent


@external
def give_more(extra: uint256):
    self.extra = extra


@external
def refuse(refuses: bool):
    self.refuses = refuses


@external
def call_back(to: address, data: Bytes[256]):
    self.called_back = to
    self.call_data = data


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    if self.refuses:
        return False
    self.allowance[owner][msg.sender] -= amount
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount - amount * self.fee_percent // 100 + self.extra
    if self.called_back != empty(address):
        raw_call(self.called_back, self.call_data)
    return True
