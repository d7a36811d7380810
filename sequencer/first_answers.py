"""The question that every order asks: has it been answered before? From any thread or process, on a connection of its own."""

import sqlite3
from collections.abc import Sequence

ASKED_AT_ONCE = 256  # order hashes of one statement


def first_answers(reader: sqlite3.Connection, order_hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    """The stored first answers to those of these orders that are known."""
    answers: dict[bytes, bytes] = {}
    for at in range(0, len(order_hashes), ASKED_AT_ONCE):
        some = order_hashes[at : at + ASKED_AT_ONCE]
        marks = ",".join("?" * len(some))
        query = f"SELECT order_hash, first_answer FROM orders WHERE order_hash IN ({marks})"
        answers.update(reader.execute(query, some))
    return answers
