"""What a signature check asks and answers, wherever it runs: in a thread of the gateway, or in a process of its own.

`python -m sequencer.gateway.checking HISTORY` is such a process: questions come on the socket that is its standard input, many in
one frame, and answers leave there. It knows no state of the exchange, only which orders the history has.
"""

import socket
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from evermark.protocol.merkle import Path as MerklePath
from evermark.protocol.merkle import merkle_paths
from evermark.protocol.orders import Order, OrderBatch
from evermark.protocol.signing import (
    SignatureRefused,
    digest,
    digest_of,
    parse_signature,
    recover,
    struct_hash,
)
from sequencer.answered import answered
from sequencer.frames import frame, outlive_signals, read_frame

Lookup = Callable[[Sequence[bytes]], set[bytes]]


class Question(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who signed an order, the orders of a batch, or another message, of which the struct hash is enough."""

    separator: bytes  # of the domain
    signature: bytes  # r || s || v
    orders: tuple[Order, ...] = ()
    is_batch: bool = False
    hashed: bytes = b""


class Recovered(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Who signed: `signer` is None when no key recovers. `known`: the history has the order."""

    digest: bytes
    struct_hash: bytes
    signer: bytes | None
    known: bool


class RecoveredOrders(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Who signed an order batch, and for each of its orders struct hash, path to the root and whether the history has it."""

    digest: bytes
    signer: bytes | None
    struct_hashes: list[bytes]
    paths: list[MerklePath]
    known: list[bool]


Outcome = Recovered | RecoveredOrders

_encoder = msgspec.msgpack.Encoder()
_questions = msgspec.msgpack.Decoder(list[Question])
_outcomes = msgspec.msgpack.Decoder(list[Outcome])


def check(questions: Sequence[Question], lookup: Lookup) -> list[Outcome]:
    """The answers, in order. `lookup` finds which orders the history has."""
    hashes = [[struct_hash(order) for order in question.orders] for question in questions]
    known = lookup([each for hashed in hashes for each in hashed])
    return [_outcome(question, hashed, known) for question, hashed in zip(questions, hashes, strict=True)]


def _outcome(question: Question, hashes: list[bytes], known: set[bytes]) -> Outcome:
    if not question.is_batch:
        hashed = hashes[0] if hashes else question.hashed
        signed = digest_of(question.separator, hashed)
        return Recovered(signed, hashed, _signer(signed, question.signature), hashed in known)
    root, paths = merkle_paths(hashes)
    signed = digest(question.separator, OrderBatch(root=root))
    signer = _signer(signed, question.signature)
    return RecoveredOrders(signed, signer, hashes, paths, [hashed in known for hashed in hashes])


def _signer(signed: bytes, signature: bytes) -> bytes | None:
    try:
        return recover(signed, parse_signature(signature))
    except SignatureRefused:
        return None


# --- the process


def encode_questions(questions: Sequence[Question]) -> bytes:
    """A frame."""
    return frame(_encoder.encode(questions))


def decode_outcomes(body: bytes) -> list[Outcome]:
    """What a frame of the process holds."""
    return _outcomes.decode(body)


def serve(questions: BinaryIO, outcomes: BinaryIO, lookup: Lookup) -> None:
    """Answer until the gateway closes its end."""
    while asked := read_frame(questions):
        outcomes.write(frame(_encoder.encode(check(_questions.decode(asked), lookup))))
        outcomes.flush()


def main() -> None:
    """The process."""
    outlive_signals()
    reader = sqlite3.connect(f"file:{Path(sys.argv[1])}?mode=ro", uri=True)
    with socket.socket(fileno=0) as both:
        serve(both.makefile("rb"), both.makefile("wb"), lambda hashes: answered(reader, hashes))


if __name__ == "__main__":
    main()
