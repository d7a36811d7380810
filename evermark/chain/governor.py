"""The governor contract: proposals as the exchange reads them, and the calls of governor, guardian and whoever executes."""

import enum
from typing import Any

import msgspec
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from msgspec.structs import replace
from web3.exceptions import Web3Exception
from web3.types import BlockIdentifier, TxReceipt

from evermark.chain.manifest import Manifest
from evermark.chain.rpc import Web3, contract_of, read_again
from evermark.chain.transactions import TransactionSender
from evermark.protocol.governance import (
    DELAY_S,
    LONG_DELAY_S,
    AnyChange,
    DelistMarket,
    ListMarket,
    PauseMarket,
    SetKeeper,
    SetQuorums,
    SetSequencer,
    SettleMarket,
    TuneMarket,
    tiers_of,
)
from evermark.protocol.markets import Market
from evermark.protocol.units import USDC

CHANGE_KIND, PAUSE_KIND = 9, 10  # of inbox entries
NOBODY = "0x" + 40 * "0"
# Storage slot of the proposed references in Governor.vy, which has no view of them: a mapping from proposals to four words each.
REFERENCES_SLOT = 7
DECIMALS = HexBytes("0x313ce567")  # of AggregatorV3Interface.decimals()


class Action(enum.IntEnum):
    """What a proposal does, as Governor.vy numbers it."""

    LIST = 1
    TUNE = 2
    DELIST = 3
    KEEPER = 4
    QUORUMS = 5
    SEQUENCER = 6
    REFERENCE = 7
    GUARDIAN = 8
    GOVERNOR = 9
    SETTLE = 10  # nobody proposes it: it follows from a delisting


class ProposalState(enum.IntEnum):
    """Where a proposal stands."""

    NONE = 0
    PROPOSED = 1
    CANCELLED = 2
    EXECUTED = 3  # waits in the inbox
    IN_FORCE = 4
    WITHOUT_EFFECT = 5


class Proposal(msgspec.Struct, frozen=True):
    """A proposal; times in unix seconds, `subject` and `detail` as IGovernor.vyi says."""

    action: Action
    state: ProposalState
    proposed_at: int
    ready_at: int
    deadline: int
    subject: int
    detail: int


class Reference(msgspec.Struct, frozen=True):
    """A market's reference feed, as IPriceOracle.vyi says; nobody's address: none."""

    feed: str
    deviation_ppm: int
    heartbeat_s: int
    tick_scale: int

    @property
    def is_set(self) -> bool:
        """Whether it bounds anything."""
        return int(self.feed, 16) != 0


NO_REFERENCE = Reference(NOBODY, 0, 0, 0)


class GovernorContract:
    """The governor of one deployment."""

    def __init__(self, w3: Web3, manifest: Manifest) -> None:
        self.w3 = w3
        # Without `decode_tuples`, which mixes up several values that are returned together.
        self.contract, self._oracle = (
            w3.eth.contract(address=to_checksum_address(manifest.addresses[name]), abi=manifest.abis[name])
            for name in ("governor", "oracle")
        )
        self._inbox = contract_of(w3, manifest, "inbox")
        self._manifest = manifest

    async def proposal(self, proposal_id: int, block: BlockIdentifier = "latest") -> Proposal:
        """A proposal by id; state NONE for an unknown one."""
        values = list(await self._read(self.contract.functions.proposal(proposal_id), block))
        if not values[0]:
            return Proposal(Action.LIST, ProposalState.NONE, 0, 0, 0, 0, 0)
        return Proposal(Action(values[0]), ProposalState(values[1]), *values[2:])

    async def proposal_count(self, block: BlockIdentifier = "latest") -> int:
        """The newest proposal's id."""
        return int(await self._read(self.contract.functions.proposal_count(), block))

    async def ending(self, market: int) -> tuple[int, int, bool]:
        """When a delisted market ends (0: it does not), its settlement price once known, and whether that is in force."""
        ends_at, price, settled = await self._read(self._oracle.functions.ending(market), "latest")
        return int(ends_at), int(price), bool(settled)

    async def is_waiting(self, topic: int, kind: int) -> bool:
        """Whether an entry of governor or guardian waits in the inbox; of its kind there is one at a time, for each topic."""
        call = self._inbox.functions.open_entry(self.contract.address, topic, kind)
        return bool(await self._read(call, "latest"))

    async def change(self, kind: int, topic: int, data: int, block: BlockIdentifier = "latest") -> AnyChange:
        """What an inbox entry of kind 9 or 10 changes."""
        if kind == PAUSE_KIND:
            return PauseMarket(topic, data & 0xFF, data >> 8)
        proposal = await self.proposal(data, block)
        config, terms = await self._read(self.contract.functions.listing(data), block)
        return decode_change(proposal, tuple(config), tuple(terms))

    async def markets(self) -> list[Market]:
        """Every market with the parameters in force: those of the deployment, and what proposals made of them since."""
        markets = list(self._manifest.markets)
        logs = await self.contract.events.TookEffect.get_logs(from_block=self._manifest.genesis_block)
        for log in logs:
            proposal = await self.proposal(log["args"]["id"])
            if not log["args"]["applied"] or proposal.action not in (Action.LIST, Action.TUNE):
                continue
            changed = await self.tuned(log["args"]["id"], proposal)
            if proposal.action is Action.LIST:
                markets.append(replace(changed, market_id=len(markets)))
            else:
                markets[proposal.subject] = changed
        return markets

    async def tuned(self, proposal_id: int, proposal: Proposal) -> Market:
        """The market of a proposal to list or to tune one."""
        config, terms = await self._read(self.contract.functions.listing(proposal_id), "latest")
        return market_of(
            proposal.subject if proposal.action is Action.TUNE else 0, tuple(config), tuple(terms)
        )

    async def reference(self, market: int) -> Reference:
        """The reference feed in force."""
        return Reference(*await self._read(self._oracle.functions.reference(market), "latest"))

    async def proposed_reference(self, proposal_id: int) -> Reference:
        """The reference feed that a proposal names."""
        first = int.from_bytes(
            keccak(REFERENCES_SLOT.to_bytes(32, "big") + proposal_id.to_bytes(32, "big")), "big"
        )
        words = [
            int.from_bytes(await self.w3.eth.get_storage_at(self.contract.address, first + place), "big")
            for place in range(4)
        ]
        return Reference(to_checksum_address(_address(words[0])), *words[1:])

    async def feed_decimals(self, feed: str) -> int | None:
        """What an AggregatorV3Interface says of itself; None where it does not."""
        try:
            answer = await self.w3.eth.call({"to": to_checksum_address(feed), "data": DECIMALS})
        except Web3Exception:
            return None
        return int.from_bytes(answer, "big") if len(answer) == 32 else None

    # --- calls

    async def propose(
        self, sender: TransactionSender, call: str, *arguments: Any, deadline: int | None = None
    ) -> int:
        """Send `propose_...`; the proposal's id. `deadline` None is the latest that the contract takes."""
        if deadline is None:
            slow = call in ("propose_quorums", "propose_role") or (call == "propose_keeper" and arguments[2])
            block = await self.w3.eth.get_block("latest")
            deadline = int(block["timestamp"]) + (LONG_DELAY_S if slow else DELAY_S) + 20 * 3600
        receipt = await self._send(sender, call, *arguments, deadline)
        return int(self._event(receipt, "Proposed")["id"])

    async def propose_market(self, sender: TransactionSender, market: Market, index_ticks: int) -> int:
        """Propose a listing at what the market is worth now."""
        return await self.propose(sender, "propose_listing", *listing_arguments(market), index_ticks)

    async def propose_tuning(self, sender: TransactionSender, market_id: int, market: Market) -> int:
        """Propose other parameters of a market."""
        return await self.propose(sender, "propose_tuning", market_id, *listing_arguments(market))

    async def propose_reference(self, sender: TransactionSender, market_id: int, reference: Reference) -> int:
        """Propose a market's reference feed."""
        return await self.propose(sender, "propose_reference", market_id, msgspec.structs.astuple(reference))

    async def cancel(self, sender: TransactionSender, proposal_id: int) -> None:
        """As governor or guardian."""
        await self._send(sender, "cancel", proposal_id)

    async def execute(self, sender: TransactionSender, proposal_id: int) -> int:
        """As anybody, once its delay is over; the inbox entry, 0 where it is in force at once."""
        proposal = await self.proposal(proposal_id)
        bond = 0 if proposal.action >= Action.REFERENCE else await self._bond(CHANGE_KIND)
        receipt = await self._send(sender, "execute", proposal_id, bond=bond)
        return int(self._event(receipt, "Executed")["entry"])

    async def settle(self, sender: TransactionSender, market: int) -> int:
        """As anybody, once the oracle has a delisted market's settlement price; the inbox entry."""
        receipt = await self._send(sender, "settle", market, bond=await self._bond(CHANGE_KIND))
        return int(self._event(receipt, "Executed")["entry"])

    async def pause(self, sender: TransactionSender, markets: list[int], mode: int, duration_s: int) -> None:
        """As guardian: a mode for a time, 0 and 0 to lift it."""
        bond = await self._bond(PAUSE_KIND) * len(markets)
        await self._send(sender, "pause", markets, mode, duration_s, bond=bond)

    async def _bond(self, kind: int) -> int:
        return int(await self._read(self._inbox.functions.bond(kind), "latest"))

    async def _send(self, sender: TransactionSender, call: str, *arguments: Any, bond: int = 0) -> TxReceipt:
        return await sender.send(
            self.contract.address, self.contract.encode_abi(call, args=list(arguments)), value=bond
        )

    def _event(self, receipt: TxReceipt, name: str) -> dict[str, Any]:
        mine = [log for log in receipt["logs"] if log["address"] == self.contract.address]
        event = self.contract.events[name]()
        topic = event.topic
        found = next(log for log in mine if log["topics"][0].to_0x_hex() == topic)
        return dict(event.process_log(found)["args"])

    async def _read(self, call: Any, block: BlockIdentifier) -> Any:
        return await read_again(lambda: call.call(block_identifier=block))


def decode_change(proposal: Proposal, config: tuple[Any, ...], terms: tuple[Any, ...]) -> AnyChange:
    """What a proposal that went through the inbox changes; `config` and `terms` are its market's, if it has one."""
    action, subject, detail = proposal.action, proposal.subject, proposal.detail
    if action is Action.LIST:
        return ListMarket(market_of(0, config, terms))
    if action is Action.TUNE:
        return TuneMarket(market_of(subject, config, terms))
    if action is Action.DELIST:
        return DelistMarket(subject)
    if action is Action.SETTLE:
        return SettleMarket(subject, detail)
    if action is Action.KEEPER:
        return SetKeeper(detail & 0xFF, _address(subject), bool(detail >> 8))
    if action is Action.QUORUMS:
        return SetQuorums(detail & 0xFF, detail >> 8)
    return SetSequencer(_address(subject))


def listing_arguments(market: Market) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """A market as MarketConfig and Terms."""
    config = (
        market.symbol,
        market.lot_tick_value,
        market.price_band_ppm,
        market.liquidation_fee_ppm,
        market.max_price_age_s,
        market.open_interest_cap_lots,
        market.fund_position_cap_lots,
        [(tier.lower_notional // USDC, tier.initial_fraction_ppm) for tier in market.tiers],
    )
    terms = (
        market.base,
        market.size_decimals,
        market.price_decimals,
        market.maker_fee_ppm,
        market.taker_fee_ppm,
        market.min_notional,
        market.max_order_lots,
        market.mark_band_ppm,
        market.slice_notional,
        market.impact_notional,
        market.min_sources,
        market.jump_ppm_per_s,
    )
    return config, terms


def market_of(market_id: int, config: tuple[Any, ...], terms: tuple[Any, ...]) -> Market:
    """The inverse of `listing_arguments`."""
    symbol, lot_tick_value, price_band, liquidation_fee, price_age, cap, fund_cap, tiers = config
    base, size_decimals, price_decimals, maker_fee, taker_fee, min_notional, max_order, *rest = terms
    mark_band, slice_notional, impact_notional, min_sources, jump = rest
    return Market(
        market_id=market_id,
        symbol=symbol,
        base=base,
        size_decimals=size_decimals,
        price_decimals=price_decimals,
        lot_tick_value=lot_tick_value,
        tiers=tiers_of([(int(lower), int(fraction)) for lower, fraction in tiers]),
        maker_fee_ppm=maker_fee,
        taker_fee_ppm=taker_fee,
        min_notional=min_notional,
        max_order_lots=max_order,
        open_interest_cap_lots=cap,
        fund_position_cap_lots=fund_cap,
        price_band_ppm=price_band,
        mark_band_ppm=mark_band,
        max_price_age_s=price_age,
        liquidation_fee_ppm=liquidation_fee,
        slice_notional=slice_notional,
        impact_notional=impact_notional,
        min_sources=min_sources,
        jump_ppm_per_s=jump,
    )


def _address(word: int) -> bytes:
    return word.to_bytes(20, "big")
