"""Numbers from outside: text or integers to exact decimals, anything else refused."""

import re
from decimal import Decimal
from typing import Any

_PLAIN = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,30})?(?:[eE][-+]?[0-9]{1,2})?", re.ASCII)


def positive_decimal(value: Any) -> Decimal | None:
    """A positive number written plainly; None for everything else (floats included, they are not exact)."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63:
        return Decimal(value)
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        return None
    number = Decimal(value)
    return number if number > 0 else None
