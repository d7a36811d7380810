# pragma version 0.4.3
# A token that calls the vault's pay() again while it is paying, or anything else.


interface IVault:
    def pay(claim_id: uint256): nonpayable


balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
attempts: public(uint256)
succeeded: public(bool)
vault: address
claim: uint256
target: address
data: Bytes[100]


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    return True


@external
def arm(vault: address, claim: uint256):
    self.vault = vault
    self.claim = claim


@external
def arm_call(target: address, data: Bytes[100]):
    self.target = target
    self.data = data


@internal
def _call_back():
    if self.target != empty(address):
        self.attempts += 1
        self.succeeded = raw_call(self.target, self.data, revert_on_failure=False)


@external
def transfer(to: address, amount: uint256) -> bool:
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[to] += amount
    if self.vault != empty(address):
        self.attempts += 1
        self.succeeded = raw_call(
            self.vault, abi_encode(self.claim, method_id=method_id("pay(uint256)")), revert_on_failure=False
        )
    self._call_back()
    return True


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    self.allowance[owner][msg.sender] -= amount
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount
    self._call_back()
    return True
