"""What a keeper process is told: frozen, checked before anything starts."""

import os
from pathlib import Path

import msgspec

from evermark.protocol.units import PPM
from evermark.tapes.discovery import TAPES_VARIABLE
from keeper.keystore import KeyConfig
from keeper.sources.live import DEFAULT_VENUES, Venue

ROLES = ("oracle", "funding", "liquidator", "settler")
PRICES = ("sim", "tape", "live")
MOST_PUBLIC_ROUND_S = 600  # six prices an hour are the least that a mean of it rests on


class PricesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where prices come from. All keepers of one devnet use the same `seed`."""

    kind: str = "sim"  # sim, tape or live
    seed: int = 1
    tapes: str = ""  # directory of tapes, or of days of tapes; empty: environment variable EVERMARK_TAPES
    synthetic: bool = True  # complete too few recorded venues by labelled synthetic ones
    max_age_s: int = 60
    max_spread_ppm: int = 10_000
    venues: tuple[Venue, ...] = DEFAULT_VENUES
    proxy: str = ""  # HTTP proxy for live venues, such as http://127.0.0.1:3128

    def __post_init__(self) -> None:
        if self.kind not in PRICES:
            raise ValueError(f"prices: kind is {self.kind!r}, not one of {', '.join(PRICES)}")
        if self.max_age_s < 1 or not 0 < self.max_spread_ppm <= PPM:
            raise ValueError("prices: max_age_s is at least 1 and max_spread_ppm within 1 and 1000000")

    @property
    def tape_root(self) -> Path:
        """The directory to look for tapes in. Raises ValueError when none is named."""
        root = self.tapes or os.environ.get(TAPES_VARIABLE, "")
        if not root:
            raise ValueError(f"prices: tape needs `tapes` or the environment variable {TAPES_VARIABLE}")
        return Path(root)


class KeeperConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One process with one or more roles, each with a key of its own."""

    gateway_url: str
    rpc_url: str
    keys: dict[str, KeyConfig]  # by role; the roles that run_keepers starts
    prices: PricesConfig = PricesConfig()
    # deployment manifest that the gateway's answers must agree with; empty: trust the gateway
    manifest: str = ""
    name: str = "keeper"
    status_path: str = ""
    state_dir: str = ""  # samples of the funding role
    funding_min_share_ppm: int = 500_000  # of an hour's samples, below which the hour is skipped
    abstain: tuple[str, ...] = ()  # symbols of markets that the oracle role does not report
    reports_listen: str = (
        ""  # HOST:PORT at which the oracle role shows its newest signed reports; empty: nowhere
    )
    reports_urls: tuple[str, ...] = ()  # where the settler finds those of other oracle keepers
    public_round_s: int = 60  # between the settler's public rounds in the last hour of a delisted market

    def __post_init__(self) -> None:
        unknown = sorted(set(self.keys) - set(ROLES))
        if unknown or not self.keys:
            raise ValueError(f"keeper: keys are for {', '.join(ROLES)}, not {', '.join(unknown) or 'nobody'}")
        if "funding" in self.keys and not self.state_dir:
            raise ValueError("keeper: the funding role needs state_dir for its samples")
        if "settler" in self.keys and not self.manifest:
            raise ValueError(
                "keeper: the settler role needs the manifest, which names the governor's contract"
            )
        if self.reports_listen and not _is_address(self.reports_listen):
            raise ValueError(f"keeper: reports_listen is {self.reports_listen!r}, not HOST:PORT")
        if not 1 <= self.public_round_s <= MOST_PUBLIC_ROUND_S:
            raise ValueError(f"keeper: public_round_s lies within 1 and {MOST_PUBLIC_ROUND_S}")
        if not 0 <= self.funding_min_share_ppm <= PPM:
            raise ValueError("keeper: funding_min_share_ppm lies within 0 and 1000000")


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdecimal() and int(port) < 2**16


def load_config(path: Path) -> KeeperConfig:
    """Read a JSON or TOML file. Raises ValueError naming what is wrong."""
    try:
        decode = msgspec.toml.decode if path.suffix == ".toml" else msgspec.json.decode
        return decode(path.read_bytes(), type=KeeperConfig)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
