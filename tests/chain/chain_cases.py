"""Roles, signed reports and a node that misbehaves, for the tests of the chain access."""

from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web

from evermark.chain import Roles
from evermark.devnet import dev_key
from evermark.protocol.oracle import SignedFundingReport, SignedPriceReport
from evermark.protocol.signing import FundingReport, PriceReport, Signer, digest, domain_separator

GENESIS_TIME = 1_760_129_400
SEQUENCER = 1


def address(index: int) -> str:
    """0x-address of a development account."""
    return "0x" + Signer(dev_key(index)).address.hex()


ROLES = Roles(
    sequencer=address(SEQUENCER),
    oracle_keepers=(address(2), address(3), address(4)),
    funding_keepers=(address(5), address(6), address(7)),
    guardian=address(10),
)


def signed_reports(oracle: bytes, reports: list[Any], first_key: int) -> list[Any]:
    """Reports signed by development accounts from `first_key` on, signers ascending."""
    separator = domain_separator(31337, oracle, "Evermark Oracle")
    signed = []
    for offset, report in enumerate(reports):
        signer = Signer(dev_key(first_key + offset))
        kind = SignedPriceReport if isinstance(report, PriceReport) else SignedFundingReport
        signed.append(kind(report, signer.address, signer.sign(digest(separator, report))))
    return sorted(signed, key=lambda item: item.signer)


def price_reports(
    oracle: bytes, timestamps: list[int], prices: list[tuple[int, ...]]
) -> list[SignedPriceReport]:
    """Three oracle keepers' reports of one round of 3 seconds."""
    reports = [
        PriceReport(round=timestamp // 3, timestamp=timestamp, prices=row)
        for timestamp, row in zip(timestamps, prices, strict=True)
    ]
    return signed_reports(oracle, reports, 2)


def funding_reports(oracle: bytes, hour: int, rates: list[tuple[int, ...]]) -> list[SignedFundingReport]:
    """Three funding keepers' reports of one hour."""
    reports = [FundingReport(hour=hour, rates_ppb=row, samples=bytes(32)) for row in rates]
    return signed_reports(oracle, reports, 5)


class FaultyNode:
    """A node in front of a good one that loses, repeats or falsifies answers when asked to.

    `fault(method, forward)` returns what happens instead of forwarding, or None; `LOSE` hangs up.
    """

    LOSE = object()

    def __init__(self, behind: str) -> None:
        self.url = ""
        self.fault: Callable[[str, Callable[[], Any]], Any] | None = None
        self.seen: list[str] = []
        self._behind = behind

    async def __aenter__(self) -> "FaultyNode":
        self._session = aiohttp.ClientSession()
        app = web.Application()
        app.router.add_post("/", self._handle)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(body["method"])

        async def forward() -> Any:
            async with self._session.post(self._behind, json=body) as response:
                return await response.json()

        answer = await self.fault(body["method"], forward) if self.fault else None
        if answer is self.LOSE:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return web.json_response(await forward() if answer is None else answer)
