"""The way to the contracts: deployment, manifest, transactions, confirmed events, typed reads, chain time."""

from evermark.chain.clock import ChainClock
from evermark.chain.deploy import DeployRefused, check_deployed, deploy
from evermark.chain.events import ChainEvent, ChainReorganised, EventReader
from evermark.chain.manifest import Manifest, ManifestRefused, Parameters, Roles, load_manifest
from evermark.chain.rpc import make_web3
from evermark.chain.transactions import (
    TransactionRefused,
    TransactionReverted,
    TransactionSender,
    TransactionTimeout,
)
from evermark.chain.vault import ExchangeContracts

__all__ = [
    "ChainClock",
    "ChainEvent",
    "ChainReorganised",
    "DeployRefused",
    "EventReader",
    "ExchangeContracts",
    "Manifest",
    "ManifestRefused",
    "Parameters",
    "Roles",
    "TransactionRefused",
    "TransactionReverted",
    "TransactionSender",
    "TransactionTimeout",
    "check_deployed",
    "deploy",
    "load_manifest",
    "make_web3",
]
