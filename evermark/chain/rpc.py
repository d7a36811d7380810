"""One way to make a web3 connection, and what counts as a node that does not answer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from json import JSONDecodeError
from typing import Any, TypeVar

import stamina
from aiohttp import ClientError, ClientTimeout
from eth_utils.address import to_checksum_address
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.contract.async_contract import AsyncContract
from web3.types import RPCEndpoint

from evermark.chain.manifest import Manifest

TIMEOUT_S = 30.0  # a settlement simulated on the embedded chain takes seconds
READ_ATTEMPTS = 5
# The node is away, slow, or answers nonsense: asking again may help. A contract's refusal is not among them.
UNREACHABLE = (ClientError, TimeoutError, OSError, JSONDecodeError)

Web3 = AsyncWeb3[Any]
T = TypeVar("T")


def make_web3(rpc_url: str, timeout_s: float = TIMEOUT_S) -> Web3:
    """A connection whose chain id is asked once; end it with `close_web3`."""
    provider = AsyncHTTPProvider(
        rpc_url,
        request_kwargs={"timeout": ClientTimeout(total=timeout_s)},
        cache_allowed_requests=True,
        exception_retry_configuration=None,  # whoever asks decides what may be asked again
    )
    return AsyncWeb3(provider)


async def close_web3(w3: Web3) -> None:
    """Close the connection's sessions."""
    await w3.provider.disconnect()


@asynccontextmanager
async def connect(rpc_url: str, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Web3]:
    """`make_web3` that closes itself."""
    w3 = make_web3(rpc_url, timeout_s)
    try:
        yield w3
    finally:
        await close_web3(w3)


def contract_of(w3: Web3, manifest: Manifest, name: str) -> AsyncContract:
    """A deployed contract with its ABI; structs come back as named tuples."""
    address = to_checksum_address(manifest.addresses[name])
    return w3.eth.contract(address=address, abi=manifest.abis[name], decode_tuples=True)


async def rpc(w3: Web3, method: str, *params: Any) -> Any:
    """Result of any JSON-RPC method; None when the node does not have it or answers with an error."""
    answer = await w3.provider.make_request(RPCEndpoint(method), list(params))
    return answer.get("result")


async def read_again(read: Callable[[], Awaitable[T]]) -> T:
    """Result of a read, tried again with growing pauses while the node is unreachable."""
    return await _RETRY(UNREACHABLE, read)


_RETRY = stamina.AsyncRetryingCaller(attempts=READ_ATTEMPTS, wait_initial=0.1, wait_max=2.0)
