"""Settlement: sealed batches go to the vault in order, each exactly once, and come back as BatchConfirmed
commands.
"""

from sequencer.settlement.backlog import Backlog, SealedBatch, rounds_to_post
from sequencer.settlement.chain import ExchangeChain, Refused, Unreachable
from sequencer.settlement.claims import ClaimPayer
from sequencer.settlement.line import SettlementLine, SettlementStatus

__all__ = [
    "Backlog",
    "ClaimPayer",
    "ExchangeChain",
    "Refused",
    "SealedBatch",
    "SettlementLine",
    "SettlementStatus",
    "Unreachable",
    "rounds_to_post",
]
