"""The configuration files of the parts that `evermark up` starts, written into the run directory."""

import json
from typing import Any

from evermark.cli.plan import UpPlan
from evermark.cli.rundir import RunDirectory

# Indices of the development accounts that the run uses itself; the others are for whoever plays with it.
DEPLOYER = 0
# A run seldom begins at a full hour; on a devnet half a minute of samples is enough for its first funding rate.
FUNDING_SHARE_PPM = 10_000
ACTOR_ACCOUNTS = {"maker": 16, "takers": 17, "leveraged": 18, "wallet": 19}


def write_config(run: RunDirectory, name: str, content: dict[str, Any]) -> str:
    """Write one part's configuration; its path, as an argument."""
    path = run.config(name)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return str(path)


def sequencer(plan: UpPlan, run: RunDirectory) -> str:
    """Gateway, journal and settlement."""
    return write_config(
        run,
        "sequencer",
        {
            "rpc_url": plan.rpc_url,
            "manifest": str(run.manifest),
            "directory": str(run.journal),
            "keystore": str(run.key("sequencer")),
            "password_file": str(run.password),
            "port": plan.gateway_port,
        },
    )


def keeper(plan: UpPlan, run: RunDirectory, number: int, report_ports: dict[int, int]) -> str:
    """An oracle and funding keeper and settler: one process, a key for each of its roles. Each shows its price reports to the
    others, at its port."""
    name = f"keeper-{number}"
    content = _keeper(
        plan, run, name, {role: f"{role}-{number}" for role in ("oracle", "funding", "settler")}
    )
    prices = {
        "kind": plan.prices,
        "seed": plan.seed,
        "tapes": plan.tapes,
        "synthetic": plan.synthetic,
    }
    rest = {
        "prices": prices,
        "state_dir": str(run.data(name)),
        "funding_min_share_ppm": FUNDING_SHARE_PPM,
        "reports_listen": f"127.0.0.1:{report_ports[number]}",
        "reports_urls": [
            f"http://127.0.0.1:{port}" for other, port in report_ports.items() if other != number
        ],
    }
    return write_config(run, name, content | rest)


def liquidator(plan: UpPlan, run: RunDirectory) -> str:
    """The liquidation keeper."""
    return write_config(run, "liquidator", _keeper(plan, run, "liquidator", {"liquidator": "liquidator"}))


def _keeper(plan: UpPlan, run: RunDirectory, name: str, roles: dict[str, str]) -> dict[str, Any]:
    keys = {
        role: {"keystore": str(run.key(key)), "password_file": str(run.password)}
        for role, key in roles.items()
    }
    return {
        "gateway_url": plan.gateway_url,
        "rpc_url": plan.rpc_url,
        "manifest": str(run.manifest),
        "name": name,
        "status_path": str(run.status(name)),
        "keys": keys,
    }


def actor(plan: UpPlan, run: RunDirectory, kind: str) -> str:
    """A trader with test money."""
    content: dict[str, Any] = {
        "url": plan.gateway_url,
        "rpc_url": plan.rpc_url,
        "manifest": str(run.manifest),
        "dev_account": ACTOR_ACCOUNTS[kind],
        "name": kind,
        "status_path": str(run.status(kind)),
        "seed": plan.seed,
    }
    if kind == "takers":
        content["tapes"] = plan.tapes
    return write_config(run, kind, content)
