"""Keepers and actors together against the real gateway, engine and journal; only deposits are put in by hand.

Chain time runs at thirty times the machine's, over the end of a funding hour.
"""

import asyncio
import time
from pathlib import Path

import pytest
from aiohttp import web
from gateway_world import KEEPERS, GatewayWorld

from evermark.actors import (
    LeveragedConfig,
    MakerConfig,
    TakersConfig,
    WalletConfig,
    run_leveraged,
    run_maker,
    run_takers,
    run_wallet,
)
from evermark.client import EvermarkClient
from evermark.client.errors import Refused
from evermark.protocol.funding import HOUR_S
from evermark.protocol.units import USDC
from keeper.config import KeeperConfig
from keeper.keystore import KeyConfig, create_keystore
from keeper.run import run_keepers
from sequencer.engine.commands import BatchConfirmed, InboxEntry, InboxEntryKind
from sequencer.gateway.services import GatewaySettings

HOUR = 488_924
SPEED = 30.0
START = (HOUR + 1) * HOUR_S - 420
ACTOR_MODULES = ("maker", "takers", "leveraged", "wallet")


class RunningWorld(GatewayWorld):
    """The gateway tests' exchange on a clock that runs by itself."""

    def chain_s(self) -> float:
        """Chain time."""
        self._began = getattr(self, "_began", time.monotonic())
        return START + (time.monotonic() - self._began) * SPEED

    @property
    def now_s(self) -> int:
        return int(self.chain_s())

    @now_s.setter
    def now_s(self, moment: int) -> None:
        """The world sets its starting time; this clock has its own."""


class QueuedBank:
    """Deposits as the inbox watcher would bring them; payouts arrive at once."""

    def __init__(self, world: GatewayWorld, client: EvermarkClient) -> None:
        self._world, self._client = world, client

    async def __aenter__(self) -> "QueuedBank":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ensure(self, usdc: int) -> None:
        """Bring the account to `usdc` whole USDC."""
        try:
            held = (await self._client.account()).collateral
        except Refused:
            held = 0
        if held >= usdc * USDC:
            return
        self._world.entries += 1
        entry = InboxEntry(
            entry_id=self._world.entries,
            entry_kind=InboxEntryKind.DEPOSIT,
            owner=self._client.owner,
            sub_account=self._client.sub_account,
            amount=usdc * USDC - held,
        )
        await self._world.core.pipeline.submit(entry)

    async def tokens(self) -> int:
        """Enough whenever asked; the payout itself is the chain's part."""
        self._world.paid = getattr(self._world, "paid", 0) + 10**12
        return self._world.paid


@pytest.fixture
async def world(tmp_path, monkeypatch):
    """A served exchange on a running clock whose actors get their money from a queue."""
    directory = tmp_path / "exchange"
    directory.mkdir()
    made = RunningWorld(directory, GatewaySettings())
    for module in ACTOR_MODULES:
        monkeypatch.setattr(f"evermark.actors.{module}.make_bank", lambda client, _: QueuedBank(made, client))
    await made.start()
    chain = asyncio.create_task(confirm_batches(made))
    yield made
    chain.cancel()
    await made.stop()
    assert made.unexpected == 0


async def confirm_batches(world: GatewayWorld) -> None:
    """The chain's part: what was sealed is confirmed soon, so that the engine goes on trading."""
    state = world.core.state
    while True:
        if state.sealed_batch > state.confirmed_batch:
            await world.core.pipeline.submit(BatchConfirmed(batch_id=state.sealed_batch, block_number=1))
        await asyncio.sleep(0.1)


@pytest.fixture
async def node(world):
    """A chain node that only knows the time."""

    async def answer(request: web.Request) -> web.Response:
        call = await request.json()
        clock = {"chain_time": world.chain_s(), "speed": SPEED}
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": clock})

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def keeper(directory: Path, world: GatewayWorld, node: str, number: int) -> KeeperConfig:
    """Keeper `number` of the registered three, oracle and funding with the same registered key; the first one
    liquidates too."""
    password = directory / "password"
    password.write_text("x")
    password.chmod(0o600)
    keys = {}
    for role in ("oracle", "funding", *(("liquidator",) if number == 1 else ())):
        path = directory / f"{role}-{number}.json"
        create_keystore(path, "x", key=number.to_bytes(32, "big"), scrypt_n=2**4)
        keys[role] = KeyConfig(keystore=str(path), password_file=str(password))
    return KeeperConfig(
        gateway_url=world.url,
        rpc_url=node,
        keys=keys,
        name=f"keeper-{number}",
        state_dir=str(directory / f"samples-{number}"),
        funding_min_share_ppm=50_000,
    )


async def test_an_exchange_lives_by_its_keepers_and_actors(tmp_path, world, node):
    """Rounds of three keepers, quotes, trades, leveraged positions, a funding hour, a wallet that ends."""
    common = {"url": world.url, "rpc_url": node, "manifest": "unused"}
    lasting = [
        asyncio.create_task(work)
        for work in (
            *(run_keepers(keeper(tmp_path, world, node, number)) for number in (1, 2, 3)),
            run_maker(MakerConfig(**common, dev_account=1, orders_per_s=20.0)),
            run_takers(TakersConfig(**common, dev_account=2)),
            run_leveraged(LeveragedConfig(**common, dev_account=3)),
        )
    ]
    wallet = asyncio.create_task(run_wallet(WalletConfig(**common, dev_account=4)))
    state = world.core.state
    deadline = time.monotonic() + 200

    def lives() -> bool:
        return (
            wallet.done()
            and state.trade_count >= 30
            and all(market.funding_hour >= HOUR for market in state.markets)
        )

    while not lives() and time.monotonic() < deadline:
        ended = [task for task in lasting if task.done()]
        assert not ended, ended[0].exception()
        await asyncio.sleep(0.2)
    for task in lasting:
        task.cancel()
    await asyncio.gather(*lasting, return_exceptions=True)
    assert lives(), (wallet.done(), state.trade_count, [market.funding_hour for market in state.markets])
    assert wallet.exception() is None
    assert state.round.round > START // 3
    assert {signer.address for signer in KEEPERS} == set(state.genesis.oracle_keepers)
    assert all(market.price.index_ticks > 0 for market in state.markets)
