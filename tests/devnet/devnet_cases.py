"""Transactions and JSON-RPC requests as the devnet's tests send them."""

from typing import Any

import aiohttp
from eth_account.signers.local import LocalAccount

GWEI = 10**9
GENESIS_TIME = 1_760_129_400  # 2025-10-10T20:50:00Z


def transfer(
    sender: LocalAccount, to: str, nonce: int, value: int = 1, fee_gwei: int = 3, **fields: Any
) -> bytes:
    """A signed transfer."""
    transaction = {
        "type": 2,
        "chainId": 31337,
        "nonce": nonce,
        "to": to,
        "value": value,
        "gas": 21_000,
        "maxFeePerGas": fee_gwei * GWEI,
        "maxPriorityFeePerGas": fee_gwei * GWEI // 3,
        **fields,
    }
    return bytes(sender.sign_transaction(transaction).raw_transaction)


async def post(url: str, body: Any) -> Any:
    """Send a body, JSON or raw text, and decode the answer; the status is always 200."""
    data = {"data": body} if isinstance(body, str | bytes) else {"json": body}
    async with aiohttp.ClientSession() as session, session.post(url, **data) as response:
        assert response.status == 200
        return await response.json()


async def ask(url: str, method: str, *params: Any) -> Any:
    """One request; the whole answer."""
    return await post(url, {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)})


async def result(url: str, method: str, *params: Any) -> Any:
    """One request that succeeds; its result."""
    answer = await ask(url, method, *params)
    assert "error" not in answer, answer
    return answer["result"]


async def error(url: str, method: str, *params: Any) -> Any:
    """One request that fails; its error object."""
    answer = await ask(url, method, *params)
    assert "result" not in answer, answer
    return answer["error"]
