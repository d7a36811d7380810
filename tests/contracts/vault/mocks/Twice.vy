# pragma version 0.4.3
# A sequencer that settles two batches in one transaction.

VAULT: immutable(address)


@deploy
def __init__(vault: address):
    VAULT = vault


@external
def settle(first: Bytes[4096], second: Bytes[4096]):
    raw_call(VAULT, first)
    raw_call(VAULT, second)
