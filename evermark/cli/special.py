"""`evermark order` with --display, --twap or --builder: limit orders that rest in parts, go in slices, or pay a builder."""

from typing import Any

import msgspec

from evermark.cli.errors import CliError
from evermark.cli.units import parse_size
from evermark.protocol.markets import Market


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


def check(display: str, twap_s: int, builder: str, price: str, waits: bool) -> None:
    """Raises CliError for options that exclude each other, and for what is no address."""
    if (display or twap_s or builder) and (not price or waits):
        raise CliError("order: --display, --twap and --builder go with --price")
    if display and twap_s:
        raise CliError("order: an iceberg rests and a TWAP does not; give either --display or --twap")
    if builder:
        try:
            raw = bytes.fromhex(builder.removeprefix("0x"))
        except ValueError:
            raw = b""
        if len(raw) != 20 or not builder.startswith("0x"):
            raise CliError(f"order: --builder is a 0x-address, not {builder!r}")
