"""`evermark queue`: where an account's positions stand in the queues of auto-deleveraging."""

import msgspec

from evermark.cli import options, output, session
from evermark.cli.wallet import WalletChoice
from evermark.client.models import QueuePlace

COLUMNS = ("<market", "place", "of", "<lights", "score, ppm")


def queue(
    url: options.Url = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
    as_json: options.AsJson = False,
) -> None:
    """Where the open positions stand in the queues of auto-deleveraging; five lights go first."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)
    places = session.run(_places(url, choice, sub_account))
    if as_json:
        output.print_json(msgspec.to_builtins(places))
    elif places:
        rows = [
            (one.market, str(one.place or "-"), str(one.of), "*" * one.lights, str(one.score_ppm or "-"))
            for one in places
        ]
        output.print_table("", COLUMNS, rows)
    else:
        output.say("no open positions")


async def _places(url: str, choice: WalletChoice, sub_account: int) -> list[QueuePlace]:
    async with await session.open_client(url, "", choice, sub_account) as client:
        return await client.deleveraging()
