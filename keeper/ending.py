"""The settler's eyes and hands: what the chain says of markets that end, rounds for the public lane, and the settlement."""

import asyncio
import time

from web3.exceptions import Web3Exception

from evermark.chain import ExchangeContracts, Manifest, TransactionReverted, TransactionSender
from evermark.chain.governor import CHANGE_KIND, GovernorContract
from evermark.chain.rpc import UNREACHABLE, Web3
from evermark.chain.vault import PUBLIC_LANE
from evermark.client.errors import Unreachable
from evermark.protocol.oracle import SignedPriceReport
from evermark.status import RoleStatus
from keeper.actions import Outcome
from keeper.clock import Clock
from keeper.settler import Ending, PostPublicRound, SettleMarket, SettlerAction, SettlerView, wants_rounds
from keeper.shown import KeeperReports

LOOK_S = 10.0  # chain seconds between two looks, but at least so many wall seconds:
LOOK_WALL_S = 0.5
# Somebody else was faster: a round of the lane, or this market's settlement.
OVERTAKEN = ("oracle: round not newer", "inbox: one of this kind is open", "governor: settled")

Reports = dict[int, dict[bytes, SignedPriceReport]]


class SettlerCollector:
    """Looks at the chain every few seconds, and at the keepers' reports while a market is in its last hour."""

    def __init__(
        self, w3: Web3, manifest: Manifest, reports: KeeperReports, clock: Clock, status: RoleStatus
    ) -> None:
        self._w3, self._clock, self._reports, self._status = w3, clock, reports, status
        self._contracts = ExchangeContracts(w3, manifest)
        self._governor = GovernorContract(w3, manifest)
        self._next_look = 0.0

    async def collect(self) -> SettlerView:
        """The next look. Raises Unreachable when the node does not answer."""
        await asyncio.sleep(max(0.0, self._next_look - time.monotonic()))
        self._next_look = time.monotonic() + max(LOOK_WALL_S, LOOK_S / self._clock.speed)
        try:
            view = await self._look()
        except (Web3Exception, *UNREACHABLE) as error:
            raise Unreachable(f"the chain does not answer: {error!r}"[:300]) from error
        self._status.facts["endings"] = [
            {"market": one.market_id, "ends_at": one.ends_at, "price": one.price, "settled": one.settled}
            for one in view.endings
        ]
        self._status.facts["silent"] = self._reports.silent
        return view

    async def _look(self) -> SettlerView:
        markets = int(await self._contracts.oracle.functions.market_count().call())
        found = await asyncio.gather(*(self._governor.ending(market) for market in range(markets)))
        endings = tuple(Ending(market, *told) for market, told in enumerate(found) if told[0])
        now_s = int((await self._w3.eth.get_block("latest"))["timestamp"])
        now_s = max(now_s, self._clock.now_s())
        public, public_s, reports = 0, 0, Reports()
        if wants_rounds(endings, now_s):
            public = await self._contracts.last_round(PUBLIC_LANE)
            public_s = (await self._contracts.round(public, PUBLIC_LANE)).timestamp if public else 0
            reports = await self._registered()
        return SettlerView(
            now_s=now_s,
            wall_s=time.monotonic(),
            quorum=int(await self._contracts.oracle.functions.oracle_quorum().call()),
            markets=markets,
            public_round=public,
            public_s=public_s,
            change_waits=await self._governor.is_waiting(0, CHANGE_KIND),
            endings=endings,
            reports=reports,
        )

    async def _registered(self) -> Reports:
        """Reports whose signer is an oracle keeper now."""
        gathered = await self._reports.gather()
        signers = {signer for held in gathered.values() for signer in held}
        keepers = await self._contracts.oracle_keepers(signers)
        return {
            number: {signer: signed for signer, signed in held.items() if signer in keepers}
            for number, held in gathered.items()
        }


class SettlerExecutor:
    """Sends what was decided, from a key that pays for gas and bond."""

    def __init__(self, w3: Web3, manifest: Manifest, sender: TransactionSender) -> None:
        self._contracts = ExchangeContracts(w3, manifest)
        self._governor = GovernorContract(w3, manifest)
        self._sender = sender

    async def execute(self, action: SettlerAction) -> Outcome:
        """What the contract refuses costs nothing: an estimate comes before it is sent."""
        try:
            if isinstance(action, PostPublicRound):
                data = self._contracts.post_round_calldata(action.reports, public=True)
                await self._sender.send(self._contracts.oracle.address, data)
                return Outcome(True, f"public round {action.reports[0].report.round}")
            entry = await self._governor.settle(self._sender, action.market_id)
            return Outcome(True, f"market {action.market_id} is settled by entry {entry}")
        except TransactionReverted as error:
            if error.reason in OVERTAKEN:
                return Outcome(False, "", name="LATE")
            return Outcome(False, f"{_name(action)}: {error.reason}")
        except (Web3Exception, *UNREACHABLE) as error:
            return Outcome(False, f"{_name(action)}: {error!r}"[:300], reached=False)


def _name(action: SettlerAction) -> str:
    if isinstance(action, SettleMarket):
        return f"settlement of market {action.market_id}"
    return f"public round {action.reports[0].report.round}"
