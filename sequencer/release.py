"""Letting a halted account go: a command of the operator's, journaled like any other.

An account is halted where the vault refuses what the engine did for it (`settlement/way_out.py`). That is a bug of one of them,
so nothing but a person who has understood it ends it.
"""

import structlog

from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.commands import HaltAccount
from sequencer.engine.events import CommandRejected
from sequencer.pipeline import Pipeline, PipelineStopped

log = structlog.get_logger("sequencer")


async def release_account(pipeline: Pipeline, account: int, reason: str) -> Reject | None:
    """None once it is durable that the account may trade again; else why not."""
    if account not in pipeline.state.halted:
        details: dict[str, int | str] = {"account": account}
        return Reject(code=RejectCode.UNKNOWN_ACCOUNT, message="no halted account", details=details)
    log.warning("AN ACCOUNT IS LET GO", account=account, reason=reason)
    try:
        events = await pipeline.submit(HaltAccount(account=account, halted=False, reason=reason))
    except PipelineStopped as error:
        return Reject(code=RejectCode.NOT_READY, message=f"nobody knows, ask again: {error}")
    return next((event.reject for event in events if isinstance(event, CommandRejected)), None)
