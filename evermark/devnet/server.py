"""The devnet's HTTP server: JSON-RPC 2.0, single or batched, one worker thread for the EVM behind it."""

import asyncio
import inspect
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web
from eth_utils.address import to_checksum_address

from evermark.devnet.clock import DevnetClock
from evermark.devnet.config import CHAIN_ID, DEV_ACCOUNTS, DevnetConfig, dev_key
from evermark.devnet.evm import Evm, Reverted, TransactionRefused
from evermark.devnet.hexjson import BadParams
from evermark.devnet.methods import AT_ONCE, Methods, to_json
from evermark.devnet.state_log import StateLog, StateRefused
from evermark.protocol.signing import Signer

MAX_BODY_BYTES = 2 * 2**20
MAX_BATCH = 200
STOP_S = 2.0  # how long requests under way may take when the server stops
# py-evm lifts Python's recursion limit to 100,000, with which deeply nested JSON overflows the C stack and
# kills the process. Nine thousand levels were seen to pass; honest batches need a few hundred brackets.
MAX_BRACKETS = 4_000
ALLOW_BROWSERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, OPTIONS",
    "Access-Control-Allow-Headers": "content-type",
}


class Devnet:
    """An embedded chain with its server. `await start()`, use `url`, `await stop()`."""

    def __init__(self, config: DevnetConfig) -> None:
        self.config = config
        self.url = ""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="evm")
        self._log = StateLog(Path(config.state_dir)) if config.state_dir else None
        self._methods: Methods | None = None
        self._runner: web.AppRunner | None = None
        self._miner: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Build or restore the chain and listen. Raises StateRefused or OSError (port taken)."""
        loop = asyncio.get_running_loop()
        self._methods = await loop.run_in_executor(self._executor, self._open)
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/", self._handle)
        app.router.add_options("/", _preflight)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.config.host, self.config.port)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://{self.config.host}:{port}"
        if self.config.block_time_s:
            self._miner = asyncio.create_task(self._mine_regularly(self.config.block_time_s))

    async def stop(self) -> None:
        """Stop listening and close the log."""
        if self._miner is not None:
            self._miner.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
        self._executor.shutdown(wait=True)
        if self._log is not None:
            self._log.close()

    def _open(self) -> Methods:
        """Make the genesis, then replay the recorded blocks, each to its recorded hash."""
        if self._log is None:
            genesis_time = self.config.start_time()
            return self._methods_of(Evm(DevnetClock(genesis_time, self.config.speed), genesis_time))
        rows = self._log.read()
        header = next(rows, None)
        genesis_time = self.config.start_time() if header is None else int(header["genesis_time"])
        if self.config.genesis_time not in (None, genesis_time):
            raise StateRefused(
                f"devnet state: begins at {genesis_time}, asked for {self.config.genesis_time}"
            )
        evm = Evm(DevnetClock(genesis_time, self.config.speed), genesis_time)
        first = {"genesis_time": genesis_time, "chain_id": CHAIN_ID, "hash": evm.head.hash.hex()}
        if header is None:
            self._log.append(first)
        elif header != first:
            raise StateRefused(f"devnet state: recorded for {header}, this program makes {first}")
        for row in rows:
            _replay(evm, row)
        evm.on_block = self._log.append_block
        # The clock goes on from the last block, not from the start of the recording.
        evm.clock = DevnetClock(evm.head.timestamp, self.config.speed)
        return self._methods_of(evm)

    def _methods_of(self, evm: Evm) -> Methods:
        return Methods(evm, instant=not self.config.block_time_s)

    async def _mine_regularly(self, block_time_s: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(block_time_s)
            if self._methods is not None:
                await loop.run_in_executor(self._executor, self._methods.evm.mine)

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            body = _parse(await request.read())
        except (ValueError, web.HTTPRequestEntityTooLarge) as error:
            return _respond(_error(None, -32700, f"parse error: {error}"))
        if not isinstance(body, list):
            return _respond(await self._answer(body))
        if not body or len(body) > MAX_BATCH:
            return _respond(
                _error(None, -32600, f"batch of {len(body)} requests, 1 to {MAX_BATCH} are taken")
            )
        return _respond([await self._answer(item) for item in body])

    async def _answer(self, item: Any) -> dict[str, Any]:
        if not isinstance(item, dict) or not isinstance(item.get("method"), str):
            return _error(None, -32600, "invalid request: no method")
        request_id, params = item.get("id"), item.get("params", [])
        method = self._methods.table.get(item["method"]) if self._methods else None
        if method is None:
            return _error(request_id, -32601, f"the method {item['method'][:64]} does not exist")
        if not isinstance(params, list):
            return _error(request_id, -32602, "params: not a list")
        try:
            inspect.signature(method).bind(*params)
        except TypeError as error:
            return _error(request_id, -32602, f"params: {error}")
        if item["method"] in AT_ONCE:
            return _run(method, params, request_id)
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, _run, method, params, request_id
        )


def _parse(body: bytes) -> Any:
    """JSON of a request. Raises ValueError."""
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise ValueError(f"more than {MAX_BRACKETS} brackets")
    return json.loads(body)


def _replay(evm: Evm, row: dict[str, Any]) -> None:
    """Mine a recorded block again. Raises StateRefused when it comes out differently."""
    number = evm.head.block_number + 1
    try:
        for raw in row["transactions"]:
            evm.accept(evm.decode(bytes.fromhex(raw)))
        evm.mine(row["timestamp"])
    except (KeyError, ValueError, TypeError) as error:
        raise StateRefused(f"devnet state: block {number} does not replay: {error!r}") from error
    if evm.head.hash.hex() != row["hash"]:
        raise StateRefused(f"devnet state: block {number} is {evm.head.hash.hex()}, recorded {row['hash']}")


def _run(method: Any, params: list[Any], request_id: Any) -> dict[str, Any]:
    """On the worker thread: one call, with its errors as JSON-RPC writes them."""
    try:
        return {"jsonrpc": "2.0", "id": request_id, "result": to_json(method(*params))}
    except BadParams as error:
        return _error(request_id, -32602, str(error))
    except Reverted as error:
        return _error(request_id, 3, str(error), "0x" + error.data.hex())
    except TransactionRefused as error:
        return _error(request_id, -32000, str(error))
    except Exception as error:  # a node answers every request, also one that finds a bug in it
        return _error(request_id, -32603, f"internal error: {type(error).__name__}: {error}")


def _error(request_id: Any, code: int, message: str, data: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def _respond(body: Any) -> web.Response:
    return web.Response(text=json.dumps(body), content_type="application/json", headers=ALLOW_BROWSERS)


async def _preflight(_request: web.Request) -> web.Response:
    return web.Response(status=204, headers=ALLOW_BROWSERS)


async def run_devnet(config: DevnetConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises StateRefused or OSError before it listens."""
    devnet = Devnet(config)
    await devnet.start()
    if config.print_accounts:
        for index in range(DEV_ACCOUNTS):
            key = dev_key(index)
            print(f"({index}) {to_checksum_address(Signer(key).address)}  key 0x{key.hex()}")
    print(f"devnet: chain {CHAIN_ID} at {devnet.url}", flush=True)
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    await stopped.wait()
    await devnet.stop()
