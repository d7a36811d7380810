"""Deployment of an exchange: token, oracle, inbox, vault, and the manifest that names them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rlp
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address
from eth_utils.exceptions import ValidationError
from web3.exceptions import Web3Exception

from evermark.chain.artifacts import load_artifact
from evermark.chain.manifest import CONTRACT_NAMES, Manifest, Parameters, Roles, load_manifest
from evermark.chain.rpc import UNREACHABLE, Web3, connect
from evermark.chain.transactions import TransactionReverted, TransactionSender
from evermark.protocol.markets import Market, load_markets
from evermark.protocol.units import USDC

# Of the bonds that inbox entries post. Fixed, so that a bond can be quoted; what gas costs beyond it anybody may add.
BOND_GAS_PRICE_WEI = 10**9
# Nobody has these addresses: without a governor the exchange stays as it was deployed.
NO_GOVERNOR = "0x" + "00" * 19 + "01"
NO_GUARDIAN = "0x" + "00" * 19 + "02"
NO_UPTIME_FEED = "0x" + "00" * 20
DEFAULT_PARAMETERS = Parameters(round_seconds=3, oracle_quorum=3, funding_quorum=3)


class DeployRefused(RuntimeError):
    """One line that says what stands against this deployment."""


async def deploy(
    rpc_url: str,
    deployer_key: bytes,
    roles: Roles,
    out_path: Path | str,
    *,
    parameters: Parameters = DEFAULT_PARAMETERS,
    markets: Sequence[Market] | None = None,
    token: str | None = None,
    uptime_feed: str = NO_UPTIME_FEED,
) -> Manifest:
    """Deploy an exchange and write its manifest; do nothing when that manifest's contracts are on the chain.

    `token` None deploys the test token. `uptime_feed` tells of outages of the chain, where it has one. Raises DeployRefused.
    """
    listed = tuple(load_markets() if markets is None else markets)
    path = Path(out_path)
    try:
        async with connect(rpc_url) as w3:
            if path.exists():
                return await _existing(w3, path, roles, parameters, listed)
            sender = TransactionSender(w3, deployer_key)
            manifest = await _create(w3, sender, roles, parameters, listed, token, uptime_feed)
            await _check_code(w3, manifest)
    except (TransactionReverted, Web3Exception, ValidationError, *UNREACHABLE) as error:
        raise DeployRefused(f"deploy: {rpc_url}: {error!r}") from error
    manifest.save(path)
    return manifest


async def check_deployed(rpc_url: str, manifest_path: Path | str) -> Manifest:
    """The manifest, once its contracts are found on the chain. Raises DeployRefused or ManifestRefused."""
    manifest = load_manifest(manifest_path)
    try:
        async with connect(rpc_url) as w3:
            await _check_code(w3, manifest)
    except (Web3Exception, *UNREACHABLE) as error:
        raise DeployRefused(f"deploy: {rpc_url}: {error!r}") from error
    return manifest


def create_address(sender: str, nonce: int) -> str:
    """Address of the contract that `sender` creates with `nonce`."""
    return to_checksum_address(keccak(rlp.encode([bytes.fromhex(sender[2:]), nonce]))[12:])


def market_config(market: Market) -> tuple[Any, ...]:
    """A market as the vault's constructor takes it (IMarginVault.MarketConfig)."""
    return (
        market.symbol,
        market.lot_tick_value,
        market.price_band_ppm,
        market.liquidation_fee_ppm,
        market.max_price_age_s,
        market.open_interest_cap_lots,
        market.fund_position_cap_lots,
        [(tier.lower_notional // USDC, tier.initial_fraction_ppm) for tier in market.tiers],
    )


async def _existing(
    w3: Web3, path: Path, roles: Roles, parameters: Parameters, markets: tuple[Market, ...]
) -> Manifest:
    """An earlier deployment, when it is the one asked for."""
    manifest = load_manifest(path)
    await _check_code(w3, manifest)
    kept = (manifest.roles.sequencer, manifest.roles.oracle_keepers, manifest.roles.funding_keepers)
    asked = (roles.sequencer, roles.oracle_keepers, roles.funding_keepers)
    differing = [
        name
        for name, same in {
            "roles": _lower(kept) == _lower(asked),
            "parameters": manifest.parameters == parameters,
            "markets": manifest.markets == markets,
        }.items()
        if not same
    ]
    if differing:
        raise DeployRefused(f"deploy: {path} is a deployment with other {' and '.join(differing)}")
    return manifest


async def _create(
    w3: Web3,
    sender: TransactionSender,
    roles: Roles,
    parameters: Parameters,
    markets: tuple[Market, ...],
    token: str | None,
    uptime_feed: str,
) -> Manifest:
    genesis_block = await w3.eth.block_number
    if token is None:
        token = await _create_one(sender, "token")
    # Oracle, inbox and governor name each other, as do exit, inbox and vault: addresses follow from the deployer's nonces.
    nonce = await w3.eth.get_transaction_count(sender.address, "latest")
    vault, governor = (create_address(sender.address, nonce + ahead) for ahead in (8, 9))
    oracle = await _create_one(
        sender,
        "oracle",
        parameters.round_seconds,
        parameters.oracle_quorum,
        [market.jump_ppm_per_s for market in markets],
        list(roles.oracle_keepers),
        parameters.funding_quorum,
        list(roles.funding_keepers),
        roles.sequencer,
        governor,
        to_checksum_address(uptime_feed),
    )
    cold = ("clerk", "backstop", "reasons", "verifier", "lens")
    helpers = {name: await _create_one(sender, name) for name in cold}
    helpers["exit"] = await _create_one(sender, "exit", vault)
    inbox = await _create_one(sender, "inbox", token, vault, helpers["exit"], governor, BOND_GAS_PRICE_WEI)
    configs = [market_config(market) for market in markets]
    found = await _create_one(
        sender, "vault", token, oracle, inbox, *helpers.values(), roles.sequencer, configs
    )
    governing = (roles.governor or NO_GOVERNOR, roles.guardian or NO_GUARDIAN)
    founds = (found, await _create_one(sender, "governor", vault, inbox, oracle, *governing))
    if founds != (vault, governor):
        raise DeployRefused(
            f"deploy: vault and governor are at {founds}, but expected at {(vault, governor)}"
        )
    return Manifest(
        chain_id=await w3.eth.chain_id,
        genesis_block=genesis_block,
        addresses={
            "token": to_checksum_address(token),
            "oracle": oracle,
            **helpers,
            "inbox": inbox,
            "vault": vault,
            "governor": governor,
        },
        roles=Roles(
            sequencer=to_checksum_address(roles.sequencer),
            oracle_keepers=tuple(map(to_checksum_address, roles.oracle_keepers)),
            funding_keepers=tuple(map(to_checksum_address, roles.funding_keepers)),
            deployer=sender.address,
            governor=to_checksum_address(governing[0]),
            guardian=to_checksum_address(governing[1]),
        ),
        parameters=parameters,
        markets=markets,
        abis={name: load_artifact(name).abi for name in CONTRACT_NAMES},
    )


async def _create_one(sender: TransactionSender, name: str, *arguments: Any) -> str:
    try:
        receipt = await sender.send(None, load_artifact(name).creation_code(*arguments))
    except TransactionReverted as error:
        raise DeployRefused(f"deploy: {name}: {error.reason}") from error
    address = receipt["contractAddress"]
    if address is None:
        raise DeployRefused(f"deploy: {name}: the receipt names no contract")
    return to_checksum_address(address)


async def _check_code(w3: Web3, manifest: Manifest) -> None:
    """Every contract on the chain is what this version compiled; a token may be anybody's."""
    chain_id = await w3.eth.chain_id
    if chain_id != manifest.chain_id:
        raise DeployRefused(f"deploy: the manifest is of chain {manifest.chain_id}, the node of {chain_id}")
    for name in CONTRACT_NAMES:
        code = bytes(await w3.eth.get_code(to_checksum_address(manifest.addresses[name])))
        if not code:
            raise DeployRefused(f"deploy: no {name} at {manifest.addresses[name]} on this chain")
        if name != "token" and not load_artifact(name).is_runtime(code):
            raise DeployRefused(f"deploy: the {name} at {manifest.addresses[name]} is not this version's")


def _lower(addresses: tuple[str, tuple[str, ...], tuple[str, ...]]) -> tuple[Any, ...]:
    sequencer, oracle_keepers, funding_keepers = addresses
    return sequencer.lower(), [a.lower() for a in oracle_keepers], [a.lower() for a in funding_keepers]
