"""Settlement: sealed batches go to the vault in order, each exactly once, and come back as BatchConfirmed
commands.

`backlog` is what waits, `chain` the contracts, `line` the work, `claims` the payouts. Where the line cannot go on, `way_out`
decides, `bisection` finds who is to blame, and `reversal` says what is journaled. `reconciliation` and `witness` compare.
"""
