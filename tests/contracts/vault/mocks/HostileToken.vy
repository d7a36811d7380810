# pragma version 0.4.3
# A token that refuses, answers false, keeps a fee of what it moves, or calls vault and inbox back while it moves something.

balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
succeeded: public(bool)
refuses: bool
lies: bool
fee_ppm: uint256
reenters: bool
vault: address
inbox: address
claim: uint256


@external
def behave(refuses: bool, lies: bool, fee_ppm: uint256, reenters: bool):
    self.refuses = refuses
    self.lies = lies
    self.fee_ppm = fee_ppm
    self.reenters = reenters


@external
def aim(vault: address, inbox: address, claim: uint256):
    self.vault = vault
    self.inbox = inbox
    self.claim = claim


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    return True


@external
def transfer(to: address, amount: uint256) -> bool:
    return self._move(msg.sender, to, amount, self.vault)


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    self.allowance[owner][msg.sender] -= amount
    return self._move(owner, to, amount, self.inbox)


@internal
def _move(owner: address, to: address, amount: uint256, caller: address) -> bool:
    """
    @dev `caller` is locked while this runs; the other contract has nothing that this token may do.
    """
    assert not self.refuses, "token: refused"
    if self.lies:
        return False
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount - amount * self.fee_ppm // 1_000_000
    if self.reenters:
        self._call(self.vault, abi_encode(self.claim, method_id=method_id("pay(uint256)")), caller == self.vault)
        self._call(self.vault, method_id("settle()"), True)
        self._call(self.inbox, abi_encode(convert(1, uint256), method_id=method_id("consume(uint256)")), True)
        self._call(
            self.inbox,
            abi_encode(convert(0, uint256), convert(0, uint256), method_id=method_id("deposit(uint256,uint16)")),
            caller == self.inbox,
        )
    return True


@internal
def _call(target: address, data: Bytes[100], must_fail: bool):
    success: bool = raw_call(target, data, revert_on_failure=False)
    if success and must_fail:
        self.succeeded = True
