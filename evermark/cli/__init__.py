"""The `evermark` command: everything that a person or a script starts by hand.

The only package that composes sequencer, keepers, devnet and client; nothing imports it.
"""
