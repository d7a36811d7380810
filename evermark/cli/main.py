"""The `evermark` command: `evermark --help` lists what there is."""

from evermark.cli.children import watch_supervisor

watch_supervisor()  # first of all: a child of `evermark up` must not outlive it, not even while it loads

import sys  # noqa: E402

import typer  # noqa: E402

from evermark.cli import (  # noqa: E402
    account,
    agent,
    checks,
    exit,
    govern,
    journal,
    money,
    output,
    queue,
    release,
    services,
    status,
    trade,
    up,
)
from evermark.cli.errors import CliError  # noqa: E402

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Evermark: a perpetual-futures exchange, matched off the chain and settled on it.",
)
RUNNING, TRADING, PARTS = "Run an exchange", "Trade", "Single parts"
app.command(rich_help_panel=RUNNING)(up.up)
app.command(rich_help_panel=RUNNING)(status.status)
app.command(rich_help_panel=RUNNING)(checks.verify)
app.add_typer(account.app, name="account", rich_help_panel=TRADING)
app.command(rich_help_panel=TRADING)(trade.deposit)
app.command(rich_help_panel=TRADING)(trade.order)
app.command(rich_help_panel=TRADING)(trade.cancel)
app.command(rich_help_panel=TRADING)(trade.positions)
app.command(rich_help_panel=TRADING)(trade.withdraw)
app.command(rich_help_panel=TRADING)(money.transfer)
app.command(rich_help_panel=TRADING)(queue.queue)
app.add_typer(agent.app, name="agent", rich_help_panel=TRADING)
app.add_typer(exit.app, name="exit", rich_help_panel=TRADING)
app.command(rich_help_panel=PARTS)(services.devnet)
app.command(rich_help_panel=PARTS)(checks.deploy)
app.add_typer(govern.app, name="govern", rich_help_panel=RUNNING)
app.command(rich_help_panel=PARTS)(services.sequencer)
app.add_typer(journal.app, name="journal", rich_help_panel=RUNNING)
app.command(rich_help_panel=RUNNING)(release.release)
app.add_typer(services.keeper_app, name="keeper", rich_help_panel=PARTS)
app.command(rich_help_panel=PARTS)(services.actor)


def main() -> None:
    """Run a command. What the person can act on is one line and exit code 1, a bug shows its trace."""
    if sys.argv[1:2] in (["journal"], ["verify"]):  # what they use of the sequencer logs
        output.logs_aside()
    try:
        app()
    except CliError as error:
        output.say(f"evermark: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
