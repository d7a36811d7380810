"""A whole exchange for tests: embedded chain, deployed contracts, and the sequencer as a process of its
own.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from eth_account import Account
from sequencer_world import World

from evermark.chain import ChainClock, ExchangeContracts, Manifest, Roles, TransactionSender, deploy
from evermark.chain.rpc import connect, contract_of
from evermark.devnet import Devnet, DevnetConfig, dev_key
from evermark.devnet.config import DEV_ACCOUNTS
from evermark.protocol.signing import ORDER_FIELDS, WITHDRAW_FIELDS, Signer, order_values
from evermark.protocol.units import USDC
from sequencer.engine.commands import PlaceOrder
from sequencer.verify import VerifyReport, verify

DEPLOYER, SEQUENCER, KEEPERS = 0, 1, (2, 3, 4)
TRADERS = (5, 6, 7)
GOVERNOR, GUARDIAN = 8, 9


def hexed(raw: bytes) -> str:
    return "0x" + raw.hex()


class RealExchange:
    """`async with RealExchange(tmp_path)`; the sequencer starts with `spawn`."""

    def __init__(
        self, directory: Path, speed: float = 1.0, funding_keepers: tuple[int, ...] = KEEPERS
    ) -> None:
        self.directory = directory
        self.funding_keepers = funding_keepers
        self.devnet = Devnet(DevnetConfig(port=0, speed=speed))
        self.process: asyncio.subprocess.Process | None = None
        self.traders = [Signer(dev_key(index)) for index in TRADERS]

    async def __aenter__(self) -> "RealExchange":
        await self.devnet.start()
        address = {index: hexed(Signer(dev_key(index)).address) for index in range(DEV_ACCOUNTS)}
        keepers = tuple(address[index] for index in KEEPERS)
        roles = Roles(
            sequencer=address[SEQUENCER],
            oracle_keepers=keepers,
            funding_keepers=tuple(address[index] for index in self.funding_keepers),
            governor=address[GOVERNOR],
            guardian=address[GUARDIAN],
        )
        self.manifest: Manifest = await deploy(
            self.devnet.url, dev_key(DEPLOYER), roles, self.directory / "manifest.json"
        )
        self._connection = connect(self.devnet.url)
        self.w3 = await self._connection.__aenter__()
        self.clock = ChainClock(self.w3)
        await self.clock.start()
        self.world = World(
            vault=self.manifest.address("vault"),
            oracle=self.manifest.address("oracle"),
            keepers=[Signer(dev_key(index)) for index in KEEPERS],
            start_s=self.clock.now_s(),
        )
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        self._write_config()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self.http.close()
        await self.clock.stop()
        await self._connection.__aexit__(None, None, None)
        await self.devnet.stop()

    async def deposit(self, trader: int, usdc: int) -> None:
        """Mint test tokens and put them into the inbox."""
        sender = TransactionSender(self.w3, dev_key(TRADERS[trader]))
        contracts = ExchangeContracts(self.w3, self.manifest)
        await contracts.mint(sender, sender.address, usdc * USDC)
        await contracts.deposit(sender, usdc * USDC)

    async def tokens_of(self, trader: int) -> int:
        """Tokens in a trader's wallet."""
        token = contract_of(self.w3, self.manifest, "token")
        owner = self.w3.to_checksum_address(self.traders[trader].address)
        return int(await token.functions.balanceOf(owner).call())

    async def spawn(self) -> None:
        """Start the sequencer process and wait until its gateway answers."""
        self.log = (self.directory / "sequencer.log").open("ab")
        command = [sys.executable, "-m", "sequencer", "--config", str(self.directory / "sequencer.json")]
        self.process = await asyncio.create_subprocess_exec(*command, stdout=self.log, stderr=self.log)
        await self.eventually(self._alive, "the gateway listens")

    async def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        with suppress(ProcessLookupError):  # somebody else's kill may have come first
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 20)

    async def post_round(self, prices: Any = ()) -> None:
        """All keepers report the current round over HTTP, until the engine has it and takes orders."""
        wanted = self.clock.now_s() // self.manifest.parameters.round_seconds

        async def applied() -> bool:
            await self._report(prices)
            status = await self.get("/v1/status")
            return bool(status["ready"] and status["round"] >= wanted)

        await self.eventually(applied, "a new round is applied")

    async def _report(self, prices: Any) -> None:
        self.world.now_s = self.clock.now_s()
        for signed in self.world.price_reports(prices):
            report = signed.report
            body = {
                "report": {
                    "round": report.round,
                    "timestamp": report.timestamp,
                    "prices": list(report.prices),
                },
                "signature": hexed(signed.signature.to_bytes()),
            }
            await self.post("/v1/oracle/prices", body)

    async def place(self, command: PlaceOrder) -> tuple[int, dict[str, Any]]:
        """POST a signed order."""
        return await self.post("/v1/orders", order_body(command))

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and answer; raises aiohttp.ClientError when the process dies meanwhile."""
        async with self.http.post(self.url + path, json=body) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> dict[str, Any]:
        async with self.http.get(self.url + path) as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def settled(self) -> None:
        """Seal what is open by a new round and wait until the chain has everything."""
        await self.clock.sleep(3)
        await self.post_round()

        async def done() -> bool:
            status = await self.get("/v1/status")
            assert status["settlement_alarm"] == "", status["settlement_alarm"]
            all_confirmed = status["batch_confirmed"] == status["batch_sealed"]
            if all_confirmed and status["fills_settled"] != status["fills_matched"]:
                await self._report(())  # a reversal has opened a batch again, and the next round seals it
            return bool(all_confirmed and status["fills_settled"] == status["fills_matched"])

        await self.eventually(done, "everything is settled")

    async def verify(self) -> VerifyReport:
        """Compare journal and chain."""
        return await verify(self.directory / "journal" / "journal.db", self.manifest, self.devnet.url)

    async def eventually(self, holds: Callable[[], Any], what: str, timeout_s: float = 40) -> None:
        """Poll until true; on failure show the sequencer's last words."""
        for _ in range(int(timeout_s / 0.05)):
            if await holds():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"never: {what}\n{self.log_tail()}")

    def log_tail(self) -> str:
        return (self.directory / "sequencer.log").read_text()[-4_000:]

    async def _alive(self) -> bool:
        assert self.process is not None
        if self.process.returncode is not None:
            raise AssertionError(f"the sequencer ended: {self.log_tail()}")
        try:
            return bool((await self.get("/health"))["status"] == "alive")
        except aiohttp.ClientError:
            return False

    def _write_config(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        keystore = self.directory / "key.json"
        keystore.write_text(
            json.dumps(Account.encrypt(dev_key(SEQUENCER), "pw", kdf="scrypt", iterations=2**10))
        )
        os.chmod(keystore, 0o600)
        (self.directory / "password").write_text("pw\n")
        config = {
            "rpc_url": self.devnet.url,
            "manifest": "manifest.json",
            "directory": "journal",
            "keystore": "key.json",
            "password_file": "password",
            "port": port,
            "reconcile_s": 0.2,
        }
        (self.directory / "sequencer.json").write_text(json.dumps(config))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def order_body(command: PlaceOrder) -> dict[str, Any]:
    """The body of POST /v1/orders."""
    fields = {name: value for (_, name), value in zip(ORDER_FIELDS, order_values(command.order), strict=True)}
    fields |= {"owner": hexed(command.order.owner), "builder": hexed(command.order.builder)}
    return {"order": fields, "signature": hexed(command.signature.to_bytes())}


def withdraw_body(command: Any) -> dict[str, Any]:
    """The body of POST /v1/withdrawals."""
    message = command.withdraw
    values = (
        hexed(message.owner),
        message.sub_account,
        message.amount,
        message.max_fee,
        message.action_sequence,
        message.deadline,
    )
    fields = {name: value for (_, name), value in zip(WITHDRAW_FIELDS, values, strict=True)}
    return {"withdraw": fields, "signature": hexed(command.signature.to_bytes())}
