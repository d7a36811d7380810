"""The options that several commands share, spelled once."""

from typing import Annotated

import typer

from evermark.cli.gateway import DEFAULT_RPC_URL, DEFAULT_URL

Url = Annotated[str, typer.Option("--url", envvar="EVERMARK_URL", help=f"Gateway (default {DEFAULT_URL}).")]
RpcUrl = Annotated[
    str, typer.Option("--rpc-url", envvar="EVERMARK_RPC_URL", help=f"Chain (default {DEFAULT_RPC_URL}).")
]
Keystore = Annotated[str, typer.Option("--keystore", help="Keystore file, or a name in the default folder.")]
KeyEnv = Annotated[str, typer.Option("--key-env", help="Environment variable that holds the private key.")]
Dev = Annotated[int, typer.Option("--dev", help="Development account 0 to 19; on a devnet only.")]
PasswordFile = Annotated[str, typer.Option("--password-file", help="File with the keystore's password.")]
SubAccount = Annotated[int, typer.Option("--sub-account", min=0, max=65535, help="Sub-account of the owner.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]
