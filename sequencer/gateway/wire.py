"""Schemas of every request, strict: known fields only, integers only, nothing guessed.

Field names are those of the EIP-712 types, so the body shows what was signed. Integers that may exceed 2^53
are also taken as canonical decimal strings.
"""

from typing import Annotated, Literal

import msgspec

from evermark.protocol.merkle import MAX_BATCH_ORDERS

NO_ADDRESS_TEXT = "0x" + "00" * 20
# \A and \Z, because $ would let a trailing line feed pass.
_ADDRESS = r"\A0x[0-9a-fA-F]{40}\Z"
_HASH = r"\A0x[0-9a-fA-F]{64}\Z"
SYMBOL = r"\A[A-Z0-9-]{1,32}\Z"
_CLIENT_ID = r"\A[A-Za-z0-9_.:-]{0,64}\Z"
IN_WORDS = {  # what a refusal says in place of a pattern
    _ADDRESS: "0x and 40 hex digits",
    _HASH: "0x and 64 hex digits",
    SYMBOL: "1 to 32 capital letters, digits or hyphens",
    _CLIENT_ID: "at most 64 letters, digits or characters of _.:-",
}
Address = Annotated[str, msgspec.Meta(pattern=_ADDRESS)]
Hash = Annotated[str, msgspec.Meta(pattern=_HASH)]
Symbol = Annotated[str, msgspec.Meta(pattern=SYMBOL)]
ClientId = Annotated[str, msgspec.Meta(pattern=_CLIENT_ID)]
Whole = int | str  # an unsigned integer, or the same as a decimal string
U16 = Annotated[int, msgspec.Meta(ge=0, lt=2**16)]
U32 = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
U48 = Annotated[int, msgspec.Meta(ge=0, lt=2**48)]
Size = Annotated[int, msgspec.Meta(ge=0, lt=2**62)] | str
Time = U32 | str
MAX_LIST = 64  # prices or rates in a report: at most the number of markets


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Base of every request: an unknown field is a refusal."""


class OrderFields(Strict, frozen=True, kw_only=True, rename="camel"):
    """The fields of the EIP-712 type `Order`; optional ones default to what leaves them unused.

    Three texts have no pattern here: `parse` reads them anyway, and patterns cost more than all the rest of the decoding.
    """

    owner: str
    sub_account: U16
    market: str
    side: Literal["buy", "sell"]
    size: Size
    limit_price: U32
    max_fee_ppm: U16
    slot: U16
    sequence: U48
    expiry: Time
    time_in_force: Literal["GTC", "GTD", "IOC", "FOK"] = "GTC"
    post_only: bool = False
    reduce_only: bool = False
    amend: bool = False
    builder: str = NO_ADDRESS_TEXT
    max_builder_fee_ppm: U16 = 0
    trigger: Literal["none", "mark above", "mark below", "last above", "last below"] = "none"
    trigger_price: U32 = 0
    trailing_offset: U32 = 0
    display_size: Size = 0
    twap_interval: U32 = 0
    bracket_link: U16 = 0


class CancelFields(Strict, frozen=True, kw_only=True, rename="camel"):
    """The fields of the EIP-712 type `Cancel`."""

    owner: Address
    sub_account: int
    all_slots: bool
    slot: int
    sequence: int
    deadline: Whole


class WithdrawFields(Strict, frozen=True, kw_only=True, rename="camel"):
    """The fields of the EIP-712 type `Withdraw`."""

    owner: Address
    sub_account: int
    amount: Whole
    max_fee: Whole
    action_sequence: int
    deadline: Whole


class TransferFields(Strict, frozen=True, kw_only=True, rename="camel"):
    """The fields of the EIP-712 type `Transfer`."""

    owner: Address
    sub_account: int
    to_sub_account: int
    amount: Whole
    action_sequence: int
    deadline: Whole


class ApprovalFields(Strict, frozen=True, kw_only=True, rename="camel"):
    """The fields of the EIP-712 type `ApproveAgent`."""

    owner: Address
    sub_account: int
    agent: Address
    agent_expiry: Whole
    transfer_cap: Whole
    action_sequence: int
    deadline: Whole


class PriceReportFields(Strict, frozen=True, kw_only=True, rename="camel"):
    """The fields of the EIP-712 type `PriceReport`."""

    round: Whole
    timestamp: Whole
    prices: Annotated[list[Whole], msgspec.Meta(max_length=MAX_LIST)]


class FundingReportFields(Strict, frozen=True, kw_only=True, rename="camel"):
    """The fields of the EIP-712 type `FundingReport`."""

    hour: Whole
    rates_ppb: Annotated[list[Whole], msgspec.Meta(max_length=MAX_LIST)]
    samples: Hash


class TriggerFields(Strict, frozen=True, kw_only=True, rename="camel"):
    """The fields of the EIP-712 type `Liquidate`."""

    account: int
    market: Symbol
    round: Whole
    deadline: Whole


class Signed(Strict, frozen=True, kw_only=True):
    """What every signed request carries. A client that names the domain it signed under gets a better
    refusal.
    """

    signature: str  # see OrderFields
    chain_id: int | None = None
    verifying_contract: Address | None = None


class OrderRequest(Signed, frozen=True, kw_only=True):
    """Body of POST /v1/orders."""

    order: OrderFields
    client_id: ClientId = ""


class OrdersRequest(Signed, frozen=True, kw_only=True):
    """Body of POST /v1/order-batches: orders of one account under one agent's signature of `OrderBatch`."""

    orders: Annotated[list[OrderFields], msgspec.Meta(min_length=1, max_length=MAX_BATCH_ORDERS)]
    client_ids: Annotated[list[ClientId], msgspec.Meta(max_length=MAX_BATCH_ORDERS)] = []


class CancelRequest(Signed, frozen=True, kw_only=True):
    """Body of POST /v1/cancels."""

    cancel: CancelFields


class AgentRequest(Signed, frozen=True, kw_only=True):
    """Body of POST /v1/agents."""

    approval: ApprovalFields


class WithdrawalRequest(Signed, frozen=True, kw_only=True):
    """Body of POST /v1/withdrawals."""

    withdraw: WithdrawFields


class TransferRequest(Signed, frozen=True, kw_only=True):
    """Body of POST /v1/transfers."""

    transfer: TransferFields


class PriceReportRequest(Signed, frozen=True, kw_only=True):
    """Body of POST /v1/oracle/prices."""

    report: PriceReportFields


class FundingReportRequest(Signed, frozen=True, kw_only=True):
    """Body of POST /v1/oracle/funding."""

    report: FundingReportFields


class LiquidationRequest(Signed, frozen=True, kw_only=True):
    """Body of POST /v1/liquidations."""

    trigger: TriggerFields


class WsOrder(OrderRequest, frozen=True, kw_only=True, tag="order", tag_field="op"):
    """An order over the WebSocket."""

    id: int


class WsOrders(OrdersRequest, frozen=True, kw_only=True, tag="orders", tag_field="op"):
    """An order batch over the WebSocket."""

    id: int


class WsCancel(CancelRequest, frozen=True, kw_only=True, tag="cancel", tag_field="op"):
    """A cancel over the WebSocket."""

    id: int


class WsAgent(AgentRequest, frozen=True, kw_only=True, tag="agent", tag_field="op"):
    """An agent approval over the WebSocket."""

    id: int


class WsWithdraw(WithdrawalRequest, frozen=True, kw_only=True, tag="withdraw", tag_field="op"):
    """A withdrawal over the WebSocket."""

    id: int


class WsTransfer(TransferRequest, frozen=True, kw_only=True, tag="transfer", tag_field="op"):
    """A transfer over the WebSocket."""

    id: int


class _Channel(Strict, frozen=True, kw_only=True):
    channel: Literal["book", "trades", "prices", "status", "account"]
    market: Symbol = ""
    owner: Address | Literal[""] = ""
    sub_account: int = 0
    id: int | None = None


class WsSubscribe(_Channel, frozen=True, kw_only=True, tag="subscribe", tag_field="op"):
    """Start receiving a channel."""


class WsUnsubscribe(_Channel, frozen=True, kw_only=True, tag="unsubscribe", tag_field="op"):
    """Stop receiving a channel."""


class WsPing(Strict, frozen=True, kw_only=True, tag="ping", tag_field="op"):
    """Asks for a pong."""

    id: int | None = None


WsSigned = WsOrder | WsOrders | WsCancel | WsAgent | WsWithdraw | WsTransfer
WsMessage = WsSigned | WsSubscribe | WsUnsubscribe | WsPing
