"""Deposits: the one act of a trader that happens on the chain first. Token approval, then the inbox."""

from eth_utils.address import to_checksum_address
from web3.exceptions import Web3Exception

from evermark.chain import (
    ExchangeContracts,
    Manifest,
    Parameters,
    Roles,
    TransactionReverted,
    TransactionSender,
    TransactionTimeout,
)
from evermark.chain.artifacts import load_artifact
from evermark.chain.manifest import CONTRACT_NAMES
from evermark.chain.rpc import UNREACHABLE, connect
from evermark.client.errors import ChainRefused
from evermark.client.models import ExchangeInfo
from evermark.client.units import from_quote_units


async def deposit_on_chain(
    rpc_url: str, info: ExchangeInfo, private_key: bytes, amount: int, sub_account: int
) -> int:
    """Approve where needed and deposit `amount` quote units; the inbox entry's id once the transaction is
    mined.

    Raises ChainRefused with the contract's or the node's reason.
    """
    try:
        async with connect(rpc_url) as w3:
            chain_id = await w3.eth.chain_id
            if chain_id != info.chain_id:
                raise ChainRefused(
                    f"chain: {rpc_url} is chain {chain_id}, the exchange is on {info.chain_id}"
                )
            contracts = ExchangeContracts(w3, _manifest(info))
            return await contracts.deposit(TransactionSender(w3, private_key), amount, sub_account)
    except (TransactionReverted, TransactionTimeout, Web3Exception, *UNREACHABLE) as error:
        raise ChainRefused(
            f"chain: deposit of {from_quote_units(amount).normalize():f} USDC: {error}"
        ) from error


def _manifest(info: ExchangeInfo) -> Manifest:
    """What the exchange says about itself, in the form that chain access wants; roles play no part here."""
    addresses = {"token": info.token, "oracle": info.oracle, "inbox": info.inbox, "vault": info.vault}
    return Manifest(
        chain_id=info.chain_id,
        genesis_block=0,
        addresses={name: to_checksum_address(address) for name, address in addresses.items()},
        roles=Roles(sequencer="", oracle_keepers=(), funding_keepers=()),
        parameters=Parameters(round_seconds=info.round_seconds, oracle_quorum=0, funding_quorum=0),
        markets=info.markets,
        abis={name: load_artifact(name).abi for name in CONTRACT_NAMES},
    )
