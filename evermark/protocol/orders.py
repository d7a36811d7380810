"""What traders sign, as frozen messages of plain integers. `signing.py` turns them into EIP-712 digests.

Addresses are 20 bytes; sizes are lots, prices ticks, amounts quote units, times unix seconds.
docs/orders.md says for each field what the vault enforces and what the sequencer only promises.
"""

import enum
from typing import Final

import msgspec

NO_ADDRESS = bytes(20)
MAX_FEE_LIMIT_PPM: Final = 2**16 - 1  # a signed maximum fee fits two bytes of a batch row
MAX_EXPIRY_S: Final = 2**32 - 1


class Side(enum.IntEnum):
    """Order side; positions carry their sign in the size instead."""

    BUY = 0
    SELL = 1

    @property
    def opposite(self) -> "Side":
        """The other side."""
        return Side(1 - self)

    @property
    def sign(self) -> int:
        """+1 for a buy, -1 for a sell."""
        return 1 - 2 * self.value


class TimeInForce(enum.IntEnum):
    """How long an order may wait. GTC rests until `expiry` too: every signature ends some day."""

    GTC = 0
    GTD = 1
    IOC = 2
    FOK = 3


class Trigger(enum.IntEnum):
    """When a waiting order wakes. Mark triggers are enforced by the vault, last-price ones only promised."""

    NONE = 0
    MARK_ABOVE = 1
    MARK_BELOW = 2
    LAST_ABOVE = 3
    LAST_BELOW = 4


SIDE_TEXT = ("buy", "sell")
TIME_IN_FORCE_TEXT = ("GTC", "GTD", "IOC", "FOK")
TRIGGER_TEXT = ("none", "mark above", "mark below", "last above", "last below")


class Order(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A signed order. (slot, sequence) is its nonce: slot 0 never rests, a slot >= 1 holds one live order."""

    owner: bytes
    sub_account: int
    market: str
    side: Side
    size: int
    limit_price: int
    max_fee_ppm: int
    slot: int
    sequence: int
    expiry: int
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    reduce_only: bool = False
    amend: bool = False
    builder: bytes = NO_ADDRESS
    max_builder_fee_ppm: int = 0
    trigger: Trigger = Trigger.NONE
    trigger_price: int = 0
    trailing_offset: int = 0  # ticks; 0: the trigger price is fixed
    display_size: int = 0  # lots shown of an iceberg; 0: all
    twap_interval: int = 0  # seconds between the slices of a TWAP; 0: none
    bracket_link: int = 0  # slot of the order that this one cancels when either fills; 0: none

    @property
    def is_plain(self) -> bool:
        """True when no optional field is set, so that a batch row needs no extension."""
        return (
            self.builder == NO_ADDRESS
            and self.max_builder_fee_ppm == 0
            and self.trigger is Trigger.NONE
            and self.trigger_price == 0
            and self.trailing_offset == 0
            and self.display_size == 0
            and self.twap_interval == 0
            and self.bracket_link == 0
        )


class Cancel(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Voids orders up to `sequence`: of one slot, or of the whole account with `all_slots`."""

    owner: bytes
    sub_account: int
    all_slots: bool
    slot: int
    sequence: int
    deadline: int


class Withdraw(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for `amount` quote units, paid to the owner; the operator's fee comes out of it, at most
    `max_fee`."""

    owner: bytes
    sub_account: int
    amount: int
    max_fee: int
    action_sequence: int
    deadline: int


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """Moves collateral between two sub-accounts of one owner."""

    owner: bytes
    sub_account: int
    to_sub_account: int
    amount: int
    action_sequence: int
    deadline: int


class ApproveAgent(msgspec.Struct, frozen=True, kw_only=True):
    """Lets `agent` trade for the account until `agent_expiry` (0 revokes), moving at most `transfer_cap`."""

    owner: bytes
    sub_account: int
    agent: bytes
    agent_expiry: int
    transfer_cap: int
    action_sequence: int
    deadline: int


class OrderBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One agent signature for many orders: the Merkle root over their struct hashes (see `merkle.py`)."""

    root: bytes


Action = Order | Cancel | Withdraw | Transfer | ApproveAgent | OrderBatch


class Signature(msgspec.Struct, frozen=True, gc=False):
    """A secp256k1 signature with v normalised to a parity bit."""

    r: int
    s: int
    parity: int  # 0 or 1

    def to_bytes(self) -> bytes:
        """65 bytes r || s || v, v in {27, 28}."""
        return self.r.to_bytes(32, "big") + self.s.to_bytes(32, "big") + bytes([27 + self.parity])
