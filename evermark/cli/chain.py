"""The few chain calls that commands make themselves: plain JSON-RPC, so that no command loads web3."""

import asyncio
import time
from typing import Any

import aiohttp
from eth_hash.auto import keccak

from evermark.cli.errors import CliError
from evermark.protocol.signing import Signer

TRANSFER_GAS = 21_000
CALL_GAS = 400_000
TIP_WEI = 10**9
RECEIPT_S = 60.0
POLL_S = 0.1
DONATION = 2  # kind of inbox entry


async def call(url: str, method: str, *params: Any) -> Any:
    """Result of one JSON-RPC call. Raises CliError when nobody answers or it is refused."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            async with session.post(url, json=body) as response:
                answer = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        raise CliError(f"no chain answers at {url}; name another with --rpc-url") from None
    if not isinstance(answer, dict) or "result" not in answer:
        error = answer.get("error") if isinstance(answer, dict) else None
        reason = error.get("message") if isinstance(error, dict) else answer
        raise CliError(f"chain: {method}: {reason}")
    return answer["result"]


def quiet_retries() -> None:
    """Reads that are tried again say nothing of their own; how it ends is told in a line of the command's."""
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks(())


def reason(error: Exception) -> str:
    """What a contract or a node said, without what a library put around it."""
    text = str(getattr(error, "message", None) or error)
    return text.removeprefix("execution reverted").removeprefix(": ") or "it gives no reason"


async def result_or_none(url: str, method: str, *params: Any) -> Any:
    """Result of one JSON-RPC call, None when nobody answers or it is refused."""
    try:
        return await call(url, method, *params)
    except CliError:
        return None


async def ether(url: str, address: str) -> int:
    """Balance in wei."""
    return int(await call(url, "eth_getBalance", address, "latest"), 16)


async def tokens(url: str, token: str, owner: str) -> int:
    """Quote units that `owner` holds in the wallet."""
    data = encode_call("balanceOf(address)", bytes.fromhex(owner[2:]))
    return int(await call(url, "eth_call", {"to": token, "data": data}, "latest"), 16)


async def send_ether(url: str, key: bytes, to: str, wei: int) -> str:
    """Transfer, wait until it is mined; the transaction's hash."""
    return await send(url, key, {"to": to, "value": wei, "data": "0x", "gas": TRANSFER_GAS})


async def mint(url: str, key: bytes, token: str, to: str, amount: int) -> str:
    """Make test USDC; only the test token lets anybody do so."""
    data = encode_call("mint(address,uint256)", bytes.fromhex(to[2:]), amount)
    return await send(url, key, {"to": token, "value": 0, "data": data, "gas": CALL_GAS})


async def donate(url: str, key: bytes, token: str, inbox: str, amount: int) -> None:
    """Make test USDC and give it to the insurance fund."""
    giver = "0x" + Signer(key).address.hex()
    await mint(url, key, token, giver, amount)
    approval = encode_call("approve(address,uint256)", bytes.fromhex(inbox[2:]), amount)
    await send(url, key, {"to": token, "value": 0, "data": approval, "gas": CALL_GAS})
    asked = {"to": inbox, "data": encode_call("bond(uint8)", DONATION)}
    bond = int(await call(url, "eth_call", asked, "latest"), 16)
    donation = {"to": inbox, "value": bond, "data": encode_call("donate(uint256)", amount), "gas": CALL_GAS}
    await send(url, key, donation)


async def send(url: str, key: bytes, transaction: dict[str, Any]) -> str:
    """Sign, send and wait for the receipt. Raises CliError when it reverts or is not mined in a minute."""
    from eth_account import Account  # half a second to load, and only transactions need it

    account = Account.from_key(key)
    head = await call(url, "eth_getBlockByNumber", "latest", False)
    complete = {
        "type": 2,
        "chainId": int(await call(url, "eth_chainId"), 16),
        "nonce": int(await call(url, "eth_getTransactionCount", account.address, "pending"), 16),
        "maxPriorityFeePerGas": TIP_WEI,
        "maxFeePerGas": 2 * int(head["baseFeePerGas"], 16) + TIP_WEI,
        **transaction,
    }
    complete["to"] = bytes.fromhex(complete["to"][2:])
    signed = account.sign_transaction(complete)
    sent = await call(url, "eth_sendRawTransaction", "0x" + bytes(signed.raw_transaction).hex())
    deadline = time.monotonic() + RECEIPT_S
    while True:
        receipt = await call(url, "eth_getTransactionReceipt", sent)
        if receipt is not None:
            break
        if time.monotonic() > deadline:
            raise CliError(f"chain: transaction {sent} not mined in {RECEIPT_S:.0f} s")
        await asyncio.sleep(POLL_S)
    if int(receipt["status"], 16) != 1:
        raise CliError(f"chain: transaction {sent} reverted")
    return str(sent)


def encode_call(signature: str, *arguments: bytes | int) -> str:
    """Calldata of a function whose arguments are all static words, 0x-hex."""
    words = [value if isinstance(value, bytes) else value.to_bytes(32, "big") for value in arguments]
    return "0x" + (keccak(signature.encode())[:4] + b"".join(word.rjust(32, b"\0") for word in words)).hex()
