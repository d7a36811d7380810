"""Frames between the sequencer and its helper processes: a length, then so many bytes."""

import signal
from typing import BinaryIO

LENGTH_BYTES = 4  # in front of each frame, big-endian


def frame(body: bytes) -> bytes:
    """The body with its length in front."""
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def read_frame(stream: BinaryIO) -> bytes:
    """The body of the next frame; empty when the other side has closed its end."""
    return stream.read(int.from_bytes(stream.read(LENGTH_BYTES), "big"))


def outlive_signals() -> None:
    """A helper process ends when its input does, not with signals that reach both it and the sequencer."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
