"""The hot standby: follows the replicated journal, applies everything that the leader made durable, and takes over by
itself when the leader has been silent for too long.

Silence is counted in looks that were answered, so a database that is away makes nobody a leader. A standby that is
wrong about a leader's death does no harm: it raises the epoch first, and the database refuses the old one from
then on. What follows is the order of a fail-over: fence, apply the rest of the journal, check the chain, open with
cancels only, wait for fresh prices before anything is liquidated, and hold withdrawals for a while.
"""

import asyncio
import time

import structlog

from sequencer.core import Core
from sequencer.journal.postgres import PostgresJournal

LOOK_S = 0.25

log = structlog.get_logger("standby")


async def wait_for_turn(core: Core, journal: PostgresJournal, stop: asyncio.Event, silence_s: float) -> bool:
    """Follow until the leader falls silent, then own the journal. False when stopped before.

    `journal` is a connection of the standby's own. Raises JournalRefused when the database is away for too long.
    """
    pulse, silent, since = None, 0, time.monotonic()
    while not stop.is_set():
        await core.follow()
        seen = await asyncio.to_thread(journal.pulse)
        silent = silent + 1 if seen == pulse else 0
        pulse = seen
        if silent * LOOK_S >= silence_s:
            began = time.monotonic()
            log.warning("THE LEADER IS SILENT: taking over", epoch=seen.epoch, sequence=core.state.sequence)
            await core.take_over()
            log.warning(
                "taken over",
                epoch=core.writer.epoch,
                sequence=core.state.sequence,
                followed_s=round(began - since, 1),
                seconds=round(time.monotonic() - began, 3),
            )
            return True
        try:
            await asyncio.wait_for(stop.wait(), LOOK_S)
        except TimeoutError:
            pass  # time to look again
    return False
