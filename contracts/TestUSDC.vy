# pragma version 0.4.3
# pragma evm-version prague
"""
@title TestUSDC
@license Apache-2.0
@notice A test token with USDC's six decimals, EIP-2612 permits, and a mint that is open to everybody. Worth nothing.
"""

event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    amount: uint256


event Approval:
    owner: indexed(address)
    spender: indexed(address)
    amount: uint256


name: public(constant(String[16])) = "Test USD Coin"
symbol: public(constant(String[8])) = "USDC"
decimals: public(constant(uint8)) = 6

PERMIT_TYPE_HASH: constant(bytes32) = keccak256(
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
DOMAIN_TYPE_HASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
HALF_N: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168

totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
nonces: public(HashMap[address, uint256])


@external
def mint(receiver: address, amount: uint256):
    """
    @notice Makes `amount` new units for `receiver`. Anyone may.
    """
    self.totalSupply += amount
    self.balanceOf[receiver] += amount
    log Transfer(sender=empty(address), receiver=receiver, amount=amount)


@external
def transfer(to: address, amount: uint256) -> bool:
    self._move(msg.sender, to, amount)
    return True


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    allowed: uint256 = self.allowance[owner][msg.sender]
    assert allowed >= amount, "usdc: allowance too low"
    if allowed != max_value(uint256):
        self.allowance[owner][msg.sender] = allowed - amount
    self._move(owner, to, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    self._approve(msg.sender, spender, amount)
    return True


@external
def permit(
    owner: address, spender: address, amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32
):
    """
    @notice EIP-2612: sets an allowance by the owner's signature.
    """
    assert block.timestamp <= deadline, "usdc: permit expired"
    assert convert(s, uint256) <= HALF_N, "usdc: high s"
    nonce: uint256 = self.nonces[owner]
    struct_hash: bytes32 = keccak256(abi_encode(PERMIT_TYPE_HASH, owner, spender, amount, nonce, deadline))
    signer: address = ecrecover(keccak256(concat(b"\x19\x01", self._separator(), struct_hash)), v, r, s)
    assert signer != empty(address) and signer == owner, "usdc: permit signer is not the owner"
    self.nonces[owner] = nonce + 1
    self._approve(owner, spender, amount)


@view
@external
def DOMAIN_SEPARATOR() -> bytes32:
    return self._separator()


@view
@internal
def _separator() -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPE_HASH, keccak256(name), keccak256("1"), chain.id, self))


@internal
def _approve(owner: address, spender: address, amount: uint256):
    self.allowance[owner][spender] = amount
    log Approval(owner=owner, spender=spender, amount=amount)


@internal
def _move(owner: address, to: address, amount: uint256):
    assert to != empty(address), "usdc: to nobody"
    held: uint256 = self.balanceOf[owner]
    assert held >= amount, "usdc: balance too low"
    self.balanceOf[owner] = held - amount
    self.balanceOf[to] += amount
    log Transfer(sender=owner, receiver=to, amount=amount)
