"""An oracle keeper's newest signed reports, shown to whoever asks, and those of other keepers: a round needs a quorum of them,
and the public lane of the oracle takes it from anybody, without the sequencer."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import aiohttp
import msgspec
from aiohttp import web

from evermark.client.errors import EvermarkError
from evermark.protocol.oracle import SignedPriceReport
from evermark.protocol.orders import Signature
from evermark.protocol.signing import PriceReport, SignatureRefused, digest, parse_signature, recover

PATH = "/reports"
KEPT_REPORTS = 64  # of the newest rounds
MAX_ANSWER_BYTES = 2**20
ASK_S = 3.0  # wall time that another keeper has to answer


class ListenRefused(EvermarkError):
    """Nobody can listen at the address; one line."""


class ShownReport(msgspec.Struct, frozen=True):
    """A report as it is shown; prices as decimal text, the signature as 0x-hex of 65 bytes."""

    round: int
    timestamp: int
    prices: tuple[str, ...]
    signature: str


class OwnReports:
    """The newest reports of this process, by round."""

    def __init__(self) -> None:
        self._reports: OrderedDict[int, ShownReport] = OrderedDict()

    def add(self, report: PriceReport, signature: Signature) -> None:
        """Show a report, and forget the oldest beyond KEPT_REPORTS."""
        prices = tuple(str(price) for price in report.prices)
        text = "0x" + signature.to_bytes().hex()
        self._reports[report.round] = ShownReport(report.round, report.timestamp, prices, text)
        while len(self._reports) > KEPT_REPORTS:
            self._reports.popitem(last=False)

    def shown(self) -> tuple[ShownReport, ...]:
        """All of them, the oldest first."""
        return tuple(self._reports.values())


class ReportServer:
    """GET /reports of one keeper process. Anybody may read it: reports are signed, and every one of them is sent out anyway."""

    def __init__(self, own: OwnReports, host: str, port: int) -> None:
        self._own, self._host, self._port = own, host, port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises ListenRefused where the address is taken."""
        app = web.Application()
        app.router.add_get(PATH, self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            raise ListenRefused(f"reports_listen {self._host}:{self._port}: {error}") from None

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._own.shown()), content_type="application/json")


class KeeperReports:
    """What all keepers of `urls`, and this process, have reported lately."""

    def __init__(self, own: OwnReports, urls: Sequence[str], separator: bytes) -> None:
        """`separator` is the oracle's domain; a report that somebody else signed for is nobody's."""
        self._own, self._separator = own, separator
        self._urls = tuple(url.rstrip("/") + PATH for url in urls)
        self._session: aiohttp.ClientSession | None = None
        self.silent: tuple[str, ...] = ()  # addresses that did not answer last time

    async def gather(self) -> Mapping[int, Mapping[bytes, SignedPriceReport]]:
        """Reports by round and signer. A keeper that does not answer, or answers nonsense, is left out."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_S))
        answers = await asyncio.gather(*(self._ask(self._session, url) for url in self._urls))
        self.silent = tuple(url for url, told in zip(self._urls, answers, strict=True) if told is None)
        found: dict[int, dict[bytes, SignedPriceReport]] = {}
        for told in (self._own.shown(), *(answer for answer in answers if answer is not None)):
            for signed in self._signed(told):
                found.setdefault(signed.report.round, {}).setdefault(signed.signer, signed)
        return found

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> tuple[ShownReport, ...] | None:
        try:
            async with session.get(url, allow_redirects=False) as answer:
                raw = await answer.content.read(MAX_ANSWER_BYTES)
                return msgspec.json.decode(raw, type=tuple[ShownReport, ...])[-KEPT_REPORTS:]
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError):
            return None

    def _signed(self, told: Iterable[ShownReport]) -> Iterable[SignedPriceReport]:
        for one in told:
            try:
                prices = tuple(int(price) for price in one.prices)
                report = PriceReport(round=one.round, timestamp=one.timestamp, prices=prices)
                signature = parse_signature(bytes.fromhex(one.signature.removeprefix("0x")))
                signer = recover(digest(self._separator, report), signature)
            except (ValueError, OverflowError, SignatureRefused):
                continue
            yield SignedPriceReport(report, signer, signature)
