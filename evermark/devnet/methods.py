"""The JSON-RPC methods of the devnet: eth_*, net_*, web3_*, and the helpers evm_* and devnet_clock."""

from collections.abc import Callable
from typing import Any

from eth.exceptions import Revert
from eth_abi.abi import decode
from eth_hash.auto import keccak

from evermark.devnet import hexjson
from evermark.devnet.config import CHAIN_ID, DEV_ACCOUNTS, dev_key
from evermark.devnet.evm import BLOCK_GAS_LIMIT, MAX_TRANSACTION_GAS, Evm, Reverted
from evermark.devnet.hexjson import BadParams, parse_data, parse_quantity
from evermark.devnet.views import block_view, receipt_view, transaction_view
from evermark.protocol.signing import Signer

PRIORITY_FEE_WEI = 10**9
ERROR_SELECTOR = keccak(b"Error(string)")[:4]
MAX_LOG_BLOCKS = 100_000
MAX_FILTERS = 1_000


NAMESPACES = ("eth_", "net_", "web3_", "evm_", "devnet_")
# Methods that only look at what is published with a block: they need not wait for the EVM's thread.
AT_ONCE = {
    "net_version", "net_listening", "net_peerCount", "web3_clientVersion", "web3_sha3", "devnet_clock",
    "eth_chainId", "eth_syncing", "eth_accounts", "eth_blockNumber", "eth_gasPrice",
    "eth_maxPriorityFeePerGas", "eth_getTransactionReceipt", "eth_getLogs",
}  # fmt: skip


class Methods:
    """One method per JSON-RPC name; all but those of AT_ONCE run on the devnet's one worker thread."""

    def __init__(self, evm: Evm, instant: bool) -> None:
        self.evm = evm
        self._instant = instant
        self._filters: dict[int, dict[str, Any]] = {}
        self._accounts = [Signer(dev_key(index)).address for index in range(DEV_ACCOUNTS)]
        self.table: dict[str, Callable[..., Any]] = {
            name: getattr(self, name) for name in dir(self) if name.startswith(NAMESPACES)
        }

    def eth_chainId(self) -> int:
        return CHAIN_ID

    def net_version(self) -> str:
        return str(CHAIN_ID)

    def net_listening(self) -> bool:
        return True

    def net_peerCount(self) -> int:
        return 0

    def web3_clientVersion(self) -> str:
        return "evermark-devnet/py-evm"

    def web3_sha3(self, value: Any) -> bytes:
        return keccak(parse_data(value, "data"))

    def eth_syncing(self) -> bool:
        return False

    def eth_accounts(self) -> list[bytes]:
        return list(self._accounts)

    def eth_blockNumber(self) -> int:
        return int(self.evm.head.block_number or 0)

    def eth_gasPrice(self) -> int:
        return int(self.evm.head.base_fee_per_gas or 0) + PRIORITY_FEE_WEI

    def eth_maxPriorityFeePerGas(self) -> int:
        return PRIORITY_FEE_WEI

    def eth_feeHistory(self, count: Any, newest: Any, percentiles: Any = None) -> dict[str, Any]:
        last = self._number(newest)
        blocks = max(1, min(parse_quantity(count, "blockCount"), 1024, last + 1))
        headers = [
            self.evm.chain.get_canonical_block_header_by_number(number)
            for number in range(last - blocks + 1, last + 1)
        ]
        fees = [int(header.base_fee_per_gas) for header in headers]
        return {
            "oldestBlock": last - blocks + 1,
            "baseFeePerGas": [*fees, int(self.evm.chain.header.base_fee_per_gas)],
            "gasUsedRatio": _Plain([header.gas_used / header.gas_limit for header in headers]),
            "reward": [[PRIORITY_FEE_WEI for _ in percentiles or []] for _ in headers],
        }

    def eth_getBalance(self, address: Any, block: Any = "latest") -> int:
        return int(self._state(block).get_balance(parse_data(address, "address", 20)))

    def eth_getCode(self, address: Any, block: Any = "latest") -> bytes:
        return bytes(self._state(block).get_code(parse_data(address, "address", 20)))

    def eth_getStorageAt(self, address: Any, slot: Any, block: Any = "latest") -> bytes:
        value = self._state(block).get_storage(
            parse_data(address, "address", 20), parse_quantity(slot, "position")
        )
        return int(value).to_bytes(32, "big")

    def eth_getTransactionCount(self, address: Any, block: Any = "latest") -> int:
        sender = parse_data(address, "address", 20)
        nonce = int(self._state(block).get_nonce(sender))
        while block == "pending" and (sender, nonce) in self.evm.pool:
            nonce += 1
        return nonce

    def eth_getBlockByNumber(self, block: Any, full: bool = False) -> dict[str, Any] | None:
        try:
            return block_view(self.evm, self._number(block), bool(full))
        except BadParams:
            if isinstance(block, str) and block.startswith("0x"):
                return None
            raise

    def eth_getBlockByHash(self, block_hash: Any, full: bool = False) -> dict[str, Any] | None:
        number = self.evm.blocks.get(parse_data(block_hash, "hash", 32))
        return None if number is None else block_view(self.evm, number, bool(full))

    def eth_getTransactionByHash(self, transaction_hash: Any) -> dict[str, Any] | None:
        return transaction_view(self.evm, parse_data(transaction_hash, "hash", 32))

    def eth_getTransactionReceipt(self, transaction_hash: Any) -> dict[str, Any] | None:
        return receipt_view(self.evm, parse_data(transaction_hash, "hash", 32))

    def eth_call(self, call: Any, block: Any = "latest") -> bytes:
        number = None if block in ("latest", "pending") else self._number(block)
        computation = self.evm.execute(_call(call), number)
        _raise_for(computation)
        return bytes(computation.output)

    def eth_estimateGas(self, call: Any, block: Any = "latest") -> int:
        message = _call(call)
        message.setdefault("gas", MAX_TRANSACTION_GAS)
        computation = self.evm.execute(message, None)
        _raise_for(computation)
        payload = message.get("data", b"")
        zeros = payload.count(0)
        tokens = zeros + 4 * (len(payload) - zeros)
        creation = 32_000 + 2 * ((len(payload) + 31) // 32) if "to" not in message else 0
        used = int(computation.get_gas_used())
        # A 64th stays behind at each call, and refunds come too late to pay for what runs before them.
        spare = used // 32 + (5_000 if used else 0)
        needed: int = 21_000 + 4 * tokens + creation + used + spare
        floor: int = 21_000 + 10 * tokens  # EIP-7623
        return max(needed, floor)

    def eth_sendRawTransaction(self, raw: Any) -> bytes:
        transaction = self.evm.decode(parse_data(raw, "transaction"))
        if self.evm.accept(transaction) and self._instant:
            self.evm.mine()
        return bytes(transaction.hash)

    def eth_getLogs(self, wanted: Any) -> list[dict[str, Any]]:
        if not isinstance(wanted, dict):
            raise BadParams("filter: not an object")
        if "blockHash" in wanted:
            number = self.evm.blocks.get(parse_data(wanted["blockHash"], "blockHash", 32))
            if number is None:
                raise BadParams("blockHash: unknown block")
            first = last = number
        else:
            first = self._number(wanted.get("fromBlock") or "latest", ahead=True)
            last = min(self._number(wanted.get("toBlock") or "latest", ahead=True), self.eth_blockNumber())
        if last - first > MAX_LOG_BLOCKS:
            raise BadParams(f"range: {last - first} blocks, at most {MAX_LOG_BLOCKS}")
        match = _matcher(wanted)
        return [log for number in range(first, last + 1) for log in self.evm.logs[number] if match(log)]

    def eth_newFilter(self, wanted: Any) -> int:
        if not isinstance(wanted, dict):
            raise BadParams("filter: not an object")
        _matcher(wanted)
        return self._add_filter({"wanted": wanted, "next": self.eth_blockNumber() + 1})

    def eth_newBlockFilter(self) -> int:
        return self._add_filter({"wanted": None, "next": self.eth_blockNumber() + 1})

    def eth_newPendingTransactionFilter(self) -> int:
        return self._add_filter({"wanted": False, "next": 0})

    def eth_uninstallFilter(self, filter_id: Any) -> bool:
        return self._filters.pop(parse_quantity(filter_id, "filter"), None) is not None

    def eth_getFilterLogs(self, filter_id: Any) -> list[dict[str, Any]]:
        return self.eth_getLogs(self._filter(filter_id)["wanted"])

    def eth_getFilterChanges(self, filter_id: Any) -> list[Any]:
        known = self._filter(filter_id)
        first, last = known["next"], self.eth_blockNumber()
        known["next"] = last + 1
        if known["wanted"] is False:
            return []  # every accepted transaction is mined at once or not announced
        if known["wanted"] is None:
            return [
                bytes(self.evm.chain.get_canonical_block_header_by_number(number).hash)
                for number in range(first, last + 1)
            ]
        match = _matcher(known["wanted"])
        return [log for number in range(first, last + 1) for log in self.evm.logs[number] if match(log)]

    def evm_mine(self, timestamp: Any = None) -> str:
        if timestamp is not None:
            self.evm_setNextBlockTimestamp(timestamp)
        self.evm.mine()
        return "0x0"

    def evm_increaseTime(self, seconds: Any) -> int:
        step = parse_quantity(seconds, "seconds")
        self.evm.clock.jump_to(self.evm.clock.now() + step)
        return step

    def evm_setNextBlockTimestamp(self, timestamp: Any) -> None:
        moment = parse_quantity(timestamp, "timestamp")
        if moment < self.evm.head.timestamp:
            raise BadParams(f"timestamp: {moment} is before the last block's {self.evm.head.timestamp}")
        self.evm.set_next_timestamp(moment)

    def devnet_clock(self) -> Any:
        return _Plain({"chain_time": self.evm.clock.now(), "speed": self.evm.clock.speed})

    def _add_filter(self, entry: dict[str, Any]) -> int:
        if len(self._filters) >= MAX_FILTERS:
            self._filters.pop(next(iter(self._filters)))
        filter_id = max(self._filters, default=0) + 1
        self._filters[filter_id] = entry
        return filter_id

    def _filter(self, filter_id: Any) -> dict[str, Any]:
        known = self._filters.get(parse_quantity(filter_id, "filter"))
        if known is None:
            raise BadParams("filter not found")
        return known

    def _state(self, block: Any) -> Any:
        return self.evm.state_at(self._number(block))

    def _number(self, block: Any, ahead: bool = False) -> int:
        head = self.eth_blockNumber()
        if block in ("latest", "pending", "safe", "finalized", None):
            return head
        if block == "earliest":
            return 0
        if isinstance(block, dict) and "blockHash" in block:
            block = self.evm.blocks.get(parse_data(block["blockHash"], "blockHash", 32), head + 1)
        number = parse_quantity(block, "block")
        if number > head and not ahead:
            raise BadParams(f"block: {number} is beyond the head, {head}")
        return number


class _Plain:
    """A result that is JSON already and must not become hex."""

    def __init__(self, value: Any) -> None:
        self.value = value


def to_json(result: Any) -> Any:
    """A method's result in JSON-RPC's forms."""
    if isinstance(result, _Plain):
        return result.value
    if isinstance(result, dict):
        return {key: to_json(value) for key, value in result.items()}
    return hexjson.encode(result)


def _call(call: Any) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise BadParams("transaction: not an object")
    message: dict[str, Any] = {}
    for name in ("from", "to"):
        if call.get(name):
            message[name] = parse_data(call[name], name, 20)
    payload = call.get("input") or call.get("data")
    if payload:
        message["data"] = parse_data(payload, "data")
    for name in ("value", "gas"):
        if call.get(name) is not None:
            message[name] = parse_quantity(call[name], name)
    message["gas"] = message.get("gas") or BLOCK_GAS_LIMIT
    return message


def _raise_for(computation: Any) -> None:
    if not computation.is_error:
        return
    error = computation.error
    output = bytes(computation.output) if isinstance(error, Revert) else b""
    if not isinstance(error, Revert):
        raise Reverted(b"", f"{type(error).__name__}: {error}")
    reason = "execution reverted"
    if output[:4] == ERROR_SELECTOR:
        try:
            reason += f": {decode(['string'], output[4:])[0]}"
        except Exception:  # whatever a contract returns, it is no error of the node
            reason += ": undecodable reason"
    raise Reverted(output, reason)


def _matcher(wanted: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    addresses = wanted.get("address")
    listed = [addresses] if isinstance(addresses, str) else addresses or []
    allowed = {parse_data(address, "address", 20) for address in listed}
    positions: list[set[bytes] | None] = []
    for topic in wanted.get("topics") or []:
        options = topic if isinstance(topic, list) else [topic]
        any_topic = topic is None or None in options
        positions.append(None if any_topic else {parse_data(option, "topic", 32) for option in options})

    def match(log: dict[str, Any]) -> bool:
        if allowed and log["address"] not in allowed:
            return False
        if len(positions) > len(log["topics"]):
            return False
        return all(
            want is None or topic in want for want, topic in zip(positions, log["topics"], strict=False)
        )

    return match
