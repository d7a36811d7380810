# pragma version 0.4.3
# A token that can refuse to pay an address, or answer false; otherwise minimal.

balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
refused: HashMap[address, bool]
lies: bool


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    return True


@external
def blacklist(who: address, is_refused: bool):
    self.refused[who] = is_refused


@external
def answer_false(lies: bool):
    self.lies = lies


@external
def transfer(to: address, amount: uint256) -> bool:
    assert not self.refused[to], "token: blacklisted"
    if self.lies:
        return False
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[to] += amount
    return True


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    self.allowance[owner][msg.sender] -= amount
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount
    return True
