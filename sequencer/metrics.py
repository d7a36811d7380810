"""Prometheus metrics of the sequencer's own parts; the gateway serves them with its own."""

from prometheus_client import Counter, Gauge, Histogram

COMMANDS = Counter("evermark_commands_total", "Commands journaled and applied", ["kind"])
OVERLOADED = Counter("evermark_overloaded_total", "Commands refused because the queue was full")
QUEUED = Gauge("evermark_pipeline_queued", "Commands waiting for the journal")
COMMIT_SECONDS = Histogram(
    "evermark_journal_commit_seconds",
    "One group commit, fsync included",
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0),
)
COMMIT_RECORDS = Histogram(
    "evermark_journal_commit_records",
    "Records in one group commit",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
JOURNAL_HEAD = Gauge("evermark_journal_sequence", "Newest durable record")
SNAPSHOT_SEQUENCE = Gauge("evermark_snapshot_sequence", "Journal record of the newest snapshot")
SNAPSHOT_FAILURES = Counter("evermark_snapshot_failures_total", "Snapshots that could not be written")
STORAGE_FREE = Gauge("evermark_storage_free_bytes", "Room on the journal's disk")
RECONCILIATION_ALARM = Gauge(
    "evermark_reconciliation_alarm", "1 while engine and vault differ and withdrawals are held"
)
ENTRIES_READ = Gauge("evermark_inbox_entries", "Inbox entries taken from the chain")
BATCHES_SEALED = Gauge("evermark_batches_sealed", "Newest sealed settlement batch")
BATCHES_SETTLED = Gauge("evermark_batches_settled", "Newest batch confirmed on the chain")
SETTLE_SECONDS = Histogram(
    "evermark_settle_seconds",
    "Wall time from picking a batch to its receipt",
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
SETTLE_GAS = Counter("evermark_settle_gas_total", "Gas used by settle transactions")
SETTLE_RETRIES = Counter("evermark_settle_retries_total", "Attempts that failed for a temporary reason")
SETTLE_ALARM = Gauge(
    "evermark_settle_alarm", "1 while the settlement line stands still for a permanent reason"
)
REVERSALS = Counter("evermark_reversals_total", "Reversals applied, those of a replay included")
CLAIMS_PAID = Counter("evermark_claims_paid_total", "Claims paid out")
CLAIMS_REFUSED = Counter("evermark_claims_refused_total", "Payouts that the token refused")
ROUNDS_COLLECTED = Counter("evermark_rounds_collected_total", "Oracle rounds that reached their quorum")
