"""Transactions of one key: each sent until it is mined, in the order of the calls, at most one live per nonce."""

import asyncio
import time
from typing import Any, cast

from eth_account import Account
from eth_account.datastructures import SignedTransaction
from eth_account.signers.local import LocalAccount
from eth_typing import ChecksumAddress
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from web3.exceptions import ContractLogicError, TransactionNotFound, Web3Exception, Web3RPCError
from web3.types import TxReceipt

from evermark.chain.rpc import UNREACHABLE, Web3

RECEIPT_TIMEOUT_S = 30.0  # wall time until a fee is raised
MAX_BUMPS = 12
FIRST_POLL_S, LAST_POLL_S = 0.01, 0.5
GAS_MARGIN_PERCENT = 20
MAX_GAS = 2**24  # EIP-7825
GWEI = 10**9
MAX_FEE_WEI = 1_000 * GWEI  # nobody means to pay more


class TransactionReverted(RuntimeError):
    """The contract refused; `reason` is its text. `receipt` is None when only an estimate ran."""

    def __init__(self, reason: str, receipt: TxReceipt | None = None) -> None:
        super().__init__(f"transaction reverted: {reason}")
        self.reason = reason
        self.receipt = receipt


class TransactionRefused(Web3Exception):
    """The node does not take the transaction, e.g. for lack of funds."""


class TransactionTimeout(TimeoutError):
    """Not mined within the allowed raises of its fee; it may still be mined later."""


class TransactionSender:
    """Sends for one key. Calls made together are under way together, with ascending nonces that have no gaps and no rivals.

    Two processes must not share a key. After a crash the next call finds what the last process left pending
    and lets it be mined first, or outbids it when it is stuck.
    """

    def __init__(self, w3: Web3, private_key: bytes, receipt_timeout_s: float = RECEIPT_TIMEOUT_S) -> None:
        self._w3 = w3
        self._account: LocalAccount = Account.from_key(private_key)
        self._timeout_s = receipt_timeout_s
        self._lock = asyncio.Lock()
        self._under_way: set[int] = set()  # nonces
        self._beyond = 0  # no transaction with this nonce or a higher one was ever broadcast here

    @property
    def address(self) -> ChecksumAddress:
        """The key's address."""
        return self._account.address

    async def send(
        self, to: str | None, data: bytes | str = b"", *, value: int = 0, gas: int | None = None
    ) -> TxReceipt:
        """Send and wait until mined; `to` None creates a contract, `gas` None estimates it.

        Raises TransactionReverted, TransactionRefused, TransactionTimeout, or one of `rpc.UNREACHABLE`.
        """
        return await (await self.start(to, data, value=value, gas=gas))

    async def start(
        self, to: str | None, data: bytes | str = b"", *, value: int = 0, gas: int | None = None
    ) -> "asyncio.Future[TxReceipt]":
        """Send; the future is done when it is mined, and raises what `send` does. What is started after this is mined after it.

        Raises what `send` does when nothing was sent.
        """
        call: dict[str, Any] = {"data": HexBytes(data), "value": value}
        if to is not None:
            call["to"] = to_checksum_address(to)
        nonce, driving = await self._begin(call, gas)
        return asyncio.ensure_future(self._finish(call, gas, nonce, driving))

    async def clear(self) -> int:
        """Leave nothing in flight: what is not mined yet is waited for or outbid by transactions to itself that do nothing. One
        of them is sent in any case, for a node may have forgotten what another one still holds.

        Returns how many nonces are used up then: once as many are mined for good, nothing sent before can be mined. Raises what
        `send` does.
        """
        first = await self._mined_count()
        wanted = max(
            first + 1, self._beyond, await self._w3.eth.get_transaction_count(self.address, "pending")
        )
        while await self._mined_count() < wanted:
            await self.send(self.address)
        return wanted

    async def _mined_count(self) -> int:
        return int(await self._w3.eth.get_transaction_count(self.address, "latest"))

    async def _finish(
        self, call: dict[str, Any], gas: int | None, nonce: int, driving: "asyncio.Future[TxReceipt | None]"
    ) -> TxReceipt:
        while True:
            try:
                receipt = await driving
            finally:
                driving.cancel()
                self._under_way.discard(nonce)
            if receipt is not None:
                break
            if any(other > nonce for other in self._under_way):  # it would come after them
                raise TransactionRefused(f"chain: another transaction took nonce {nonce}")
            nonce, driving = await self._begin(call, gas)
        if receipt["status"] != 1:
            raise TransactionReverted(await self._reason(call, receipt), receipt)
        return receipt

    async def _begin(
        self, call: dict[str, Any], gas: int | None
    ) -> "tuple[int, asyncio.Future[TxReceipt | None]]":
        """Give the call the lowest free nonce and broadcast it; later calls come after it."""
        async with self._lock:
            if not self._under_way:
                await self._settle_predecessor()
            call["gas"] = gas or await self._estimate(call)
            nonce = int(await self._w3.eth.get_transaction_count(self.address, "latest"))
            while nonce in self._under_way:
                nonce += 1
            sent = asyncio.Event()
            driving = asyncio.ensure_future(self._drive(call, nonce, sent))
            telling = asyncio.ensure_future(sent.wait())
            try:
                await asyncio.wait({driving, telling}, return_when=asyncio.FIRST_COMPLETED)
            except BaseException:
                driving.cancel()
                raise
            finally:
                telling.cancel()
            self._under_way.add(nonce)
            return nonce, driving

    async def _settle_predecessor(self) -> None:
        """Wait for what an earlier process left pending; after the timeout go on, and thereby outbid it."""
        deadline = time.monotonic() + self._timeout_s
        poll_s = FIRST_POLL_S
        while time.monotonic() < deadline:
            mined = await self._w3.eth.get_transaction_count(self.address, "latest")
            if await self._w3.eth.get_transaction_count(self.address, "pending") <= mined:
                return
            await asyncio.sleep(poll_s)
            poll_s = min(2 * poll_s, LAST_POLL_S)

    async def _drive(self, call: dict[str, Any], nonce: int, first_sent: asyncio.Event) -> TxReceipt | None:
        """One nonce until it is mined, with higher fees each time. None: somebody else's is mined there."""
        max_fee, tip = await self._fees()
        sent: list[HexBytes] = []
        waits = 0
        while waits < MAX_BUMPS and max_fee <= MAX_FEE_WEI:
            signed = await self._sign(call, nonce, max_fee, tip)
            outcome = await self._broadcast(signed.raw_transaction)
            if outcome != "underpriced":
                waits += 1
                sent.append(HexBytes(signed.hash))
                self._beyond = max(self._beyond, nonce + 1)
                first_sent.set()
                receipt = await self._wait(sent, 0.0 if outcome == "nonce used" else self._timeout_s)
                if receipt is not None or outcome == "nonce used":
                    return receipt
            market_fee, market_tip = await self._fees()
            max_fee, tip = max(market_fee, _raised(max_fee)), max(market_tip, _raised(tip))
        raise TransactionTimeout(f"transaction with nonce {nonce} of {self.address} is not mined")

    async def _sign(self, call: dict[str, Any], nonce: int, max_fee: int, tip: int) -> SignedTransaction:
        return self._account.sign_transaction(
            {
                **call,
                "type": 2,
                "chainId": await self._w3.eth.chain_id,
                "nonce": nonce,
                "maxFeePerGas": max_fee,
                "maxPriorityFeePerGas": tip,
            }
        )

    async def _broadcast(self, raw: bytes) -> str:
        """ "sent", "underpriced" (raise the fee) or "nonce used" (something with this nonce is mined)."""
        try:
            await self._w3.eth.send_raw_transaction(HexBytes(raw))
        except Web3RPCError as error:
            text = str(error).lower()
            if "already known" in text or "already imported" in text:
                return "sent"
            if "underpriced" in text or "less than block base fee" in text or "fee too low" in text:
                return "underpriced"
            if "nonce too low" in text:
                return "nonce used"
            raise TransactionRefused(f"chain: transaction refused: {error}") from error
        except UNREACHABLE:
            # It may have arrived. The receipt will tell, and the same nonce is sent again otherwise.
            return "sent"
        return "sent"

    async def _wait(self, sent: list[HexBytes], timeout_s: float) -> TxReceipt | None:
        """Receipt of whichever of the transactions of one nonce is mined; None after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        poll_s = FIRST_POLL_S
        while True:
            for transaction_hash in reversed(sent):
                try:
                    return await self._w3.eth.get_transaction_receipt(transaction_hash)
                except TransactionNotFound:
                    continue
                except UNREACHABLE:
                    break
            if time.monotonic() >= deadline:
                return None
            await asyncio.sleep(poll_s)
            poll_s = min(poll_s * 3 / 2, LAST_POLL_S)

    async def _fees(self) -> tuple[int, int]:
        """(maxFeePerGas, maxPriorityFeePerGas) in wei: room for the base fee to double."""
        block = await self._w3.eth.get_block("latest")
        tip = min(max(int(await self._w3.eth.max_priority_fee), 1), MAX_FEE_WEI // 10)
        return min(2 * int(block["baseFeePerGas"]) + tip, MAX_FEE_WEI), tip

    async def _estimate(self, call: dict[str, Any]) -> int:
        try:
            needed = await self._w3.eth.estimate_gas(cast(Any, {**call, "from": self.address}))
        except ContractLogicError as error:
            raise TransactionReverted(_text(error)) from error
        except Web3RPCError as error:
            raise TransactionRefused(f"chain: estimate refused: {error}") from error
        return min(needed * (100 + GAS_MARGIN_PERCENT) // 100, MAX_GAS)

    async def _reason(self, call: dict[str, Any], receipt: TxReceipt) -> str:
        """Why a mined transaction failed: what the same call answers on the state before its block."""
        if receipt["gasUsed"] >= call["gas"]:
            return "out of gas"
        try:
            message = cast(Any, {**call, "from": self.address})
            await self._w3.eth.call(message, block_identifier=receipt["blockNumber"] - 1)
        except ContractLogicError as error:
            return _text(error)
        except (Web3Exception, *UNREACHABLE) as error:
            return f"reason unknown ({error})"
        return "reason unknown (it depended on its block)"


def _raised(wei: int) -> int:
    """An eighth more: nodes ask for a tenth before they replace a transaction."""
    return wei + wei // 8 + 1


def _text(error: ContractLogicError) -> str:
    text = error.message or str(error)
    return text.removeprefix("execution reverted").removeprefix(": ") or "no reason given"
