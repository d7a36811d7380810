"""The ways in which the chain disappoints."""


class Unreachable(RuntimeError):
    """Nobody knows the outcome: the node is away, slow or contradicts itself. Ask again."""


class Refused(RuntimeError):
    """A contract said no, with its reason. Asking again changes nothing unless something else changes."""


class Ended(RuntimeError):
    """The exchange went on without this sequencer, for good; one line that says how and what to do. Fatal: trading on
    could never settle."""


FROZEN_BATCH_ID = 2**48 - 1  # the vault's last batch id once it is frozen


def frozen() -> Ended:
    """Somebody froze the exchange."""
    return Ended(
        "chain: the exchange is frozen: nothing settles any more, and users leave through Exit (docs/exit.md). "
        "Do not start the sequencer again"
    )


class Diverged(Refused):
    """The chain is at a state that no journal has; it goes on only where a reorganisation takes that back."""


def slipped_in(batch_id: int) -> Diverged:
    """A reorganisation put somebody else's batch below ones of this journal, which were meant to follow its own."""
    return Diverged(
        f"chain: batch {batch_id} is somebody else's, and batches of this journal settled on top of it: the chain is at a state "
        "that no journal has. Only cancels are taken. Look at both with `evermark verify` (docs/operations.md, Alarms)"
    )


def unknown_round(number: int) -> Refused:
    """A round is to be posted whose reports are not known any more: no account's fault, and a batch on it misses its window."""
    return Refused(f"oracle: round {number} is not among those that the journal keeps reports of")
