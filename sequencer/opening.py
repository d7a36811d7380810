"""The first phase after a start or a take-over: what may not happen before the exchange has caught up with the world.

Nothing is liquidated before prices are newer than the start, because those from before it say nothing about now; the
gateway takes nothing but cancels until then. After a take-over, or when the exchange was down for longer than five minutes,
withdrawals and transfers wait for a while longer, so that a fault that went unnoticed can be stopped before money leaves.
"""

from collections.abc import Callable

from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.commands import TransferRequest, TriggerLiquidation, WithdrawRequest
from sequencer.engine.events import RoundApplied
from sequencer.pipeline import Pipeline
from sequencer.replay import Applied

WITHDRAWALS_HELD_S = 300  # chain seconds after a take-over or a long stop
LONG_STOP_S = 300  # chain seconds without a command
PRICES, WITHDRAWALS = "prices", "withdrawals"


class Opening:
    """Holds the pipeline's liquidations and withdrawals, and lets them go when their time has come."""

    def __init__(self, pipeline: Pipeline, now_s: Callable[[], int], *, taken_over: bool) -> None:
        """To be made before the pipeline runs."""
        self._pipeline = pipeline
        self._now_s = now_s
        self._began_s = now_s()
        self.has_prices = False
        pipeline.hold_only(
            PRICES,
            Reject(code=RejectCode.NOT_READY, message="no prices since the start yet"),
            (TriggerLiquidation,),
        )
        was_at_s = pipeline.state.stamp_ms // 1000
        if taken_over or (was_at_s and self._began_s > was_at_s + LONG_STOP_S):
            message = f"withdrawals are held for {WITHDRAWALS_HELD_S} s after a fail-over or a long stop"
            refusal = Reject(code=RejectCode.NOT_READY, message=message)
            pipeline.hold_only(WITHDRAWALS, refusal, (WithdrawRequest, TransferRequest))
        pipeline.subscribe(self.observe)

    def observe(self, applied: Applied) -> None:
        """Subscriber of the pipeline."""
        if not self.has_prices and any(isinstance(event, RoundApplied) for event in applied.events):
            self.has_prices = True
            self._pipeline.release(PRICES)
        if self._now_s() >= self._began_s + WITHDRAWALS_HELD_S:
            self._pipeline.release(WITHDRAWALS)
