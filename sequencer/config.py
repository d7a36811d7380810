"""The sequencer's configuration: one JSON or TOML file, checked whole before anything starts."""

import os
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from eth_account import Account

from sequencer.journal.opening import SCHEMES

MAX_CONFIRMATIONS = 64
MIN_CAPACITY = 64
MAX_PROCESSES = 64
MIN_SILENCE_S = 2.0  # two beats of the owner
MIN_SNAPSHOT_EVERY = 100  # a snapshot costs more than so many records


class ConfigRefused(ValueError):
    """One line that names the setting and the fact."""


class SequencerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Relative paths are relative to the configuration file."""

    rpc_url: str
    manifest: Path  # addresses and parameters, as the deployment wrote them
    directory: Path  # journal.db, history.db and snapshots; made where it does not exist
    journal: str = ""  # postgresql://... of a replicated journal; empty: the directory's journal.db
    keystore: Path  # the sequencer's key, encrypted, readable by its owner only
    password_file: Path | None = None  # else the environment variable EVERMARK_PASSWORD
    host: str = "127.0.0.1"
    port: int = 8645  # 0 picks a free one
    confirmations: int = (
        0  # blocks on top of one that is acted upon; 0 only where the chain cannot reorganise
    )
    capacity: int = 4_096  # commands waiting, at most
    signature_processes: int | None = (
        None  # that check orders' signatures in place of the gateway's threads; None: as the machine suits
    )
    standby: bool = False  # follow the replicated journal, and take over when its owner falls silent
    silence_s: float = 5.0  # how long that takes
    metrics_port: int = (
        0  # /health, /ready and /metrics for the operator's tools, on this machine only; 0: none
    )
    reconcile_s: float = 30.0  # between two comparisons of engine and vault
    reserve_bytes: int = (
        256 * 2**20
    )  # with less room on the journal's disk only cancels and the like are taken
    snapshot_every: int = 50_000  # journal records between two snapshots
    release_accounts: tuple[int, ...] = ()  # halted ones that may trade again from this start on


def load_config(path: Path) -> SequencerConfig:
    """Read and check a configuration file. Raises ConfigRefused."""
    try:
        text = path.read_bytes()
        raw = tomllib.loads(text.decode()) if path.suffix == ".toml" else msgspec.json.decode(text)
        config = msgspec.convert(raw, SequencerConfig, dec_hook=_as_path)
    except OSError as error:
        raise ConfigRefused(f"config: {path} does not read: {error.strerror}") from None
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise ConfigRefused(f"config: {path}: {error}") from None
    base = path.resolve().parent
    config = msgspec.structs.replace(
        config,
        manifest=base / config.manifest,
        directory=base / config.directory,
        keystore=base / config.keystore,
        password_file=base / config.password_file if config.password_file else None,
    )
    validate(config)
    return config


def _as_path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"expected a path, got {value!r}")


def validate(config: SequencerConfig) -> None:
    """Raises ConfigRefused for the first setting that cannot work."""
    rules = {
        f"rpc_url: {config.rpc_url} is no http(s) address": urlsplit(config.rpc_url).scheme
        in ("http", "https"),
        f"journal: {urlsplit(config.journal).scheme or config.journal} is not postgresql": not config.journal
        or config.journal.startswith(SCHEMES),
        f"manifest: no file {config.manifest}": config.manifest.is_file(),
        f"keystore: no file {config.keystore}": config.keystore.is_file(),
        f"port: {config.port} is not within 0 to 65535": 0 <= config.port < 2**16,
        f"confirmations: {config.confirmations} is not within 0 to 64": 0
        <= config.confirmations
        <= MAX_CONFIRMATIONS,
        f"capacity: {config.capacity} is below {MIN_CAPACITY}": config.capacity >= MIN_CAPACITY,
        f"signature_processes: {config.signature_processes} is not within 0 to {MAX_PROCESSES}": 0
        <= (config.signature_processes or 0)
        <= MAX_PROCESSES,
        "standby: only a replicated journal can be followed; set journal": bool(config.journal)
        or not config.standby,
        f"silence_s: {config.silence_s} is below {MIN_SILENCE_S}": config.silence_s >= MIN_SILENCE_S,
        f"metrics_port: {config.metrics_port} is not within 0 to 65535": 0 <= config.metrics_port < 2**16,
        f"reconcile_s: {config.reconcile_s} is not above 0": config.reconcile_s > 0,
        f"reserve_bytes: {config.reserve_bytes} is negative": config.reserve_bytes >= 0,
        f"snapshot_every: {config.snapshot_every} is below {MIN_SNAPSHOT_EVERY}": config.snapshot_every
        >= MIN_SNAPSHOT_EVERY,
    }
    for fact, holds in rules.items():
        if not holds:
            raise ConfigRefused(f"config: {fact}")


def open_key(config: SequencerConfig) -> bytes:
    """The sequencer's private key. Raises ConfigRefused; never repeats the password or the key."""
    if config.keystore.stat().st_mode & 0o077:
        raise ConfigRefused(f"config: keystore: {config.keystore} is readable by others; chmod 600")
    if config.password_file is not None:
        if not config.password_file.is_file():
            raise ConfigRefused(f"config: password_file: no file {config.password_file}")
        password = config.password_file.read_text().rstrip("\n")
    else:
        password = os.environ.get("EVERMARK_PASSWORD", "")
    try:
        return bytes(Account.decrypt(config.keystore.read_text(), password))
    except (ValueError, KeyError, TypeError):
        raise ConfigRefused(f"config: keystore: {config.keystore} does not open with this password") from None
