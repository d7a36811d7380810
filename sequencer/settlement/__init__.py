"""Settlement: sealed batches go to the vault in order, each exactly once, and come back as BatchConfirmed
commands.

`backlog` is what waits, `chain` the contracts, `line` the work, `claims` the payouts.
"""
