"""What a request is answered with, and how the pipeline's outcome becomes that."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import AnyCommand
from sequencer.engine.events import Event
from sequencer.gateway.refusal import ENGINE_STATUS, Refusal, refuse
from sequencer.gateway.services import Services
from sequencer.history.records import REFUSAL_START
from sequencer.pipeline import PipelineStopped, resolve


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
        return cls(first, ENGINE_STATUS if first.startswith(REFUSAL_START) else 200)


# Takes the answer, or what is raised in its place; raises nothing.
Reply = Callable[[Answer | BaseException], None]


async def submit(services: Services, command: AnyCommand) -> list[Event]:
    """The command's events once it is durable and applied. Raises Refusal when the pipeline ends before."""
    done: asyncio.Future[list[Event]] = asyncio.get_running_loop().create_future()
    services.submit(command, partial(resolve, done))
    try:
        return await done
    except PipelineStopped:
        raise unknown() from None


def unknown() -> Refusal:
    """The pipeline ended before it told."""
    message = "the sequencer is stopping; the journal knows the outcome"
    return refuse(RejectCode.NOT_READY, message, outcome="unknown", retry_after_ms=1_000)


def unknown_market(symbol: str) -> Refusal:
    """There is no such market."""
    return refuse(RejectCode.UNKNOWN_MARKET, "there is no such market", "market", market=symbol)
