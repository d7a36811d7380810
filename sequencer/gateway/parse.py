"""Untrusted JSON -> protocol messages; every way in which bytes can be wrong is a Refusal."""

import re
from typing import Any

import msgspec

from evermark.protocol.orders import (
    NO_ADDRESS,
    SIDE_TEXT,
    TIME_IN_FORCE_TEXT,
    TRIGGER_TEXT,
    ApproveAgent,
    Cancel,
    Order,
    Side,
    Signature,
    TimeInForce,
    Transfer,
    Trigger,
    Withdraw,
)
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.signing import FundingReport, Liquidate, PriceReport, SignatureRefused, parse_signature
from sequencer.gateway.refusal import Refusal, refuse
from sequencer.gateway.wire import (
    IN_WORDS,
    NO_ADDRESS_TEXT,
    SYMBOL,
    ApprovalFields,
    CancelFields,
    FundingReportFields,
    OrderFields,
    PriceReportFields,
    Signed,
    TransferFields,
    TriggerFields,
    Whole,
    WithdrawFields,
)

_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,77})\Z", re.ASCII)
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BOUND = re.compile("Expected `int` [<>]")
_SYMBOL = re.compile(SYMBOL)
_PATTERN = re.compile(r"`str` matching regex (.*)")
_IN_WORDS = {repr(pattern): words for pattern, words in IN_WORDS.items()}  # as msgspec quotes it
_SIDES = {text: Side(at) for at, text in enumerate(SIDE_TEXT)}
_TIMES_IN_FORCE = {text: TimeInForce(at) for at, text in enumerate(TIME_IN_FORCE_TEXT)}
_TRIGGERS = {text: Trigger(at) for at, text in enumerate(TRIGGER_TEXT)}
_NEGATIVE_ZERO = re.compile(rb"-0(?![0-9.])")


class Parser:
    """Decodes one kind of request; every way in which bytes can be wrong is a Refusal."""

    def __init__(self, kind: Any) -> None:
        self._decoder = msgspec.json.Decoder(kind)

    def parse(self, raw: bytes | str) -> Any:
        """Bytes -> the request struct. Raises Refusal with MALFORMED, UNKNOWN_FIELD, WRONG_TYPE or
        OUT_OF_RANGE.
        """
        data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
        try:
            request = self._decoder.decode(data)
        except msgspec.ValidationError as error:
            raise Refusal(_invalid(str(error))) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise refuse(RejectCode.MALFORMED, f"body: {error}") from None
        except RecursionError:
            raise refuse(RejectCode.MALFORMED, "body: nested too deeply") from None
        if _may_hold_minus_zero(data) and _NEGATIVE_ZERO.search(_STRINGS.sub(b"", data)):
            raise refuse(RejectCode.MALFORMED, "body: -0 is no integer")
        return request


def _may_hold_minus_zero(data: bytes) -> bool:
    """Looking for the few hyphens of a message costs a fifth of looking for `-0` among many zeros."""
    at = data.find(b"-")
    while at >= 0:
        if data.startswith(b"0", at + 1):
            return True
        at = data.find(b"-", at + 1)
    return False


class _Head(msgspec.Struct, frozen=True):
    id: int
    op: Any = None


_head = msgspec.json.Decoder(_Head)


def order_id(raw: bytes | str) -> int | None:
    """The id of a message that places orders, without reading what it holds; None for every other one."""
    head = _read_head(raw)
    return head.id if head is not None and head.op in ("order", "orders") else None


def request_id(raw: bytes | str) -> int | None:
    """The id that a message asks to be answered under, whatever else is wrong with it; None where there is none to read."""
    head = _read_head(raw)
    return None if head is None else head.id


def _read_head(raw: bytes | str) -> _Head | None:
    try:
        return _head.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _invalid(text: str) -> Reject:
    """msgspec's sentence -> a Reject; the sentence names the place as "... - at `$.order.size`"."""
    message, _, place = text.partition(" - at `")
    named = re.search(r"field `([^`]*)`", message)
    path = place.rstrip("`").removeprefix("$").lstrip(".")
    field = ".".join(part for part in (path, named[1] if named else "") if part)[:100]
    code = RejectCode.MALFORMED
    if "unknown field" in message:
        code = RejectCode.UNKNOWN_FIELD
    elif (
        " matching regex" in message
        or _BOUND.match(message)
        or "out of range" in message
        or "Invalid" in message
        or " of length" in message
    ):
        code = RejectCode.OUT_OF_RANGE
    elif message.startswith("Expected"):
        code = RejectCode.WRONG_TYPE
    return Reject(code=code, message=f"body: {_PATTERN.sub(_in_words, message)[:300]}", field=field)


def _in_words(found: re.Match[str]) -> str:
    """`` `str` matching regex '...' `` -> what a person reads."""
    return f"text of the form: {_IN_WORDS.get(found[1], found[1])}"


def whole(value: Whole, bits: int, field: str) -> int:
    """An unsigned integer of at most `bits` bits from a JSON integer or decimal string. Raises Refusal."""
    number = value if type(value) is int else _integer(value, field)
    if number < 0 or number >> bits:
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
        raise refuse(
            RejectCode.WRONG_TYPE, f"{field}: neither an integer nor its canonical decimal string", field
        )
    return int(value)


def address(text: str) -> bytes:
    """A text that the schema has already checked -> 20 bytes."""
    return bytes.fromhex(text[2:])


def signature_of(request: Signed) -> Signature:
    """The request's signature. Raises Refusal, with BAD_SIGNATURE for an impossible v."""
    try:
        return parse_signature(_hex(request.signature, 65, "", "signature"))
    except SignatureRefused as error:
        raise refuse(RejectCode.BAD_SIGNATURE, str(error), "signature") from None


def order_of(fields: OrderFields, where: str = "order") -> Order:
    """JSON fields -> Order, every integer inside its EIP-712 width; not whether there is such a market. Raises Refusal."""
    size, expiry, display_size, builder = fields.size, fields.expiry, fields.display_size, fields.builder
    return Order(
        owner=_hex(fields.owner, 20, where, "owner"),
        sub_account=fields.sub_account,
        market=fields.market,
        side=_SIDES[fields.side],
        size=size if type(size) is int else whole(size, 62, where + ".size"),
        limit_price=fields.limit_price,
        max_fee_ppm=fields.max_fee_ppm,
        slot=fields.slot,
        sequence=fields.sequence,
        expiry=expiry if type(expiry) is int else whole(expiry, 32, where + ".expiry"),
        time_in_force=_TIMES_IN_FORCE[fields.time_in_force],
        post_only=fields.post_only,
        reduce_only=fields.reduce_only,
        amend=fields.amend,
        builder=NO_ADDRESS if builder == NO_ADDRESS_TEXT else _hex(builder, 20, where, "builder"),
        max_builder_fee_ppm=fields.max_builder_fee_ppm,
        trigger=_TRIGGERS[fields.trigger],
        trigger_price=fields.trigger_price,
        trailing_offset=fields.trailing_offset,
        display_size=display_size
        if type(display_size) is int
        else whole(display_size, 62, where + ".displaySize"),
        twap_interval=fields.twap_interval,
        bracket_link=fields.bracket_link,
    )


def symbol(text: str) -> str:
    """A market's symbol, or what might be one. Raises Refusal."""
    if not _SYMBOL.match(text):
        raise refuse(
            RejectCode.OUT_OF_RANGE, f"body: Expected text of the form: {IN_WORDS[SYMBOL]}", "market"
        )
    return text


def _hex(text: str, size: int, where: str, name: str) -> bytes:
    """0x and hex digits -> so many bytes. Raises Refusal."""
    try:
        raw = bytes.fromhex(text[2:])
    except ValueError:
        raw = b""
    # Both lengths, for white space between the digits would pass otherwise.
    if len(raw) != size or len(text) != 2 + 2 * size or text[:2] != "0x":
        message = f"body: Expected text of the form: 0x and {2 * size} hex digits"
        raise refuse(RejectCode.OUT_OF_RANGE, message, f"{where}.{name}" if where else name)
    return raw


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


def transfer_of(fields: TransferFields) -> Transfer:
    """JSON fields -> Transfer. Raises Refusal."""
    return Transfer(
        owner=address(fields.owner),
        sub_account=whole(fields.sub_account, 16, "transfer.subAccount"),
        to_sub_account=whole(fields.to_sub_account, 16, "transfer.toSubAccount"),
        amount=whole(fields.amount, 95, "transfer.amount"),
        action_sequence=whole(fields.action_sequence, 48, "transfer.actionSequence"),
        deadline=whole(fields.deadline, 32, "transfer.deadline"),
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
