"""The directory of one exchange: keys, chain, journal, logs. They only make sense together."""

import fcntl
import os
import secrets
import tempfile
from pathlib import Path
from typing import IO

import msgspec

from evermark.cli import keystore
from evermark.cli.errors import CliError

LAYOUT_VERSION = 3
ORACLE_KEEPERS = 3  # all three sign: the quorum of a devnet
KEEPER_NUMBERS = range(1, ORACLE_KEEPERS + 1)
ORACLE_ROLES = tuple(f"oracle-{number}" for number in KEEPER_NUMBERS)
FUNDING_ROLES = tuple(f"funding-{number}" for number in KEEPER_NUMBERS)
SETTLER_ROLES = tuple(f"settler-{number}" for number in KEEPER_NUMBERS)
ROLES = ("sequencer", *ORACLE_ROLES, *FUNDING_ROLES, *SETTLER_ROLES, "liquidator", "governor", "guardian")


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What `run.json` remembers between two starts of the same exchange."""

    layout: int
    prices: str
    start_s: int  # chain time of the first block
    seed: int  # of simulated prices and actors
    addresses: dict[str, str]  # role -> 0x-address


class RunDirectory:
    """Paths by meaning, and the check that a restored directory is whole."""

    def __init__(self, path: Path, temporary: bool) -> None:
        self.path = path
        self.temporary = temporary
        self._lock: IO[str] | None = None

    @classmethod
    def open(cls, state: Path | None) -> "RunDirectory":
        """A fresh temporary directory, or `state`, made where it does not exist. Nobody else may read it."""
        if state is None:
            return cls(Path(tempfile.mkdtemp(prefix="evermark-")), temporary=True)
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CliError(f"--state: cannot make {state}: {error.strerror}") from None
        run = cls(state.resolve(), temporary=False)
        run._own()
        return run

    def _own(self) -> None:
        """Keep a lock beside the directory for as long as this process lives."""
        self._lock = self.path.with_name(self.path.name + ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CliError(f"--state: {self.path} is in use by another exchange") from None

    @property
    def facts_path(self) -> Path:
        """run.json."""
        return self.path / "run.json"

    @property
    def manifest(self) -> Path:
        """The contracts' addresses and ABIs, as `evermark deploy` writes them."""
        return self.path / "manifest.json"

    @property
    def chain(self) -> Path:
        """What the embedded chain replays."""
        return self.path / "chain"

    def recorded_blocks(self) -> int:
        """How many blocks the chain of an earlier run mines again before it answers; 0 for a fresh directory."""
        recorded = self.chain / "blocks.jsonl"
        if not recorded.exists():
            return 0
        with recorded.open("rb") as file:
            return max(0, sum(1 for _ in file) - 1)  # the first line is a header

    @property
    def journal(self) -> Path:
        """The sequencer's journal and history."""
        return self.path / "journal"

    @property
    def password(self) -> Path:
        """Password of the role keystores."""
        return self.path / "keys" / "password"

    def key(self, role: str) -> Path:
        """Keystore of a role."""
        return self.path / "keys" / f"{role}.json"

    def log(self, name: str) -> Path:
        """Log file of a service."""
        return self._in("logs", f"{name}.log")

    def status(self, name: str) -> Path:
        """Where a service writes its status for the screen."""
        return self._in("status", f"{name}.json")

    def config(self, name: str) -> Path:
        """Configuration file of a service."""
        return self._in("config", f"{name}.json")

    def data(self, name: str) -> Path:
        """Directory for what a service keeps across restarts."""
        return self._in("data", name)

    def load(self) -> RunFacts | None:
        """Facts of an earlier start, None for a fresh directory; refuses a directory with a part missing."""
        if not any(self.path.iterdir()):
            return None
        parts = [self.facts_path, self.manifest, self.chain, self.journal / "journal.db", self.password]
        parts += [self.key(role) for role in ROLES]
        missing = [str(part.relative_to(self.path)) for part in parts if not part.exists()]
        if missing:
            raise CliError(f"--state: {self.path} is no whole exchange: missing {', '.join(missing)}")
        try:
            facts = msgspec.json.decode(self.facts_path.read_bytes(), type=RunFacts)
        except msgspec.DecodeError as error:
            raise CliError(f"--state: run.json does not read: {error}") from None
        if facts.layout != LAYOUT_VERSION:
            raise CliError(f"--state: layout {facts.layout} is not this version's {LAYOUT_VERSION}")
        for role in ROLES:
            kept = keystore.read_address(self.key(role))
            if kept != facts.addresses.get(role):
                raise CliError(f"--state: key of {role} is {kept}, run.json says {facts.addresses.get(role)}")
        return facts

    def make_keys(self) -> dict[str, str]:
        """New keystores for every role under a random password; returns the addresses by role."""
        password = secrets.token_hex(16)
        keystore.write_private(self.password, password + "\n")
        return {
            role: keystore.create(self.key(role), password, scrypt_n=keystore.DEVNET_SCRYPT).lower()
            for role in ROLES
        }

    def save(self, facts: RunFacts) -> None:
        """Write run.json; the directory counts as an exchange from now on."""
        part = self.facts_path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(facts))
        os.replace(part, self.facts_path)

    def _in(self, folder: str, name: str) -> Path:
        directory = self.path / folder
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory / name
