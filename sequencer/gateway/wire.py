"""Untrusted JSON -> protocol messages, strictly: known fields only, integers only, nothing guessed.

Field names are those of the EIP-712 types, so the body shows what was signed. Integers that may exceed 2^53 are also
taken as canonical decimal strings.
"""

import re
from typing import Annotated, Any, Literal

import msgspec

from evermark.protocol.orders import (
    SIDE_TEXT,
    TIME_IN_FORCE_TEXT,
    TRIGGER_TEXT,
    ApproveAgent,
    Cancel,
    Order,
    Side,
    Signature,
    TimeInForce,
    Trigger,
    Withdraw,
)
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.signing import FundingReport, Liquidate, PriceReport, SignatureRefused, parse_signature
from sequencer.gateway.refusal import Refusal, refuse

NO_ADDRESS_TEXT = "0x" + "00" * 20
# \A and \Z, because $ would let a trailing line feed pass.
Address = Annotated[str, msgspec.Meta(pattern=r"\A0x[0-9a-fA-F]{40}\Z")]
Hash = Annotated[str, msgspec.Meta(pattern=r"\A0x[0-9a-fA-F]{64}\Z")]
SignatureText = Annotated[str, msgspec.Meta(pattern=r"\A0x[0-9a-fA-F]{130}\Z")]
Symbol = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z0-9-]{1,32}\Z")]
ClientId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_.:-]{0,64}\Z")]
Whole = int | str  # an unsigned integer, or the same as a decimal string
MAX_LIST = 64  # prices or rates in a report: at most the number of markets

_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,77})\Z", re.ASCII)
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NEGATIVE_ZERO = re.compile(rb"-0(?![0-9.])")


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every request: an unknown field is a refusal."""


class OrderFields(Strict, frozen=True, rename="camel"):
    """The fields of the EIP-712 type `Order`; optional ones default to what leaves them unused."""

    owner: Address
    sub_account: int
    market: Symbol
    side: Literal["buy", "sell"]
    size: Whole
    limit_price: int
    max_fee_ppm: int
    slot: int
    sequence: int
    expiry: Whole
    time_in_force: Literal["GTC", "GTD", "IOC", "FOK"] = "GTC"
    post_only: bool = False
    reduce_only: bool = False
    amend: bool = False
    builder: Address = NO_ADDRESS_TEXT
    max_builder_fee_ppm: int = 0
    trigger: Literal["none", "mark above", "mark below", "last above", "last below"] = "none"
    trigger_price: int = 0
    trailing_offset: int = 0
    display_size: Whole = 0
    twap_interval: int = 0
    bracket_link: int = 0


class CancelFields(Strict, frozen=True, rename="camel"):
    """The fields of the EIP-712 type `Cancel`."""

    owner: Address
    sub_account: int
    all_slots: bool
    slot: int
    sequence: int
    deadline: Whole


class WithdrawFields(Strict, frozen=True, rename="camel"):
    """The fields of the EIP-712 type `Withdraw`."""

    owner: Address
    sub_account: int
    amount: Whole
    max_fee: Whole
    action_sequence: int
    deadline: Whole


class ApprovalFields(Strict, frozen=True, rename="camel"):
    """The fields of the EIP-712 type `ApproveAgent`."""

    owner: Address
    sub_account: int
    agent: Address
    agent_expiry: Whole
    transfer_cap: Whole
    action_sequence: int
    deadline: Whole


class PriceReportFields(Strict, frozen=True, rename="camel"):
    """The fields of the EIP-712 type `PriceReport`."""

    round: Whole
    timestamp: Whole
    prices: Annotated[list[Whole], msgspec.Meta(max_length=MAX_LIST)]


class FundingReportFields(Strict, frozen=True, rename="camel"):
    """The fields of the EIP-712 type `FundingReport`."""

    hour: Whole
    rates_ppb: Annotated[list[Whole], msgspec.Meta(max_length=MAX_LIST)]
    samples: Hash


class TriggerFields(Strict, frozen=True, rename="camel"):
    """The fields of the EIP-712 type `Liquidate`."""

    account: int
    market: Symbol
    round: Whole
    deadline: Whole


class Signed(Strict, frozen=True):
    """What every signed request carries. A client that names the domain it signed under gets a better refusal."""

    signature: SignatureText
    chain_id: int | None = None
    verifying_contract: Address | None = None


class OrderRequest(Signed, frozen=True):
    """Body of POST /v1/orders."""

    order: OrderFields
    client_id: ClientId = ""


class CancelRequest(Signed, frozen=True):
    """Body of POST /v1/cancels."""

    cancel: CancelFields


class AgentRequest(Signed, frozen=True):
    """Body of POST /v1/agents."""

    approval: ApprovalFields


class WithdrawalRequest(Signed, frozen=True):
    """Body of POST /v1/withdrawals."""

    withdraw: WithdrawFields


class PriceReportRequest(Signed, frozen=True):
    """Body of POST /v1/oracle/prices."""

    report: PriceReportFields


class FundingReportRequest(Signed, frozen=True):
    """Body of POST /v1/oracle/funding."""

    report: FundingReportFields


class LiquidationRequest(Signed, frozen=True):
    """Body of POST /v1/liquidations."""

    trigger: TriggerFields


class WsOrder(OrderRequest, frozen=True, tag="order", tag_field="op"):
    """An order over the WebSocket."""

    id: int


class WsCancel(CancelRequest, frozen=True, tag="cancel", tag_field="op"):
    """A cancel over the WebSocket."""

    id: int


class WsAgent(AgentRequest, frozen=True, tag="agent", tag_field="op"):
    """An agent approval over the WebSocket."""

    id: int


class WsWithdraw(WithdrawalRequest, frozen=True, tag="withdraw", tag_field="op"):
    """A withdrawal over the WebSocket."""

    id: int


class _Channel(Strict, frozen=True):
    channel: Literal["book", "trades", "prices", "status", "account"]
    market: Symbol = ""
    owner: Address | Literal[""] = ""
    sub_account: int = 0
    id: int | None = None


class WsSubscribe(_Channel, frozen=True, tag="subscribe", tag_field="op"):
    """Start receiving a channel."""


class WsUnsubscribe(_Channel, frozen=True, tag="unsubscribe", tag_field="op"):
    """Stop receiving a channel."""


class WsPing(Strict, frozen=True, tag="ping", tag_field="op"):
    """Asks for a pong."""

    id: int | None = None


WsSigned = WsOrder | WsCancel | WsAgent | WsWithdraw
WsMessage = WsOrder | WsCancel | WsAgent | WsWithdraw | WsSubscribe | WsUnsubscribe | WsPing


class Parser:
    """Decodes one kind of request; every way in which bytes can be wrong is a Refusal."""

    def __init__(self, kind: Any) -> None:
        self._decoder = msgspec.json.Decoder(kind)

    def parse(self, raw: bytes | str) -> Any:
        """Bytes -> the request struct. Raises Refusal with MALFORMED, UNKNOWN_FIELD, WRONG_TYPE or OUT_OF_RANGE."""
        data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
        try:
            request = self._decoder.decode(data)
        except msgspec.ValidationError as error:
            raise Refusal(_invalid(str(error))) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise refuse(RejectCode.MALFORMED, f"body: {error}") from None
        except RecursionError:
            raise refuse(RejectCode.MALFORMED, "body: nested too deeply") from None
        if b"-0" in data and _NEGATIVE_ZERO.search(_STRINGS.sub(b"", data)):
            raise refuse(RejectCode.MALFORMED, "body: -0 is no integer")
        return request


def _invalid(text: str) -> Reject:
    """msgspec's sentence -> a Reject; the sentence names the place as "... - at `$.order.size`"."""
    message, _, place = text.partition(" - at `")
    named = re.search(r"field `([^`]*)`", message)
    path = place.rstrip("`").removeprefix("$").lstrip(".")
    field = ".".join(part for part in (path, named[1] if named else "") if part)[:100]
    code = RejectCode.MALFORMED
    if "unknown field" in message:
        code = RejectCode.UNKNOWN_FIELD
    elif " matching regex" in message or "out of range" in message or "Invalid" in message or " of length" in message:
        code = RejectCode.OUT_OF_RANGE
    elif message.startswith("Expected"):
        code = RejectCode.WRONG_TYPE
    return Reject(code=code, message=f"body: {message[:300]}", field=field)


def whole(value: Whole, bits: int, field: str) -> int:
    """An unsigned integer of at most `bits` bits from a JSON integer or decimal string. Raises Refusal."""
    number = _integer(value, field)
    if not 0 <= number < 1 << bits:
        raise refuse(RejectCode.OUT_OF_RANGE, f"{field}: not an unsigned {bits}-bit integer", field)
    return number


def signed_whole(value: Whole, bits: int, field: str) -> int:
    """A signed integer within `bits` bits. Raises Refusal."""
    number = _integer(value, field)
    if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        raise refuse(RejectCode.OUT_OF_RANGE, f"{field}: not a signed {bits}-bit integer", field)
    return number


def _integer(value: Whole, field: str) -> int:
    if isinstance(value, int):
        return value
    if not _DECIMAL.match(value) or value == "-0":
        raise refuse(RejectCode.WRONG_TYPE, f"{field}: neither an integer nor its canonical decimal string", field)
    return int(value)


def address(text: str) -> bytes:
    """A text that the schema has already checked -> 20 bytes."""
    return bytes.fromhex(text[2:])


def signature_of(request: Signed) -> Signature:
    """The request's signature. Raises Refusal (BAD_SIGNATURE) for an impossible v."""
    try:
        return parse_signature(bytes.fromhex(request.signature[2:]))
    except SignatureRefused as error:
        raise refuse(RejectCode.BAD_SIGNATURE, str(error), "signature") from None


def order_of(fields: OrderFields) -> Order:
    """JSON fields -> Order, every integer inside its EIP-712 width. Raises Refusal."""
    return Order(
        owner=address(fields.owner),
        sub_account=whole(fields.sub_account, 16, "order.subAccount"),
        market=fields.market,
        side=Side(SIDE_TEXT.index(fields.side)),
        size=whole(fields.size, 62, "order.size"),
        limit_price=whole(fields.limit_price, 32, "order.limitPrice"),
        max_fee_ppm=whole(fields.max_fee_ppm, 16, "order.maxFeePpm"),
        slot=whole(fields.slot, 16, "order.slot"),
        sequence=whole(fields.sequence, 48, "order.sequence"),
        expiry=whole(fields.expiry, 32, "order.expiry"),
        time_in_force=TimeInForce(TIME_IN_FORCE_TEXT.index(fields.time_in_force)),
        post_only=fields.post_only,
        reduce_only=fields.reduce_only,
        amend=fields.amend,
        builder=address(fields.builder),
        max_builder_fee_ppm=whole(fields.max_builder_fee_ppm, 16, "order.maxBuilderFeePpm"),
        trigger=Trigger(TRIGGER_TEXT.index(fields.trigger)),
        trigger_price=whole(fields.trigger_price, 32, "order.triggerPrice"),
        trailing_offset=whole(fields.trailing_offset, 32, "order.trailingOffset"),
        display_size=whole(fields.display_size, 62, "order.displaySize"),
        twap_interval=whole(fields.twap_interval, 32, "order.twapInterval"),
        bracket_link=whole(fields.bracket_link, 16, "order.bracketLink"),
    )


def cancel_of(fields: CancelFields) -> Cancel:
    """JSON fields -> Cancel. Raises Refusal."""
    return Cancel(
        owner=address(fields.owner),
        sub_account=whole(fields.sub_account, 16, "cancel.subAccount"),
        all_slots=fields.all_slots,
        slot=whole(fields.slot, 16, "cancel.slot"),
        sequence=whole(fields.sequence, 48, "cancel.sequence"),
        deadline=whole(fields.deadline, 32, "cancel.deadline"),
    )


def withdraw_of(fields: WithdrawFields) -> Withdraw:
    """JSON fields -> Withdraw. Raises Refusal."""
    return Withdraw(
        owner=address(fields.owner),
        sub_account=whole(fields.sub_account, 16, "withdraw.subAccount"),
        amount=whole(fields.amount, 95, "withdraw.amount"),
        max_fee=whole(fields.max_fee, 95, "withdraw.maxFee"),
        action_sequence=whole(fields.action_sequence, 48, "withdraw.actionSequence"),
        deadline=whole(fields.deadline, 32, "withdraw.deadline"),
    )


def approval_of(fields: ApprovalFields) -> ApproveAgent:
    """JSON fields -> ApproveAgent. Raises Refusal."""
    return ApproveAgent(
        owner=address(fields.owner),
        sub_account=whole(fields.sub_account, 16, "approval.subAccount"),
        agent=address(fields.agent),
        agent_expiry=whole(fields.agent_expiry, 32, "approval.agentExpiry"),
        transfer_cap=whole(fields.transfer_cap, 95, "approval.transferCap"),
        action_sequence=whole(fields.action_sequence, 48, "approval.actionSequence"),
        deadline=whole(fields.deadline, 32, "approval.deadline"),
    )


def price_report_of(fields: PriceReportFields) -> PriceReport:
    """JSON fields -> PriceReport. Raises Refusal."""
    return PriceReport(
        round=whole(fields.round, 40, "report.round"),
        timestamp=whole(fields.timestamp, 32, "report.timestamp"),
        prices=tuple(whole(price, 64, "report.prices") for price in fields.prices),
    )


def funding_report_of(fields: FundingReportFields) -> FundingReport:
    """JSON fields -> FundingReport. Raises Refusal."""
    return FundingReport(
        hour=whole(fields.hour, 32, "report.hour"),
        rates_ppb=tuple(signed_whole(rate, 64, "report.ratesPpb") for rate in fields.rates_ppb),
        samples=bytes.fromhex(fields.samples[2:]),
    )


def trigger_of(fields: TriggerFields) -> Liquidate:
    """JSON fields -> Liquidate. Raises Refusal."""
    return Liquidate(
        account=whole(fields.account, 32, "trigger.account"),
        market=fields.market,
        round=whole(fields.round, 40, "trigger.round"),
        deadline=whole(fields.deadline, 32, "trigger.deadline"),
    )
