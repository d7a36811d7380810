"""Leveraged accounts: a small deposit, a position near the greatest leverage, and again after its loss."""

import asyncio

from evermark.actors.bank import make_bank
from evermark.actors.common import Actor, chosen_markets, dev_signer, least_lots
from evermark.actors.config import LeveragedConfig
from evermark.client import EvermarkClient
from evermark.client.errors import EvermarkError
from evermark.client.models import AccountInfo
from evermark.protocol.markets import Market
from evermark.protocol.orders import Side, TimeInForce
from evermark.protocol.units import PPM


async def run_leveraged(config: LeveragedConfig) -> None:
    """Keep positions open until SIGTERM, SIGINT or cancellation."""
    actor = Actor(config.name or "leveraged", config.status_path)
    signer = dev_signer(config.dev_account)
    clients = [
        EvermarkClient(config.url, signer, number, rpc_url=config.rpc_url)
        for number in range(config.accounts)
    ]
    try:
        await actor.run(Leveraged(config, clients, actor).run)
    finally:
        await asyncio.gather(*(client.close() for client in clients))


def position_lots(market: Market, equity: int, mark_ticks: int, share_ppm: int) -> int:
    """Lots whose initial margin in the first tier is `share_ppm` of `equity`; 0 below the minimum order."""
    notional = equity * share_ppm // market.tiers[0].initial_fraction_ppm
    lots = notional // (mark_ticks * market.lot_tick_value)
    return lots if lots >= least_lots(market, mark_ticks) else 0


class Leveraged:
    """Account number n trades market n modulo the markets, long when n is even in its round."""

    def __init__(self, config: LeveragedConfig, clients: list[EvermarkClient], actor: Actor) -> None:
        self._config, self._clients, self._actor = config, clients, actor
        self._markets: tuple[Market, ...] = ()
        self._deposits = [0] * len(clients)
        self._opened = [0] * len(clients)
        self._lost = 0

    async def run(self) -> None:
        """Look at every account in turn, for ever."""
        first = self._clients[0]
        self._markets = await self._actor.until_done(lambda: chosen_markets(first, self._config.markets))
        await self._actor.persist(self.step)

    async def step(self) -> None:
        """One round over the accounts; an account without a position opens one."""
        for number, client in enumerate(self._clients):
            try:
                await self._tend(number, client)
            except EvermarkError as error:
                self._actor.note(error)
            await asyncio.sleep(self._config.pause_s / len(self._clients))
        self._actor.status.facts |= {
            "accounts": len(self._clients),
            "opened": sum(self._opened),
            "lost_positions": self._lost,
            "deposits": sum(self._deposits),
        }

    async def _tend(self, number: int, client: EvermarkClient) -> None:
        if self._deposits[number] == 0:
            await self._deposit(number, client)
        account = await client.account()
        if account.positions:
            return
        if self._opened[number]:
            self._lost += 1
            self._opened[number] = 0
        if account.equity < self._config.deposit_usdc * PPM // 4:
            if self._deposits[number] < self._config.most_deposits:
                await self._deposit(number, client)
            return
        await self._open(number, client, account)

    async def _deposit(self, number: int, client: EvermarkClient) -> None:
        async with make_bank(client, self._config) as bank:
            await bank.ensure(self._config.deposit_usdc)
        self._deposits[number] += 1

    async def _open(self, number: int, client: EvermarkClient, account: AccountInfo) -> None:
        market = self._markets[number % len(self._markets)]
        side = Side.BUY if (number // len(self._markets) + self._deposits[number]) % 2 else Side.SELL
        mark = int((await client.status())["markets"][market.symbol]["mark"] or 0)
        lots = position_lots(market, account.equity, mark, self._config.share_ppm) if mark else 0
        if not lots:
            return
        answer = await client.place_limit(
            market.symbol,
            side,
            size_lots=lots,
            price_ticks=max(1, mark * (PPM + side.sign * self._config.slippage_ppm) // PPM),
            time_in_force=TimeInForce.IOC,
        )
        if answer.filled:
            self._opened[number] = 1
            self._actor.status.acted(
                f"account {account.account}: {market.symbol} {answer.side} {answer.filled}"
            )
