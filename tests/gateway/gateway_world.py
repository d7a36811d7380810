"""A real exchange for gateway tests: journal on disk, engine, history, market data and an aiohttp server on
a free port. Only the chain is missing: deposits and rounds are submitted as the inbox watcher and the
collector would."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from evermark.client import EvermarkClient
from evermark.client.models import ExchangeInfo
from evermark.client.signed import Domain, Signable
from evermark.protocol.markets import load_markets
from evermark.protocol.oracle import SignedPriceReport, pack_price
from evermark.protocol.orders import ApproveAgent, Cancel, Order, Side, TimeInForce, Transfer, Withdraw
from evermark.protocol.signing import (
    FundingReport,
    Liquidate,
    PriceReport,
    Signer,
    digest,
    domain_separator,
)
from evermark.protocol.units import USDC
from sequencer.core import Core
from sequencer.engine.commands import (
    BatchConfirmed,
    Genesis,
    InboxEntry,
    InboxEntryKind,
    MarketMode,
    OracleRound,
    SetMarketMode,
)
from sequencer.gateway.app import HUB, create_app, create_runner
from sequencer.gateway.limits import Limits, Rate
from sequencer.gateway.services import ExchangeFacts, GatewaySettings, Services

CHAIN_ID = 31337
VAULT, ORACLE, INBOX, TOKEN = (bytes([number]) * 20 for number in (0x11, 0x22, 0x33, 0x44))
START_S = 1_760_129_400
ROUND_SECONDS = 3
MARKS = (1_100_000, 400_000, 20_000, 25_000)
PLENTY = Rate(1_000_000.0, 1_000_000)
NO_LIMITS = Limits(
    requests_per_ip=PLENTY, orders_per_account=PLENTY, cancels_per_account=PLENTY, keeper_messages=PLENTY
)


def key(number: int) -> Signer:
    """Keepers are 1 to 3, traders follow from 11."""
    return Signer(number.to_bytes(32, "big"))


MAKER, TAKER, STRANGER, AGENT = key(11), key(12), key(13), key(14)
KEEPERS = sorted((key(1), key(2), key(3)), key=lambda signer: signer.address)


class GatewayWorld:
    """Everything between a socket and the journal. `now_s` is chain time and moves only by `advance`."""

    def __init__(self, directory: Path, settings: GatewaySettings) -> None:
        self.directory = directory
        self.settings = settings
        self.now_s = START_S
        self.missing: list[str] = []
        self.registry = CollectorRegistry()
        self.markets = load_markets()
        self.url = ""
        self.entries = 0
        self._sequence = 0
        self._runner: web.AppRunner | None = None
        self._working: asyncio.Future[None] | None = None

    async def start(self, port: int = 0) -> None:
        """Open (or reopen) the directory and serve it."""
        keepers = tuple(signer.address for signer in KEEPERS)
        genesis = Genesis(
            chain_id=CHAIN_ID,
            vault=VAULT,
            oracle=ORACLE,
            round_seconds=ROUND_SECONDS,
            oracle_quorum=3,
            funding_quorum=3,
            oracle_keepers=keepers,
            funding_keepers=keepers,
            markets=self.markets,
        )
        self.registry = CollectorRegistry()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.core = Core(self.directory, genesis, lambda: self.now_s * 1000)
        self._working = asyncio.ensure_future(self.core.run())
        self.services = Services(
            submit=self.core.pipeline.submit_then,
            state=self.core.state,
            history=self.core.history,
            market_data=self.core.market_data,
            reports=self.core.reports,
            now_s=lambda: self.now_s,
            facts=ExchangeFacts(chain_id=CHAIN_ID, vault=VAULT, oracle=ORACLE, inbox=INBOX, token=TOKEN),
            status=lambda: {"settlement_lag_s": 0},
            missing=lambda: self.missing,
            settings=self.settings,
            registry=self.registry,
        )
        app = create_app(self.services)
        self.hub = app[HUB]
        self._runner = create_runner(app, self.settings.keepalive_s)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        for _ in range(500):
            if self.core.state.genesis is not None:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the genesis was not applied")

    async def stop(self) -> None:
        """Stop serving and close every file."""
        if self._runner is not None:
            await self._runner.cleanup()
        self.core.pipeline.stop()
        if self._working is not None:
            await self._working
        await self.core.close()

    async def restart(self, port: int = 0) -> None:
        """A new process on the same directory, as far as one process can show it."""
        await self.stop()
        await self.start(port)

    async def fund(self, *signers: Signer, usdc: int = 100_000) -> None:
        """Deposits as the inbox watcher brings them, then a round of prices."""
        for signer in signers:
            self.entries += 1
            entry = InboxEntry(
                entry_id=self.entries,
                entry_kind=InboxEntryKind.DEPOSIT,
                owner=signer.address,
                sub_account=0,
                amount=usdc * USDC,
            )
            await self.core.pipeline.submit(entry)
        await self.advance()

    async def advance(self, seconds: int = ROUND_SECONDS, marks: tuple[int, ...] = MARKS) -> None:
        """Let chain time pass, bring a complete round, and confirm every batch as settlement would."""
        self.now_s += seconds
        reports = tuple(self.signed_price_report(signer, marks) for signer in KEEPERS)
        await self.core.pipeline.submit(OracleRound(reports=reports))
        state = self.core.state
        for batch_id in range(state.confirmed_batch + 1, state.sealed_batch + 1):
            await self.core.pipeline.submit(BatchConfirmed(batch_id=batch_id, block_number=batch_id))

    async def set_mode(self, market_id: int, mode: MarketMode) -> None:
        """The operator changes what a market accepts."""
        await self.core.pipeline.submit(SetMarketMode(market_id=market_id, mode=mode, reason="test"))

    def price_report(self, marks: tuple[int, ...] = MARKS) -> PriceReport:
        """The report of the round at `now_s`."""
        prices = tuple(pack_price(mark, mark) for mark in marks)
        return PriceReport(round=self.now_s // ROUND_SECONDS, timestamp=self.now_s, prices=prices)

    def signed_price_report(self, signer: Signer, marks: tuple[int, ...] = MARKS) -> SignedPriceReport:
        report = self.price_report(marks)
        separator = domain_separator(CHAIN_ID, ORACLE, "Evermark Oracle")
        return SignedPriceReport(report, signer.address, signer.sign(digest(separator, report)))

    def client(self, signer: Signer, **options: Any) -> EvermarkClient:
        """A client of this exchange."""
        return EvermarkClient(self.url, signer, **options)

    def order(self, signer: Signer, **changes: Any) -> Order:
        """A resting buy of 0.01 BTC below the mark, unless changed."""
        self._sequence = max(self._sequence + 1, self.now_s * 1000)
        fields: dict[str, Any] = {
            "owner": signer.address,
            "sub_account": 0,
            "market": "BTC-PERP",
            "side": Side.BUY,
            "size": 1_000,
            "limit_price": 1_090_000,
            "max_fee_ppm": 1_000,
            "slot": 1,
            "sequence": self._sequence,
            "expiry": self.now_s + 3_600,
            "time_in_force": TimeInForce.GTC,
        }
        return Order(**(fields | changes))

    def cancel(self, signer: Signer, **changes: Any) -> Cancel:
        fields: dict[str, Any] = {
            "owner": signer.address,
            "sub_account": 0,
            "all_slots": False,
            "slot": 1,
            "sequence": self._sequence,
            "deadline": self.now_s + 60,
        }
        return Cancel(**(fields | changes))

    def withdrawal(self, signer: Signer, **changes: Any) -> Withdraw:
        fields: dict[str, Any] = {
            "owner": signer.address,
            "sub_account": 0,
            "amount": 5 * USDC,
            "max_fee": 0,
            "action_sequence": 1,
            "deadline": self.now_s + 60,
        }
        return Withdraw(**(fields | changes))

    def transfer(self, signer: Signer, **changes: Any) -> Transfer:
        fields: dict[str, Any] = {
            "owner": signer.address,
            "sub_account": 0,
            "to_sub_account": 1,
            "amount": 10 * USDC,
            "action_sequence": 1,
            "deadline": self.now_s + 60,
        }
        return Transfer(**(fields | changes))

    def approval(self, signer: Signer, **changes: Any) -> ApproveAgent:
        fields: dict[str, Any] = {
            "owner": signer.address,
            "sub_account": 0,
            "agent": AGENT.address,
            "agent_expiry": self.now_s + 86_400,
            "transfer_cap": 0,
            "action_sequence": 1,
            "deadline": self.now_s + 60,
        }
        return ApproveAgent(**(fields | changes))

    def body(self, message: Signable, signer: Signer, **more: Any) -> dict[str, Any]:
        """The signed request body, without the optional chain id."""
        info = ExchangeInfo(
            chain_id=CHAIN_ID,
            vault="0x" + VAULT.hex(),
            oracle="",
            inbox="",
            token="",
            round_seconds=3,
            markets=(),
        )
        body = Domain(info).body(message, signer)
        del body["chain_id"]
        return body | more

    def trigger_body(self, trigger: Liquidate, signer: Signer) -> dict[str, Any]:
        signature = signer.sign(digest(domain_separator(CHAIN_ID, VAULT), trigger))
        fields = {
            "account": trigger.account,
            "market": trigger.market,
            "round": trigger.round,
            "deadline": trigger.deadline,
        }
        return {"trigger": fields, "signature": "0x" + signature.to_bytes().hex()}

    def report_body(self, report: PriceReport | FundingReport, signer: Signer) -> dict[str, Any]:
        separator = domain_separator(CHAIN_ID, ORACLE, "Evermark Oracle")
        signature = "0x" + signer.sign(digest(separator, report)).to_bytes().hex()
        if isinstance(report, PriceReport):
            prices = [str(price) for price in report.prices]
            fields: dict[str, Any] = {"round": report.round, "timestamp": report.timestamp, "prices": prices}
        else:
            fields = {
                "hour": report.hour,
                "ratesPpb": list(report.rates_ppb),
                "samples": "0x" + report.samples.hex(),
            }
        return {"report": fields, "signature": signature}

    @property
    def journaled(self) -> int:
        """Records in the journal."""
        return self.core.pipeline.sequence

    @property
    def unexpected(self) -> float:
        """Errors that no input should cause."""
        return self.registry.get_sample_value("evermark_gateway_unexpected_total") or 0.0


class Answered:
    """An HTTP answer, read."""

    def __init__(self, status: int, headers: Any, body: Any) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def error(self) -> str:
        """Name of the reject code, empty for a success."""
        return str(self.body["error"]["name"]) if isinstance(self.body, dict) and "error" in self.body else ""

    @property
    def details(self) -> dict[str, Any]:
        return dict(self.body["error"]["details"])


class Caller:
    """A plain HTTP client that sends whatever it is told to."""

    def __init__(self, world: GatewayWorld) -> None:
        self.world = world
        self._session = aiohttp.ClientSession()

    async def post(self, path: str, json: Any = None, data: bytes | None = None, **headers: str) -> Answered:
        send: dict[str, Any] = {"json": json} if data is None else {"data": data}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.post(self.world.url + path, headers=named, **send) as response:
            return Answered(response.status, response.headers, await response.json())

    async def get(self, path: str) -> Answered:
        async with self._session.get(self.world.url + path) as response:
            return Answered(response.status, response.headers, await response.json())

    async def place(self, order: Order, signer: Signer, **more: Any) -> Answered:
        return await self.post("/v1/orders", self.world.body(order, signer, **more))

    def socket(self, **options: Any) -> Any:
        return self._session.ws_connect(self.world.url + "/v1/ws", **options)

    async def close(self) -> None:
        await self._session.close()


@contextlib.asynccontextmanager
async def running(directory: Path, settings: GatewaySettings | None = None) -> AsyncIterator[GatewayWorld]:
    """A served exchange, stopped at the end."""
    world = GatewayWorld(directory, settings or GatewaySettings(limits=NO_LIMITS))
    await world.start()
    try:
        yield world
    finally:
        await world.stop()
