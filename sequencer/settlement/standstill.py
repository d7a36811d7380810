"""What everybody sees and may do while the settlement line cannot go on: an alarm in log, metric and status.

The exchange goes on serving meanwhile. Trading is bounded by the engine's unsettled limits; where the chain is at a state
that no journal has, nothing that would be matched could ever settle, so only cancels are taken from the first moment on.
"""

import structlog

from evermark.protocol.reject import Reject, RejectCode
from sequencer import metrics
from sequencer.engine.commands import PlaceOrder, TransferRequest, TriggerLiquidation, WithdrawRequest
from sequencer.pipeline import Pipeline
from sequencer.settlement.errors import Diverged, Refused

HOLD = "settlement"
HELD = (PlaceOrder, TriggerLiquidation, WithdrawRequest, TransferRequest)

log = structlog.get_logger("settlement")


class Standstill:
    """The line's alarm."""

    def __init__(self, pipeline: Pipeline) -> None:
        """`pipeline` is held while engine and chain diverge."""
        self._pipeline = pipeline
        self.alarm = ""  # empty, or why the line stands still
        self.diverged = False  # the chain is at a state that no journal has

    def begin(self, batch_id: int, error: Refused) -> None:
        """The line cannot go on with this batch; said once for each reason."""
        metrics.SETTLE_ALARM.set(1)
        if self.alarm != str(error):
            log.error("SETTLEMENT STANDS STILL", batch=batch_id, reason=str(error))
        self.alarm = str(error)
        self._hold(isinstance(error, Diverged))

    def end(self) -> None:
        """The line goes on."""
        if self.alarm:
            log.warning("settlement goes on", was=self.alarm)
            metrics.SETTLE_ALARM.set(0)
        self.alarm = ""
        self._hold(False)

    def _hold(self, diverged: bool) -> None:
        if diverged and not self.diverged:
            message = "settlement: the chain is at a state that no journal has; only cancels are taken"
            self._pipeline.hold_only(HOLD, Reject(code=RejectCode.NOT_READY, message=message), HELD)
        elif self.diverged and not diverged:
            self._pipeline.release(HOLD)
        self.diverged = diverged
