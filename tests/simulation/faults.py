"""What goes wrong on the simulated chain, and how often."""

from dataclasses import dataclass


@dataclass
class Faults:
    """Chances per call or block; `until_s` ends them all."""

    until_s: float
    unreachable: float = 0.03
    lost_answer: float = 0.05
    stale: float = 0.05
    reorg: float = 0.03
    dropped: float = 0.1  # of a transaction in a reorganised block
    stuck: float = 0.0  # of one of the sequencer's transactions, and with it of those behind it
    other_funding: float = 0.8  # of an hour: that a stranger posts other reports
    shown: float = 0.7  # of those: that the transaction shows them; else the sequencer has them too
    poisoned: frozenset[int] = frozenset()  # accounts of which the vault takes no order
