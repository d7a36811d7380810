"""The two ways in which the chain disappoints."""


class Unreachable(RuntimeError):
    """Nobody knows the outcome: the node is away, slow or contradicts itself. Ask again."""


class Refused(RuntimeError):
    """A contract said no, with its reason. Asking again changes nothing unless something else changes."""
