"""A small exchange for tests: real keys, real signatures, commands as the gate would hand them over."""

from collections.abc import Sequence

from evermark.protocol.markets import Market, load_markets
from evermark.protocol.oracle import SignedFundingReport, SignedPriceReport, pack_price
from evermark.protocol.orders import Cancel, Order, Side, TimeInForce, Withdraw
from evermark.protocol.signing import (
    FundingReport,
    PriceReport,
    Signer,
    digest,
    domain_separator,
    struct_hash,
)
from evermark.protocol.units import USDC
from sequencer.engine.commands import (
    CancelOrder,
    Genesis,
    InboxEntry,
    InboxEntryKind,
    OracleRound,
    PlaceOrder,
    WithdrawRequest,
)

ROUND_SECONDS = 3
START_S = 1_760_129_400
PRICES = ((1_100_000, 1_100_000), (400_000, 400_000), (200_000, 200_000), (250_000, 250_000))


def key(number: int) -> Signer:
    """A deterministic key; keepers have 1 to 3, traders follow from 11."""
    return Signer(number.to_bytes(32, "big"))


class World:
    """Signs for everybody. `now_s` is chain time; rounds and stamps follow it."""

    def __init__(
        self,
        vault: bytes = b"\x11" * 20,
        oracle: bytes = b"\x22" * 20,
        chain_id: int = 31337,
        markets: tuple[Market, ...] | None = None,
        keepers: Sequence[Signer] = (),
        start_s: int = START_S,
    ) -> None:
        self.now_s = start_s
        self.markets = markets or load_markets()
        self.keepers = sorted(keepers or [key(1), key(2), key(3)], key=lambda signer: signer.address)
        self.vault_domain = domain_separator(chain_id, vault)
        self.oracle_domain = domain_separator(chain_id, oracle, "Evermark Oracle")
        self.genesis = Genesis(
            chain_id=chain_id,
            vault=vault,
            oracle=oracle,
            round_seconds=ROUND_SECONDS,
            oracle_quorum=3,
            funding_quorum=3,
            oracle_keepers=tuple(signer.address for signer in self.keepers),
            funding_keepers=tuple(signer.address for signer in self.keepers),
            markets=self.markets,
        )
        self.sequences: dict[bytes, int] = {}
        self.entries = 0

    def price_reports(
        self, prices: Sequence[tuple[int, int]] = (), at_s: int | None = None
    ) -> tuple[SignedPriceReport, ...]:
        """Every keeper's report of the round at `at_s` (default: now); (0, 0) abstains."""
        timestamp = self.now_s if at_s is None else at_s
        given = prices or PRICES[: len(self.markets)]
        report = PriceReport(
            round=timestamp // ROUND_SECONDS,
            timestamp=timestamp,
            prices=tuple(pack_price(index, mark) for index, mark in given),
        )
        return tuple(
            SignedPriceReport(report, signer.address, signer.sign(digest(self.oracle_domain, report)))
            for signer in self.keepers
        )

    def round(self, prices: Sequence[tuple[int, int]] = ()) -> OracleRound:
        """A complete round at `now_s`."""
        return OracleRound(reports=self.price_reports(prices))

    def funding_reports(self, hour: int, rates: Sequence[int] = ()) -> tuple[SignedFundingReport, ...]:
        """Every keeper's report of an hour."""
        report = FundingReport(
            hour=hour, rates_ppb=tuple(rates or [12_500] * len(self.markets)), samples=b"s" * 32
        )
        return tuple(
            SignedFundingReport(report, signer.address, signer.sign(digest(self.oracle_domain, report)))
            for signer in self.keepers
        )

    def deposit(self, signer: Signer, usdc: int, sub_account: int = 0) -> InboxEntry:
        """The next inbox entry: a deposit."""
        self.entries += 1
        return InboxEntry(
            entry_id=self.entries,
            entry_kind=InboxEntryKind.DEPOSIT,
            owner=signer.address,
            sub_account=sub_account,
            amount=usdc * USDC,
        )

    def sequence_of(self, signer: Signer) -> int:
        """A sequence above every earlier one of this signer, in milliseconds of chain time."""
        last = self.sequences.get(signer.address, self.now_s * 1000)
        self.sequences[signer.address] = last + 1
        return last + 1

    def sign_order(
        self,
        signer: Signer,
        account: int,
        side: Side,
        size: int,
        price: int,
        *,
        market: str = "BTC-PERP",
        slot: int = 1,
        time_in_force: TimeInForce = TimeInForce.GTC,
        post_only: bool = False,
    ) -> PlaceOrder:
        """A signed order as the gate hands it over."""
        order = Order(
            owner=signer.address,
            sub_account=0,
            market=market,
            side=side,
            size=size,
            limit_price=price,
            max_fee_ppm=1_000,
            slot=slot,
            sequence=self.sequence_of(signer),
            expiry=self.now_s + 3_600,
            time_in_force=time_in_force,
            post_only=post_only,
        )
        signature = signer.sign(digest(self.vault_domain, order))
        return PlaceOrder(
            account=account,
            order=order,
            order_hash=struct_hash(order),
            signature=signature,
            signer=signer.address,
        )

    def taker(self, signer: Signer, account: int, side: Side, size: int, price: int) -> PlaceOrder:
        """A slot-0 IOC order."""
        return self.sign_order(signer, account, side, size, price, slot=0, time_in_force=TimeInForce.IOC)

    def cancel(self, signer: Signer, account: int, slot: int) -> CancelOrder:
        """A signed cancel of everything in a slot so far."""
        cancel = Cancel(
            owner=signer.address,
            sub_account=0,
            all_slots=False,
            slot=slot,
            sequence=self.sequence_of(signer),
            deadline=self.now_s + 600,
        )
        signature = signer.sign(digest(self.vault_domain, cancel))
        return CancelOrder(account=account, cancel=cancel, signature=signature, signer=signer.address)

    def withdraw(
        self, signer: Signer, account: int, amount: int, action_sequence: int = 1
    ) -> WithdrawRequest:
        """A signed withdrawal without a fee."""
        withdraw = Withdraw(
            owner=signer.address,
            sub_account=0,
            amount=amount,
            max_fee=0,
            action_sequence=action_sequence,
            deadline=self.now_s + 600,
        )
        signature = signer.sign(digest(self.vault_domain, withdraw))
        return WithdrawRequest(account=account, withdraw=withdraw, fee=0, signature=signature)
