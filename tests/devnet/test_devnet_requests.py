"""JSON-RPC as such: batches, malformed requests, unknown methods, browsers, and what a wallet asks first."""

import aiohttp
import pytest
from devnet_cases import ask, error, post, result

from evermark.devnet import dev_key
from evermark.protocol.signing import Signer


async def test_a_wallet_finds_its_way(devnet, w3):
    """Chain id, accounts, balances and fees are there before the first block."""
    assert await w3.eth.chain_id == 31337
    assert await result(devnet.url, "net_version") == "31337"
    assert await result(devnet.url, "eth_syncing") is False
    assert "evermark" in await w3.client_version
    accounts = await w3.eth.accounts
    assert len(accounts) == 20
    assert accounts[0] == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert bytes.fromhex(accounts[19][2:]) == Signer(dev_key(19)).address
    assert await w3.eth.get_balance(accounts[19]) == 10_000 * 10**18
    history = await w3.eth.fee_history(1, "latest", [50])
    assert history["baseFeePerGas"][0] == 10**9
    assert await w3.eth.gas_price > await w3.eth.max_priority_fee > 0


async def test_a_batch_is_answered_in_order(devnet):
    """Each request of a batch has its own answer, the wrong ones too."""
    requests = [
        {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []},
        {"jsonrpc": "2.0", "id": 2, "method": "eth_nothing"},
        {"jsonrpc": "2.0", "id": "three", "method": "eth_blockNumber"},
        5,
    ]
    answers = await post(devnet.url, requests)
    assert [answer["id"] for answer in answers] == [1, 2, "three", None]
    assert answers[0]["result"] == "0x7a69"
    assert answers[1]["error"]["code"] == -32601
    assert answers[2]["result"] == "0x0"
    assert answers[3]["error"]["code"] == -32600


@pytest.mark.parametrize(
    "body, code",
    [
        ("no json", -32700),
        (b"\xff\xfe", -32700),
        ("[]", -32600),
        ("5", -32600),
        ("{}", -32600),
        ('{"method": 5}', -32600),
        ('{"method": "eth_chainId", "params": 5}', -32602),
        ('{"method": "eth_chainId", "params": [1]}', -32602),
        ('{"method": "eth_getBalance", "params": []}', -32602),
        ('{"method": "eth_getBalance", "params": ["0x12"]}', -32602),
        ('{"method": "eth_getBlockByNumber", "params": ["soon", false]}', -32602),
        ('{"method": "eth_call", "params": [5]}', -32602),
        ('{"method": "eth_getLogs", "params": [{"topics": ["0x1"]}]}', -32602),
        ('{"method": "__init__", "params": []}', -32601),
        ('{"method": "eth_subscribe", "params": ["newHeads"]}', -32601),
        ("[" * 100_000, -32700),
    ],
)
async def test_malformed_requests_are_errors_of_the_protocol(devnet, body, code):
    """Never an HTTP error, never a trace: an error object that says what is wrong."""
    assert (await post(devnet.url, body))["error"]["code"] == code
    assert await result(devnet.url, "eth_chainId") == "0x7a69"


async def test_a_body_has_a_limit(devnet):
    """Three megabytes are refused and the server lives on."""
    answer = await post(devnet.url, b"[" + b" " * 3_000_000 + b"]")
    assert answer["error"]["code"] == -32700
    assert (await ask(devnet.url, "eth_chainId"))["result"] == "0x7a69"


async def test_browsers_may_ask(devnet):
    """A page of another origin gets the headers that its browser wants."""
    async with aiohttp.ClientSession() as session:
        async with session.options(devnet.url) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert "content-type" in response.headers["Access-Control-Allow-Headers"]
        async with session.post(devnet.url, json={"method": "eth_chainId", "id": 1}) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_unknown_things_are_null(devnet):
    """Blocks, transactions and receipts that do not exist are null, as nodes answer."""
    nothing = "0x" + "12" * 32
    assert await result(devnet.url, "eth_getTransactionReceipt", nothing) is None
    assert await result(devnet.url, "eth_getTransactionByHash", nothing) is None
    assert await result(devnet.url, "eth_getBlockByHash", nothing, False) is None
    assert await result(devnet.url, "eth_getBlockByNumber", "0x99", False) is None
    assert (
        "beyond the head" in (await error(devnet.url, "eth_getBalance", "0x" + "00" * 20, "0x99"))["message"]
    )
