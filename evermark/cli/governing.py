"""What the commands of `evermark govern` share: wallet, call of the governor's contract, and how a proposal is shown."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from evermark.cli import output
from evermark.cli.chain import quiet_retries, reason
from evermark.cli.errors import CliError
from evermark.cli.gateway import DEFAULT_RPC_URL
from evermark.cli.units import format_time
from evermark.cli.wallet import DEVNET_CHAIN_ID, WalletChoice, open_key

if TYPE_CHECKING:  # web3 takes a second to load, and `--help` needs none of it
    from evermark.chain.governor import GovernorContract, Proposal
    from evermark.chain.transactions import TransactionSender
    from evermark.protocol.markets import Market

ManifestFile = Annotated[Path, typer.Option("--manifest", help="The deployment's manifest.")]
Result = TypeVar("Result")


def market_in(file: Path) -> "Market":
    """The one market of a TOML file."""
    from evermark.protocol.markets import load_market

    try:
        return load_market(file)
    except (ValueError, KeyError, TypeError) as error:
        raise CliError(f"{file}: {error}") from None


def wallet_choice(keystore: str, key_env: str, dev: int, password_file: str) -> WalletChoice:
    """The wallet that the options name."""
    return WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)


def tell(manifest: Path, rpc_url: str, proposal_id: int) -> None:
    """Print where a proposal stands and what it changes."""

    async def look(door: "GovernorContract", sender: "TransactionSender | None") -> dict[str, str]:
        proposal = await door.proposal(proposal_id)
        fields = {"proposal": str(proposal_id), "state": proposal.state.name.lower().replace("_", " ")}
        if not proposal.ready_at:
            return fields
        fields |= {
            "action": proposal.action.name.lower(),
            "from": format_time(proposal.ready_at),
            "until": format_time(proposal.deadline),
        }
        return fields | await _subject(door, proposal_id, proposal)

    output.print_fields(run(rpc_url, manifest, None, look))


async def _subject(door: "GovernorContract", proposal_id: int, proposal: "Proposal") -> dict[str, str]:
    """What a proposal changes, beside what is in force where it waits."""
    from evermark.chain.governor import Action, ProposalState
    from evermark.cli.proposals import new_market_rows, reference_rows, tuning_rows

    action, subject, detail = proposal.action, proposal.subject, proposal.detail
    waits = proposal.state in (ProposalState.PROPOSED, ProposalState.EXECUTED)
    if action is Action.TUNE:
        present = (await door.markets())[subject] if waits else None
        return tuning_rows(present, await door.tuned(proposal_id, proposal))
    if action is Action.LIST:
        return new_market_rows(await door.tuned(proposal_id, proposal))
    if action is Action.REFERENCE:
        return {"market": str(subject)} | reference_rows(
            await door.reference(subject) if waits else None, await door.proposed_reference(proposal_id)
        )
    if action is Action.QUORUMS:
        return {"oracle quorum": str(detail & 0xFF), "funding quorum": str(detail >> 8)}
    if action is Action.KEEPER:
        change = "register" if detail >> 8 else "remove"
        return {change: _address_text(subject), "role": ("oracle", "funding")[detail & 0xFF]}
    if action in (Action.DELIST, Action.SETTLE):
        price = {"price": f"{detail} ticks"} if action is Action.SETTLE else {}
        return {"market": str(subject)} | price
    return {action.name.lower(): _address_text(subject)}


def _address_text(word: int) -> str:
    from eth_utils.address import to_checksum_address

    return to_checksum_address(word.to_bytes(20, "big"))


def run(
    rpc_url: str,
    manifest: Path,
    choice: WalletChoice | None,
    work: Callable[[Any, Any], Awaitable[Result]],
) -> Result:
    from web3.exceptions import Web3Exception

    from evermark.chain import ManifestRefused, TransactionReverted, TransactionSender, load_manifest
    from evermark.chain.governor import GovernorContract
    from evermark.chain.rpc import UNREACHABLE, connect

    key = open_key(choice) if choice is not None else None

    async def act() -> Result:
        quiet_retries()
        async with connect(rpc_url or DEFAULT_RPC_URL) as w3:
            chain_id = await w3.eth.chain_id
            if choice is not None and choice.dev >= 0 and chain_id != DEVNET_CHAIN_ID:
                raise CliError(f"--dev: chain {chain_id} is no devnet; its development keys are public")
            sender = None if key is None else TransactionSender(w3, key)
            return await work(GovernorContract(w3, load_manifest(manifest)), sender)

    try:
        return asyncio.run(act())
    except TransactionReverted as error:
        raise CliError(error.reason) from None
    except ManifestRefused as error:
        raise CliError(str(error)) from None
    except UNREACHABLE:
        url = rpc_url or DEFAULT_RPC_URL
        raise CliError(f"no chain answers at {url}; name another with --rpc-url") from None
    except Web3Exception as error:
        raise CliError(f"govern: {reason(error)}") from None
