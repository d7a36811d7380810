"""The way out of an exchange that nobody runs any more: the Exit contract, from its address alone."""

from typing import Any

import msgspec
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from web3.types import TxReceipt

from evermark.chain.artifacts import load_artifact
from evermark.chain.rpc import Web3, read_again
from evermark.chain.transactions import TransactionSender
from evermark.chain.vault import InboxKind

ALL_SLOTS = 65_535  # a cancel of everything
MOST = 2**95 - 1  # what an entry can ask for
HASH_WORD = 3  # of a market's words: the hash of its symbol
CLOSING_WORD = (1 << 39) + 520  # the vault's word that says how far the last close is
OVERDUE_S = 86_400  # how long the head of the inbox is overdue before anyone may freeze


class ExitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where the exit stands; amounts in quote units, times in unix seconds, 0 for what has not happened."""

    block_s: int
    head: int  # next inbox entry; equal to `tail` when none waits
    tail: int
    head_due_s: int
    head_part_s: int  # when the last part of a close at the head was done
    frozen_s: int
    accounts: int
    counted: int
    complete: bool
    positive_equity: int
    pot: int

    @property
    def freezable_s(self) -> int:
        """From when on anyone may freeze, as the inbox stands; 0 when nothing waits or it is frozen."""
        ignored_s = max(self.head_due_s, self.head_part_s)
        return 0 if self.frozen_s or self.head == self.tail else ignored_s + OVERDUE_S + 1


class ExitRefused(RuntimeError):
    """The address holds no Exit of this version; one line."""


class ExitContracts:
    """Exit, and the vault and inbox that it leads to."""

    def __init__(self, w3: Web3, exit_: Any, vault: Any, inbox: Any) -> None:
        self.w3 = w3
        self.exit = exit_
        self.vault = vault
        self.inbox = inbox

    @classmethod
    async def open(cls, w3: Web3, address: str) -> "ExitContracts":
        """From the Exit's address. Raises ExitRefused when something else stands there."""
        where = to_checksum_address(address)
        if not load_artifact("exit").is_runtime(bytes(await w3.eth.get_code(where))):
            raise ExitRefused(f"exit: no Exit contract of this version at {where}")
        exit_ = _contract(w3, "exit", where)
        vault = _contract(w3, "vault", str(await _read(exit_.functions.VAULT())))
        inbox = str(await _read(exit_.functions.inbox()))
        return cls(w3, exit_, vault, _contract(w3, "inbox", inbox))

    async def status(self) -> ExitStatus:
        """A snapshot as of the newest block."""
        block = await read_again(lambda: self.w3.eth.get_block("latest"))
        at, queue, way = block["number"], self.inbox.functions, self.exit.functions
        head, tail = await _read(queue.head(), at), await _read(queue.tail(), at)
        due = (await _read(queue.entry(head), at)).due if head < tail else 0
        part = int(await _read(self.vault.functions.word(CLOSING_WORD), at))
        return ExitStatus(
            block_s=int(block["timestamp"]),
            head=head,
            tail=tail,
            head_due_s=due,
            head_part_s=part >> 128 if part & 2**64 - 1 == head else 0,
            frozen_s=await _read(way.frozen_at(), at),
            accounts=await _read(way.accounts(), at),
            counted=max(0, await _read(way.cursor(), at) - 1),
            complete=await _read(way.complete(), at),
            positive_equity=await _read(way.positive_equity(), at),
            pot=await _read(way.pot(), at),
        )

    async def block_time(self) -> int:
        """Time of the newest block, unix seconds."""
        return int((await read_again(lambda: self.w3.eth.get_block("latest")))["timestamp"])

    async def account_of(self, owner: str, sub_account: int) -> int:
        """Account id, 0 when not registered."""
        return int(await _read(self.vault.functions.account_of(to_checksum_address(owner), sub_account)))

    async def payout(self, account: int) -> int:
        """What `take` gives for an account now; the count must be complete."""
        return int(await _read(self.exit.functions.payout(account)))

    async def waiting_entries(self, owner: str) -> list[int]:
        """The owner's inbox entries that no batch consumed and nobody has reclaimed."""
        head, tail = await _read(self.inbox.functions.head()), await _read(self.inbox.functions.tail())
        found = []
        for number in range(head, tail):
            entry = await _read(self.inbox.functions.entry(number))
            if entry.owner == to_checksum_address(owner) and not await _read(
                self.inbox.functions.released(number)
            ):
                found.append(number)
        return found

    async def bonds(self, owner: str) -> int:
        """Wei of bonds that the owner can collect."""
        return int(await _read(self.inbox.functions.bonds(to_checksum_address(owner))))

    async def claim_amount(self, claim: int) -> int:
        """Quote units of a claim, 0 once paid."""
        return int((await _read(self.vault.functions.claim(claim))).amount)

    async def request_withdrawal(self, sender: TransactionSender, sub_account: int, amount: int) -> None:
        """Queue a withdrawal of at most `amount` quote units, with its bond."""
        await self._ask(sender, InboxKind.WITHDRAWAL, "request_withdrawal", sub_account, amount)

    async def request_close(
        self, sender: TransactionSender, sub_account: int, market: int, lots: int
    ) -> None:
        """Queue that at most so many lots of a position be closed, with its bond."""
        await self._ask(sender, InboxKind.CLOSE, "request_close", sub_account, market, lots)

    async def request_liquidation(self, sender: TransactionSender, account: int) -> None:
        """Queue that an account below two thirds of its maintenance be closed out, with its bond."""
        await self._ask(sender, InboxKind.LIQUIDATE, "request_liquidation", account)

    async def market_id(self, name: str) -> int:
        """Id of a market by its symbol, of which the vault keeps the hash, by its base, or by its number. Raises ExitRefused."""
        count = await _read(self.vault.functions.market_count())
        if name.isdecimal() and int(name) < count:
            return int(name)
        symbols = name.upper(), f"{name.upper()}-PERP"
        wanted = [int.from_bytes(keccak(symbol.encode()), "big") for symbol in symbols]
        for market in range(count):
            if (await _read(self.vault.functions.market_words(market)))[HASH_WORD] in wanted:
                return market
        raise ExitRefused(
            f"exit: no market {name!r}; there are {count}: give a symbol, or a number from 0 on"
        )

    async def open_positions(self, account: int) -> dict[int, int]:
        """Lots of the account's open positions, by market id."""
        count = await _read(self.vault.functions.market_count())
        sizes = [
            (await _read(self.vault.functions.position(account, market))).size for market in range(count)
        ]
        return {market: size for market, size in enumerate(sizes) if size}

    async def request_cancel(self, sender: TransactionSender, sub_account: int, sequence: int) -> None:
        """Queue the void of everything that the account signed up to a sequence, with its bond."""
        await self._ask(sender, InboxKind.CANCEL, "request_cancel", sub_account, ALL_SLOTS, sequence)

    async def freeze(self, sender: TransactionSender) -> None:
        """End settlement and pin the prices. Raises TransactionReverted with the contract's reason."""
        await self._send(sender, self.exit, "freeze")

    async def push(self, sender: TransactionSender, count: int) -> None:
        """Count the next accounts."""
        await self._send(sender, self.exit, "push", count)

    async def take(self, sender: TransactionSender, account: int) -> int:
        """Turn an account's share into a claim; its id."""
        receipt = await self._send(sender, self.exit, "take", account)
        return self._claim_of(receipt, "Taken")

    async def reclaim(self, sender: TransactionSender, entry: int) -> int:
        """Give an unconsumed entry back; the id of the claim that it makes, 0 when it held no tokens."""
        receipt = await self._send(sender, self.exit, "reclaim", entry)
        return self._claim_of(receipt, "Reclaimed")

    async def pay(self, sender: TransactionSender, claim: int) -> None:
        """Have a claim's tokens sent to its owner."""
        await self._send(sender, self.vault, "pay", claim)

    async def collect_bonds(self, sender: TransactionSender) -> None:
        """Send the sender the bonds that it is owed."""
        await self._send(sender, self.inbox, "collect_bonds")

    async def _ask(self, sender: TransactionSender, kind: InboxKind, call: str, *arguments: int) -> None:
        bond = int(await _read(self.inbox.functions.bond(kind)))
        await self._send(sender, self.inbox, call, *arguments, value=bond)

    async def _send(
        self, sender: TransactionSender, contract: Any, call: str, *arguments: int, value: int = 0
    ) -> TxReceipt:
        data = bytes(HexBytes(contract.encode_abi(call, args=list(arguments))))
        return await sender.send(contract.address, data, value=value)

    def _claim_of(self, receipt: TxReceipt, event: str) -> int:
        logs = [log for log in receipt["logs"] if log["address"] == self.exit.address]
        return int(self.exit.events[event]().process_log(logs[-1])["args"]["claim"])


def _contract(w3: Web3, role: str, address: str) -> Any:
    return w3.eth.contract(
        address=to_checksum_address(address), abi=load_artifact(role).abi, decode_tuples=True
    )


async def _read(call: Any, block: Any = "latest") -> Any:
    return await read_again(lambda: call.call(block_identifier=block))
