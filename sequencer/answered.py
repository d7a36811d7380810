"""The question that every order asks: has it been answered before? From any thread or process, on a connection of its own."""

import sqlite3
from collections.abc import Sequence

ASKED_AT_ONCE = 256  # order hashes of one statement


def answered(reader: sqlite3.Connection, order_hashes: Sequence[bytes]) -> set[bytes]:
    """Those of these orders that the history has."""
    known: set[bytes] = set()
    for at in range(0, len(order_hashes), ASKED_AT_ONCE):
        some = order_hashes[at : at + ASKED_AT_ONCE]
        marks = ",".join("?" * len(some))
        rows = reader.execute(f"SELECT order_hash FROM orders WHERE order_hash IN ({marks})", some)
        known.update(row[0] for row in rows)
    return known
