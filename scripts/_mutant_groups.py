"""What scripts/mutate plants errors in, group by group, the tests nearest to each, and how those are run."""

import os
import resource
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ["HYPOTHESIS_PROFILE"] = "mutants"
VAULT = "tests/contracts/vault/test_"
# When the nearest tests notice nothing: both models, and then everybody who attacks.
LAST = ("tests/agreement", "tests/invariants/test_invariants_hostile")
LEFT_OUT = "tests/agreement/test_wrong_rounding.py"  # plants errors of its own in place of the mutant's


def near(*names: str) -> list[str]:
    return [*(VAULT + name for name in names), *LAST]


# group -> its files, and its tests in the order in which they are tried
GROUPS: dict[str, tuple[list[str], list[str]]] = {
    "MarginVault": (
        [
            "MarginVault",
            *[
                "modules/tables",
                "modules/fills",
                "modules/orders",
                "modules/ledger",
                "modules/units",
                "modules/codec",
                "modules/eip712",
            ],
            *["modules/listing", "modules/closing", "modules/builder_fees"],
        ],
        near(
            *[
                "order_fills",
                "slots",
                "closing_check",
                "signatures",
                "settle",
                "deploy",
                "liquidation",
                "withdraw_and_pay",
                "inbox_and_funding",
                "fill_refusals",
                "reasons",
            ],
            *[
                "builder_fees",
                "market_modes",
                "clamped",
                "margin_ratio",
                "model",
                "model_closes",
                "model_cash",
            ],
        ),
    ),
    "Clerk": (
        [
            "Clerk",
            *[
                "modules/signed_actions",
                "modules/door",
                "modules/trigger_bits",
                "modules/outflow",
                "modules/row_layout",
            ],
            "modules/governance",
        ],
        near(
            *[
                "actions",
                "withdraw_and_pay",
                "inbox_and_funding",
                "transfers",
                "requests_in_batches",
                "triggers",
                "overdue",
                "forced_by_anybody",
                "outflow",
            ],
            *["write_off", "governor", "guardian", "outage", "order_batches", "model", "model_closes"],
        ),
    ),
    "Backstop": (
        ["Backstop", *["modules/liquidation", "modules/forced", "modules/lateness", "modules/running"]],
        near(
            *[
                "liquidation",
                "deleveraging",
                "closing_check",
                "forced_close",
                "late_batches",
                "forced_by_anybody",
                "forced_requests",
                "fill_refusals",
                "cash_settlement",
            ],
            *["margin_ratio", "outage", "model", "model_closes", "model_cash"],
        ),
    ),
    "Exit": (["Exit"], near("exit", "exit_prices", "guardian", "forced_close", "lying_reference")),
    "OrderVerifier": (
        ["OrderVerifier", "modules/order_hash"],
        near("order_batches", "signatures", "order_fills"),
    ),
    "Governor": (
        ["Governor", "modules/market_bounds", "modules/market_terms"],
        near(
            *["governor", "governor_markets", "guardian", "lying_reference"],
            *["governor_edges", "governor_bonds", "cash_settlement", "deploy"],
        ),
    ),
    "Lens": (["Lens"], near("lens", "deploy")),
    "Inbox": (
        ["Inbox"],
        [
            "tests/contracts/test_inbox",
            "tests/contracts/test_inbox_requests",
            *near(
                "requests_in_batches",
                "forced_by_anybody",
                "forced_close",
                "forced_requests",
                "governor_bonds",
                "exit",
            ),
        ],
    ),
    "PriceOracle": (
        ["PriceOracle", "modules/medians", "modules/oracle_roles", "modules/feeds"],
        [f"tests/contracts/test_oracle{part}" for part in ("", "_funding", "_jumps", "_governor", "_ending")]
        + near("cash_settlement", "outage"),
    ),
    "protocol": (
        [
            "margin",
            "liquidation",
            "funding",
            "units",
            "oracle",
            "orders",
            "markets",
            "merkle",
            "signing",
            "batch_encode",
            "batch_decode",
        ],
        ["tests/protocol"],
    ),
}
MEMORY_BYTES = 4 * 2**30
CPU_LIMIT_S = 600  # of one mutant: a busy machine must not end it
TIMEOUT_S = 3_600
PYTEST = ["-x", "-p", "tests.safety.plugin", "-p", "no:cacheprovider", "-p", "no:schemathesis"]


def files_of(group: str) -> list[str]:
    folder, suffix = ("evermark/protocol", ".py") if group == "protocol" else ("contracts", ".vy")
    names = [f"{folder}/{name}{suffix}" for name in GROUPS[group][0]]
    return [name for name in names if (ROOT / name).exists()]


def tests_of(group: str) -> list[str]:
    return [name if "::" in name or (ROOT / name).is_dir() else f"{name}.py" for name in GROUPS[group][1]]


def limit_resources() -> None:
    """This process and those that it starts each end after so much processor time, and get no more memory than this."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
