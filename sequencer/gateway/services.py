"""What the gateway is given by the composition root, and nothing else: it reaches into no other part by
itself.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from prometheus_client import REGISTRY, CollectorRegistry

from evermark.protocol.oracle import SignedFundingReport, SignedPriceReport
from evermark.protocol.reject import Reject
from sequencer.engine.commands import AnyCommand
from sequencer.engine.state import EngineState
from sequencer.gateway.limits import Limits
from sequencer.history import History
from sequencer.market_data import MarketData
from sequencer.pipeline import Done
from sequencer.publication import Publication
from sequencer.reports import Received

MAX_BODY_BYTES = 64 * 1024  # the largest signed request, a report of 64 markets, has about 6 KiB


class Reports(Protocol):
    """The collector of keepers' reports."""

    @property
    def markets(self) -> int:
        """How many markets keepers may report: those whose listing the chain has confirmed."""

    def add_price(self, signed: SignedPriceReport) -> Received | Reject:
        """Take one verified price report."""

    def add_funding(self, signed: SignedFundingReport) -> Received | Reject:
        """Take one verified funding report."""


class ExchangeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses of one deployment, 20 bytes each; the rest of /v1/exchange comes from the engine's
    genesis.
    """

    chain_id: int
    vault: bytes
    oracle: bytes
    inbox: bytes
    token: bytes


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the process; the defaults suit one machine."""

    limits: Limits = Limits()
    max_body_bytes: int = MAX_BODY_BYTES
    max_message_bytes: int = MAX_BODY_BYTES
    body_timeout_s: float = 10.0
    keepalive_s: float = 30.0
    signature_threads: int = 2
    signature_processes: int = 0  # that check orders in their stead
    signatures_waiting: int = 1_024  # messages whose check is under way; orders beyond are refused
    socket_queue_messages: int = 2_000  # unsent messages from which a WebSocket client counts as not reading
    socket_queue_bytes: int = 4 * 2**20
    socket_heartbeat_s: float = 20.0
    subscriptions_per_socket: int = 64
    withdrawal_fee: int = 0  # quote units that the operator takes from a withdrawal, at most what was signed
    cors_origins: tuple[str, ...] = ()  # none: pages of other origins may not read


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the gateway works with. All callables run on the event loop and must not block."""

    submit: Callable[[AnyCommand, Done], None]
    state: EngineState  # for reading only, between two awaits
    history: History
    market_data: MarketData
    reports: Reports
    now_s: Callable[[], int]  # chain time
    facts: ExchangeFacts
    status: Callable[
        [], dict[str, Any]
    ]  # batch_settled, settlement_lag_s, fills_settled, ... merged into /v1/status
    missing: Callable[[], list[str]]  # what readiness still waits for; empty: ready
    publication: Publication | None = None  # the settled journal's pages
    settings: GatewaySettings = GatewaySettings()
    registry: CollectorRegistry = REGISTRY
