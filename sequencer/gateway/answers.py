"""What a request is answered with, and how the pipeline's outcome becomes that."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import AnyCommand
from sequencer.engine.events import Event
from sequencer.gateway.refusal import ENGINE_STATUS, Refusal, refuse
from sequencer.gateway.services import Services
from sequencer.pipeline import PipelineStopped

ERROR_START = b'{"error"'

Outcome = TypeVar("Outcome")


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A JSON body and the HTTP status that it travels under."""

    body: bytes
    http_status: int = 200

    @classmethod
    def of(cls, content: Any) -> "Answer":
        """A successful answer."""
        return cls(msgspec.json.encode(content))

    @classmethod
    def refused(cls, refusal: Refusal) -> "Answer":
        """The answer that a refusal is."""
        return cls(msgspec.json.encode(refusal.to_json()), refusal.http_status)

    @classmethod
    def stored(cls, first: bytes) -> "Answer":
        """The first answer to an order, as the history keeps it."""
        return cls(first, ENGINE_STATUS if first.startswith(ERROR_START) else 200)


# Takes the answer, or what is raised in its place; raises nothing.
Reply = Callable[[Answer | BaseException], None]


async def submit(services: Services, command: AnyCommand) -> list[Event]:
    """The command's events once it is durable and applied. Raises Refusal when the pipeline ends before."""
    return await outcome(services.submit(command))


async def outcome(submitted: Awaitable[Outcome]) -> Outcome:
    """What the pipeline gives. Raises Refusal when it ends before."""
    try:
        return await submitted
    except PipelineStopped:
        raise _unknown() from None


def events_of(placed: "asyncio.Future[list[Event]]") -> list[Event]:
    """The same of a submission that is done."""
    try:
        return placed.result()
    except (PipelineStopped, asyncio.CancelledError):
        raise _unknown() from None


def _unknown() -> Refusal:
    message = "the sequencer is stopping; the journal knows the outcome"
    return refuse(RejectCode.NOT_READY, message, outcome="unknown", retry_after_ms=1_000)


def unknown_market(symbol: str) -> Refusal:
    """There is no such market."""
    return refuse(RejectCode.UNKNOWN_MARKET, "there is no such market", "market", market=symbol)
