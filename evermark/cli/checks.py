"""`evermark deploy` and `evermark verify`: contracts onto a chain, and an exchange checked from outside."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from evermark.cli import chain, options, output
from evermark.cli.errors import CliError
from evermark.cli.gateway import DEFAULT_RPC_URL
from evermark.cli.wallet import DEVNET_CHAIN_ID, WalletChoice, open_key


def deploy(
    sequencer: Annotated[str, typer.Option(help="Address of the sequencer.")],
    oracle_keeper: Annotated[list[str], typer.Option(help="Address; once for each keeper.")],
    funding_keeper: Annotated[list[str], typer.Option(help="Address; once for each keeper.")],
    out: Annotated[Path, typer.Option(help="Manifest to write, or to check.")] = Path("manifest.json"),
    oracle_quorum: Annotated[int, typer.Option(min=1, help="Odd number of reports a round needs.")] = 3,
    funding_quorum: Annotated[int, typer.Option(min=1, help="Odd number of reports an hour needs.")] = 3,
    round_seconds: Annotated[int, typer.Option(min=1, help="Seconds between two oracle rounds.")] = 3,
    token: Annotated[str, typer.Option(help="Collateral token; empty deploys a test token.")] = "",
    governor: Annotated[str, typer.Option(help="Who may propose changes; nobody when not given.")] = "",
    guardian: Annotated[str, typer.Option(help="Who may pause markets; nobody when not given.")] = "",
    uptime_feed: Annotated[str, typer.Option(help="An L2's AggregatorV3 feed of its outages.")] = "",
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Deploy token, oracle, inbox and vault; with an earlier manifest, check that they stand."""
    from evermark.chain import DeployRefused, Manifest, ManifestRefused, Parameters, Roles
    from evermark.chain import deploy as deploy_contracts
    from evermark.chain.deploy import NO_UPTIME_FEED

    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)
    url = rpc_url or DEFAULT_RPC_URL
    oracle_keepers, funding_keepers = tuple(oracle_keeper), tuple(funding_keeper)
    quorums = {"oracle_quorum": oracle_quorum, "funding_quorum": funding_quorum}

    async def work() -> Manifest:
        return await deploy_contracts(
            url,
            await _deployer_key(url, choice),
            Roles(
                sequencer=sequencer,
                oracle_keepers=oracle_keepers,
                funding_keepers=funding_keepers,
                governor=governor,
                guardian=guardian,
            ),
            out,
            parameters=Parameters(round_seconds=round_seconds, **quorums),
            token=token or None,
            uptime_feed=uptime_feed or NO_UPTIME_FEED,
        )

    try:
        manifest = asyncio.run(work())
    except (DeployRefused, ManifestRefused) as error:
        raise CliError(str(error)) from None
    output.print_fields({**manifest.addresses, "manifest": str(out)})


def verify(
    run: Annotated[Path | None, typer.Option(help="Run directory of `evermark up`.")] = None,
    journal: Annotated[str, typer.Option(help="The sequencer's journal.db, or postgresql://...")] = "",
    journal_url: Annotated[str, typer.Option(help="A published journal: http(s):// or file://.")] = "",
    cache: Annotated[Path | None, typer.Option(help="Where a download is kept, to go on with.")] = None,
    from_block: Annotated[int, typer.Option(min=0, help="Compare batches settled from here on.")] = 0,
    manifest: Annotated[Path | None, typer.Option(help="The deployment's manifest.")] = None,
    rpc_url: options.RpcUrl = "",
    as_json: options.AsJson = False,
) -> None:
    """Replay a journal from nothing and compare every batch and every balance with the chain."""
    from evermark.cli.audit import describe_disagreement, download, verify_run
    from evermark.cli.rundir import RunDirectory

    if run is not None:
        directory = RunDirectory(run, temporary=False)
        journal, manifest = str(directory.journal / "journal.db"), directory.manifest
    if not (journal or journal_url) or manifest is None:
        raise CliError("verify: give --run DIR, or --manifest FILE with --journal FILE or --journal-url URL")
    url = rpc_url or DEFAULT_RPC_URL
    asyncio.run(_check_chain(url, manifest))
    with output.progress() as progress:
        checkpoints = until_record = None
        if journal_url:
            kept = cache or Path(f"evermark-audit-{manifest.stem}")
            copy, until_record = download(journal_url, kept, progress)
            journal, checkpoints = str(copy), kept / "checkpoints"
        elif "://" not in journal and not Path(journal).is_file():
            raise CliError(f"verify: no journal {journal}")
        report = asyncio.run(
            verify_run(
                journal,
                manifest,
                url,
                from_block=from_block,
                until_record=until_record,
                checkpoints=checkpoints,
                progress=progress,
            )
        )
    if as_json:
        output.print_json(report)
    else:
        facts = {
            name: str(value)
            for name, value in report.items()
            if value != "" and not isinstance(value, list | dict)
        }
        output.print_fields(facts)
        for invariant, holds in report["invariants"].items():
            print(f"{'holds ' if holds else 'BROKEN'}  {invariant}")
    if not report["ok"]:
        raise CliError(describe_disagreement(report))


async def _check_chain(url: str, path: Path) -> None:
    """Refuses a chain that does not answer, and another one than the manifest's, before anything is downloaded."""
    from evermark.chain.manifest import ManifestRefused, load_manifest

    try:
        expected = load_manifest(path).chain_id
    except ManifestRefused as error:
        raise CliError(str(error)) from None
    found = int(await chain.call(url, "eth_chainId"), 16)
    if found != expected:
        raise CliError(
            f"verify: {path} is of chain {expected}, and {url} is chain {found}; name another with --rpc-url"
        )


async def _deployer_key(url: str, choice: WalletChoice) -> bytes:
    """The raw key, which transactions need; a development key on a devnet only."""
    if choice.dev >= 0 and int(await chain.call(url, "eth_chainId"), 16) != DEVNET_CHAIN_ID:
        raise CliError(f"--dev: the chain at {url} is no devnet; its development keys are public")
    return open_key(choice)
