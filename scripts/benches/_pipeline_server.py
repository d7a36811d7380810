"""The server processes of the pipeline benchmark: the real exchange without a chain, and a bare echo."""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")

import structlog
import uvloop
from aiohttp import web

from evermark.protocol.batch import FIRST_USER_ACCOUNT
from evermark.protocol.markets import load_markets
from evermark.protocol.oracle import SignedPriceReport, pack_price
from evermark.protocol.orders import ApproveAgent
from evermark.protocol.signing import PriceReport, Signer, digest, domain_separator
from evermark.protocol.units import USDC
from sequencer.core import Core
from sequencer.engine.commands import (
    AgentApproval,
    BatchConfirmed,
    Genesis,
    InboxEntry,
    InboxEntryKind,
    OracleRound,
)
from sequencer.garbage import let_threads_in
from sequencer.gateway.app import create_app, create_runner
from sequencer.gateway.limits import Limits, Rate
from sequencer.gateway.processes import processes_for
from sequencer.gateway.services import ExchangeFacts, GatewaySettings, Services

CHAIN_ID, VAULT, ORACLE = 31337, b"\x11" * 20, b"\x22" * 20
ROUND_SECONDS = 3
MARK = 1_100_000  # ticks of BTC-PERP
ACCOUNTS = 400


def key(number: int) -> Signer:
    """Deterministic keys: 1 to 3 are keepers, traders follow from 100."""
    return Signer(number.to_bytes(32, "big"))


def agent_key(account: int) -> Signer:
    """The key that signs order batches for trader `account`, who approves it at the start."""
    return key(100_000 + account)


def approval(account: int, now_s: int) -> AgentApproval:
    """The trader's approval of that key."""
    owner = key(100 + account)
    approve = ApproveAgent(
        owner=owner.address,
        sub_account=0,
        agent=agent_key(account).address,
        agent_expiry=now_s + 86_400,
        transfer_cap=0,
        action_sequence=now_s * 1000,
        deadline=now_s + 3_600,
    )
    signature = owner.sign(digest(domain_separator(CHAIN_ID, VAULT), approve))
    return AgentApproval(account=FIRST_USER_ACCOUNT + account, approval=approve, signature=signature)


def genesis() -> Genesis:
    """An exchange that exists only here."""
    keepers = tuple(sorted(key(number).address for number in (1, 2, 3)))
    return Genesis(
        chain_id=CHAIN_ID,
        vault=VAULT,
        oracle=ORACLE,
        round_seconds=ROUND_SECONDS,
        oracle_quorum=3,
        funding_quorum=3,
        oracle_keepers=keepers,
        funding_keepers=keepers,
        markets=load_markets(),
    )


def price_round(now_s: int, markets: int) -> OracleRound:
    """A complete round of signed reports at one price."""
    domain = domain_separator(CHAIN_ID, ORACLE, "Evermark Oracle")
    prices = tuple(pack_price(MARK, MARK) for _ in range(markets))
    report = PriceReport(round=now_s // ROUND_SECONDS, timestamp=now_s, prices=prices)
    signers = sorted((key(number) for number in (1, 2, 3)), key=lambda signer: signer.address)
    return OracleRound(
        reports=tuple(
            SignedPriceReport(report, one.address, one.sign(digest(domain, report))) for one in signers
        )
    )


async def keep_rounds(core: Core) -> None:
    """Prices every few seconds, and a chain that confirms every batch within a second."""
    last = 0
    while True:
        now_s = int(time.time())
        if now_s // ROUND_SECONDS > last:
            last = now_s // ROUND_SECONDS
            await core.pipeline.submit(price_round(now_s, len(core.genesis.markets)))
        if core.state.sealed_batch > core.state.confirmed_batch:
            await core.pipeline.submit(BatchConfirmed(batch_id=core.state.sealed_batch, block_number=1))
        await asyncio.sleep(0.5)


async def serve(directory: Path, processes: int) -> None:
    """Run the exchange until stdin closes; prints its port."""
    core = Core(directory, genesis(), lambda: int(time.time() * 1000))
    running = asyncio.ensure_future(core.run())
    await core.pipeline.submit(price_round(int(time.time()) - ROUND_SECONDS, len(core.genesis.markets)))
    rounds = asyncio.ensure_future(keep_rounds(core))
    for number in range(ACCOUNTS):
        entry = InboxEntry(
            entry_id=number + 1,
            entry_kind=InboxEntryKind.DEPOSIT,
            owner=key(100 + number).address,
            sub_account=0,
            amount=10_000_000 * USDC,
        )
        await core.pipeline.submit(entry)
    for number in range(ACCOUNTS):
        await core.pipeline.submit(approval(number, int(time.time())))
    much = Rate(1e6, 1_000_000)
    limits = Limits(
        requests_per_ip=much, orders_per_account=much, cancels_per_account=much, sockets_per_ip=1_000
    )
    services = Services(
        submit=core.pipeline.submit_then,
        state=core.state,
        history=core.history,
        market_data=core.market_data,
        reports=core.reports,
        now_s=lambda: int(time.time()),
        facts=ExchangeFacts(chain_id=CHAIN_ID, vault=VAULT, oracle=ORACLE, inbox=VAULT, token=VAULT),
        status=dict,
        missing=list,
        settings=GatewaySettings(limits=limits, signature_processes=processes),
    )
    if processes:
        core.history.store.start_process()
    await listen(create_runner(create_app(services)))
    rounds.cancel()
    core.pipeline.stop()
    await running
    await core.close()


async def serve_echo() -> None:
    """The bare ceiling: the same server library, answering every message with itself."""

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/v1/ws", echo)
    await listen(web.AppRunner(app, access_log=None))


async def listen(runner: web.AppRunner) -> None:
    """Serve on a free port until stdin closes."""
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


def main() -> None:
    """`DIRECTORY` serves the exchange, nothing the echo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--signature-processes", type=int, default=processes_for(None))
    options = parser.parse_args()
    directory = options.directory
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    let_threads_in()
    uvloop.run(serve(directory, options.signature_processes) if directory else serve_echo())


if __name__ == "__main__":
    main()
