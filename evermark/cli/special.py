"""`evermark order` with --display, --twap or --builder: limit orders that rest in parts, go in slices, or pay a builder."""

import re
from typing import Any

import msgspec

from evermark.cli.errors import CliError
from evermark.cli.units import parse_size
from evermark.protocol.markets import Market

ADDRESS = re.compile("0x[0-9a-fA-F]{40}")


class Special(msgspec.Struct, frozen=True, kw_only=True):
    """What the person typed; empty or 0 for what was not given."""

    display: str
    twap_s: int
    interval_s: int
    builder: str
    builder_fee_ppm: int

    def options(self, market: Market) -> dict[str, Any]:
        """Options of `place_limit`."""
        found: dict[str, Any] = {}
        if self.display:
            found["display_size_lots"] = parse_size(self.display, market)
        if self.twap_s:
            found |= {"time_in_force": "IOC", "expires_in_s": self.twap_s, "twap_interval_s": self.interval_s}
        if self.builder:
            found |= {"builder": bytes.fromhex(self.builder[2:]), "builder_fee_ppm": self.builder_fee_ppm}
        return found


def read(display: str, twap: str, builder: str, plain: bool) -> Special:
    """What was typed. Raises CliError for options that exclude each other, and for what does not read."""
    if (display or twap or builder) and not plain:
        raise CliError("order: --display, --twap and --builder go with --price")
    if display and twap:
        raise CliError("order: an iceberg rests and a TWAP does not; give either --display or --twap")
    seconds, _, interval = twap.partition("/")
    address, _, rate = builder.partition(":")
    if twap and not (seconds.isdecimal() and (interval or "30").isdecimal()):
        raise CliError(f"order: --twap is SECONDS or SECONDS/INTERVAL, not {twap!r}")
    if builder and not (ADDRESS.fullmatch(address) and (rate or "0").isdecimal()):
        raise CliError(f"order: --builder is ADDRESS or ADDRESS:PPM, not {builder!r}")
    return Special(
        display=display,
        twap_s=int(seconds or 0),
        interval_s=int(interval or 30),
        builder=address,
        builder_fee_ppm=int(rate or 0),
    )
