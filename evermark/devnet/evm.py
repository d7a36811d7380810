"""The chain itself: py-evm under Prague rules, mined by one thread, with receipts and logs kept at hand."""

from collections.abc import Callable, Iterable
from typing import Any

from eth import constants
from eth.chains.base import MiningChain
from eth.db.atomic import AtomicDB
from eth.exceptions import VMError
from eth.vm.forks.prague import PragueVM
from eth.vm.message import Message
from eth_hash.auto import keccak
from eth_typing import Address, BlockNumber
from eth_utils.exceptions import ValidationError

from evermark.devnet.clock import DevnetClock
from evermark.devnet.config import CHAIN_ID, DEV_ACCOUNTS, DEV_BALANCE_WEI, dev_key
from evermark.protocol.signing import Signer

BLOCK_GAS_LIMIT = 60_000_000
NO_ADDRESS: Any = None  # py-evm's type for "creates no contract" leaves None out
MAX_TRANSACTION_GAS = 16_777_216  # EIP-7825, which the next fork of mainnet enforces


class TransactionRefused(ValueError):
    """The node does not take this transaction; the text is what geth would say."""


class Reverted(Exception):
    """A call or an estimate reverted, with the raw return data."""

    def __init__(self, data: bytes, reason: str) -> None:
        super().__init__(reason)
        self.data = data


class _Vm(PragueVM):
    @classmethod
    def validate_header(cls, header: Any, parent_header: Any) -> None:
        """Ethereum's rules, but a block may carry its parent's second (see `Evm.block_timestamp`)."""
        if parent_header is not None and header.timestamp == parent_header.timestamp:
            header = header.copy(timestamp=parent_header.timestamp + 1)
        super().validate_header(header, parent_header)


class _Chain(MiningChain):
    chain_id = CHAIN_ID
    vm_configuration = ((BlockNumber(0), _Vm),)

    def create_header_from_parent(self, parent_header: Any, **params: Any) -> Any:
        # A devnet keeps its gas limit.
        return super().create_header_from_parent(
            parent_header, **{**params, "gas_limit": parent_header.gas_limit}
        )


class Evm:
    """Blocks, state, receipts and logs. One thread executes; receipts, logs and `head` may be read by any."""

    def __init__(self, clock: DevnetClock, genesis_time: int) -> None:
        self.clock = clock
        self.on_block: Callable[[Any], None] = lambda _block: (
            None
        )  # makes a block durable before anybody sees it
        self.receipts: dict[bytes, dict[str, Any]] = {}
        self.transactions: dict[bytes, dict[str, Any]] = {}
        self.logs: list[list[dict[str, Any]]] = [[]]  # by block number
        self.blocks: dict[bytes, int] = {}  # hash -> number
        self.pool: dict[
            tuple[bytes, int], Any
        ] = {}  # (sender, nonce) -> accepted, not mined yet; oldest first
        self._next_timestamp = 0
        self.chain: Any = _Chain.from_genesis(AtomicDB(), _genesis_header(genesis_time), _genesis_state())
        self.head = self.chain.get_canonical_head()  # header of the newest block
        self.blocks[self.head.hash] = 0

    def block_timestamp(self) -> int:
        """Time that a block mined now would carry: the clock's, never before the parent's.

        Ethereum asks for strictly ascending seconds. A devnet that mines each transaction at once would then
        run ahead of its own clock by a second for each of them; so blocks of one second share it here.
        """
        return max(self.head.timestamp, int(self.clock.now()), self._next_timestamp)

    def set_next_timestamp(self, moment: int) -> None:
        """Let the next block carry at least `moment`, and the clock go on from there."""
        self._next_timestamp = moment
        self.clock.jump_to(moment)

    def decode(self, raw: bytes) -> Any:
        """Raw signed bytes -> transaction. Raises TransactionRefused."""
        if raw[:1] == b"\x03":
            raise TransactionRefused("transaction type not supported: blobs have no place here")
        try:
            transaction = self.chain.get_vm().get_transaction_builder().decode(raw)
            transaction.validate()
            transaction.sender  # noqa: B018 -- recovers the key, or raises
        except Exception as error:  # rlp and key libraries raise many kinds
            raise TransactionRefused(f"rlp: {error}") from None
        if transaction.chain_id is None:
            raise TransactionRefused("only replay-protected (EIP-155) transactions allowed over RPC")
        if transaction.chain_id != CHAIN_ID:
            raise TransactionRefused(f"invalid chain id: {transaction.chain_id}, this is {CHAIN_ID}")
        if transaction.gas > MAX_TRANSACTION_GAS:
            raise TransactionRefused(f"transaction gas limit too high (cap: {MAX_TRANSACTION_GAS})")
        if transaction.gas < transaction.intrinsic_gas:
            raise TransactionRefused(f"intrinsic gas too low: gas {transaction.gas}")
        return transaction

    def accept(self, transaction: Any) -> bool:
        """Check a decoded transaction and pool it. Returns True when a block can hold it now."""
        sender, nonce = transaction.sender, transaction.nonce
        state = self.chain.get_vm().state
        expected = state.get_nonce(sender)
        pooled = self.pool.get((sender, nonce))
        if transaction.hash in self.receipts or (pooled is not None and pooled.hash == transaction.hash):
            raise TransactionRefused("already known")
        if nonce < expected:
            raise TransactionRefused(f"nonce too low: next nonce {expected}, tx nonce {nonce}")
        cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
        if state.get_balance(sender) < cost:
            raise TransactionRefused("insufficient funds for gas * price + value")
        if pooled is not None and not _outbids(transaction, pooled):
            raise TransactionRefused("replacement transaction underpriced")
        self.pool[sender, nonce] = transaction
        return self._runnable(0, state) is not None

    def mine(self, timestamp: int | None = None) -> bytes:
        """Mine a block with everything in the pool that can run, oldest first. Returns its hash."""
        moment = self.block_timestamp() if timestamp is None else timestamp
        self._next_timestamp = 0
        self.chain.header = self.chain.header.copy(timestamp=moment)
        applied: list[tuple[Any, Any, Any]] = []
        gas_used = 0
        while (transaction := self._runnable(gas_used, self.chain.get_vm().state)) is not None:
            del self.pool[transaction.sender, transaction.nonce]
            try:
                _, receipt, computation = self.chain.apply_transaction(transaction)
            except (ValidationError, VMError):
                continue  # was acceptable when it came and is not any more: dropped, as any node does
            gas_used = receipt.gas_used
            applied.append((transaction, receipt, computation))
        number = self.chain.header.block_number
        block = self.chain.mine_block(
            coinbase=constants.ZERO_ADDRESS, mix_hash=keccak(number.to_bytes(8, "big")), blob_gas_used=0
        )
        self.on_block(block)
        self.logs.append([])
        receipts = self._record(block, applied)
        self.blocks[block.hash] = block.number
        self.head = block.header
        self.receipts.update(receipts)  # last: whoever sees a receipt finds its block at the head
        return bytes(block.hash)

    def _runnable(self, gas_used: int, state: Any) -> Any:
        base_fee = self.chain.header.base_fee_per_gas
        for (sender, nonce), transaction in self.pool.items():
            fits = gas_used + transaction.gas <= BLOCK_GAS_LIMIT and transaction.max_fee_per_gas >= base_fee
            if fits and state.get_nonce(sender) == nonce:
                return transaction
        return None

    def _record(self, block: Any, applied: Iterable[tuple[Any, Any, Any]]) -> dict[bytes, dict[str, Any]]:
        """Keep a block's logs and transactions; returns its receipts by transaction hash."""
        receipts = {}
        before = 0
        for index, (transaction, receipt, computation) in enumerate(applied):
            place = {
                "blockHash": block.hash,
                "blockNumber": block.number,
                "transactionHash": transaction.hash,
                "transactionIndex": index,
            }
            first = len(self.logs[block.number])
            logs = [_log(place, entry, first + offset) for offset, entry in enumerate(receipt.logs)]
            self.logs[block.number].extend(logs)
            base_fee = block.header.base_fee_per_gas
            mined = {**place, "transaction": transaction, "baseFee": base_fee}
            self.transactions[transaction.hash] = mined
            receipts[transaction.hash] = {
                **mined,
                "status": 0 if computation.is_error else 1,
                "gasUsed": receipt.gas_used - before,
                "cumulativeGasUsed": receipt.gas_used,
                "logs": logs,
                "bloom": receipt.bloom,
                "contract": computation.msg.storage_address if computation.msg.is_create else None,
                "revertReason": bytes(computation.output) if computation.is_error else None,
            }
            before = receipt.gas_used
        return receipts

    def state_at(self, number: int) -> Any:
        """State after block `number`."""
        return self.chain.get_vm(self.chain.get_canonical_block_header_by_number(number)).state

    def execute(self, call: dict[str, Any], number: int | None) -> Any:
        """Run a message without keeping its effects: after block `number`, or in the block to come (None)."""
        if number is None:
            header = self.chain.header.copy(timestamp=self.block_timestamp())
        else:
            header = self.chain.get_canonical_block_header_by_number(number)
        state = self.chain.get_vm(header).state
        sender, to = (
            call.get("from", constants.ZERO_ADDRESS),
            call.get("to", constants.CREATE_CONTRACT_ADDRESS),
        )
        creating = to == constants.CREATE_CONTRACT_ADDRESS
        message = Message(
            gas=min(call.get("gas", BLOCK_GAS_LIMIT), BLOCK_GAS_LIMIT),
            to=to,
            sender=sender,
            value=call.get("value", 0),
            data=b"" if creating else call.get("data", b""),
            code=call.get("data", b"") if creating else state.get_code(to),
            create_address=Address(keccak(sender + b"devnet call")[12:]) if creating else NO_ADDRESS,
        )
        state.mark_address_warm(sender)
        state.mark_address_warm(message.storage_address)
        context = state.get_transaction_context_class()(gas_price=0, origin=sender)
        apply = (
            state.computation_class.apply_create_message
            if creating
            else state.computation_class.apply_message
        )
        return apply(state, message, context)


def _genesis_header(genesis_time: int) -> dict[str, Any]:
    return {
        "coinbase": constants.ZERO_ADDRESS,
        "difficulty": 0,
        "extra_data": b"evermark",
        "gas_limit": BLOCK_GAS_LIMIT,
        "mix_hash": constants.ZERO_HASH32,
        "nonce": b"\0" * 8,
        "timestamp": genesis_time,
        "base_fee_per_gas": 10**9,
    }


def _genesis_state() -> Any:
    account = {"balance": DEV_BALANCE_WEI, "nonce": 0, "code": b"", "storage": {}}
    return {Signer(dev_key(index)).address: dict(account) for index in range(DEV_ACCOUNTS)}


def _log(place: dict[str, Any], entry: Any, log_index: int) -> dict[str, Any]:
    return {
        **place,
        "address": entry.address,
        "topics": [topic.to_bytes(32, "big") for topic in entry.topics],
        "data": entry.data,
        "logIndex": log_index,
        "removed": False,
    }


def _outbids(new: Any, old: Any) -> bool:
    """A replacement raises both the fee and the tip by at least 10 %, as public nodes ask."""
    return bool(
        new.max_fee_per_gas * 10 >= old.max_fee_per_gas * 11
        and new.max_priority_fee_per_gas * 10 >= old.max_priority_fee_per_gas * 11
    )
