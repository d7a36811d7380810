"""How an action of a keeper ended."""

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """`name` is the refusal's stable name (LATE: decided already), empty when there was none."""

    accepted: bool
    text: str
    name: str = ""
    reached: bool = True  # False: nobody answered, so nothing is known
