"""The keepers: bots anyone may run that report prices and funding rates and point at liquidatable accounts.

They speak to the exchange through its public API and to the chain, and never import the sequencer.
"""
