"""Blocks, transactions and receipts in the shapes that wallets and web3.py read."""

from typing import Any

import rlp

from evermark.devnet.evm import Evm

EMPTY_UNCLES = bytes.fromhex("1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347")


def block_view(evm: Evm, number: int, full: bool) -> dict[str, Any]:
    """eth_getBlockByNumber's answer; `full` lists whole transactions instead of hashes."""
    block = evm.chain.get_canonical_block_by_number(number)
    header = block.header
    hashes = [transaction.hash for transaction in block.transactions]
    return {
        "number": header.block_number,
        "hash": header.hash,
        "parentHash": header.parent_hash,
        "nonce": header.nonce,
        "sha3Uncles": EMPTY_UNCLES,
        "logsBloom": header.bloom.to_bytes(256, "big"),
        "transactionsRoot": header.transaction_root,
        "stateRoot": header.state_root,
        "receiptsRoot": header.receipt_root,
        "miner": header.coinbase,
        "difficulty": header.difficulty,
        "totalDifficulty": 0,
        "extraData": header.extra_data,
        "size": len(rlp.encode(block)),
        "gasLimit": header.gas_limit,
        "gasUsed": header.gas_used,
        "timestamp": header.timestamp,
        "mixHash": header.mix_hash,
        "baseFeePerGas": header.base_fee_per_gas,
        "uncles": [],
        "transactions": [transaction_view(evm, item) for item in hashes] if full else hashes,
    }


def transaction_view(evm: Evm, transaction_hash: bytes) -> dict[str, Any] | None:
    """eth_getTransactionByHash's answer, None for an unknown transaction; one that waits has no block."""
    known = evm.transactions.get(transaction_hash) or _waiting(evm, transaction_hash)
    if known is None:
        return None
    transaction = known["transaction"]
    view = {
        "blockHash": known["blockHash"],
        "blockNumber": known["blockNumber"],
        "transactionIndex": known["transactionIndex"],
        "hash": transaction.hash,
        "from": transaction.sender,
        "to": transaction.to or None,
        "nonce": transaction.nonce,
        "value": transaction.value,
        "gas": transaction.gas,
        "input": transaction.data,
        "type": transaction_type(transaction),
        "chainId": transaction.chain_id,
        "v": transaction.y_parity,
        "r": transaction.r,
        "s": transaction.s,
        "gasPrice": effective_gas_price(known),
    }
    if transaction_type(transaction) >= 2:
        view["maxFeePerGas"] = transaction.max_fee_per_gas
        view["maxPriorityFeePerGas"] = transaction.max_priority_fee_per_gas
        view["accessList"] = []
    return view


def receipt_view(evm: Evm, transaction_hash: bytes) -> dict[str, Any] | None:
    """eth_getTransactionReceipt's answer, None while not mined."""
    known = evm.receipts.get(transaction_hash)
    if known is None:
        return None
    transaction = known["transaction"]
    return {
        "transactionHash": transaction.hash,
        "transactionIndex": known["transactionIndex"],
        "blockHash": known["blockHash"],
        "blockNumber": known["blockNumber"],
        "from": transaction.sender,
        "to": transaction.to or None,
        "cumulativeGasUsed": known["cumulativeGasUsed"],
        "gasUsed": known["gasUsed"],
        "contractAddress": known["contract"],
        "logs": known["logs"],
        "logsBloom": known["bloom"].to_bytes(256, "big"),
        "type": transaction_type(transaction),
        "status": known["status"],
        "effectiveGasPrice": effective_gas_price(known),
        **({} if known["revertReason"] is None else {"revertReason": known["revertReason"]}),
    }


def transaction_type(transaction: Any) -> int:
    """0 for legacy, else the EIP-2718 type."""
    return int(getattr(transaction, "type_id", None) or 0)


def effective_gas_price(known: dict[str, Any]) -> int:
    """What the sender paid, or at most pays, per unit of gas."""
    transaction = known["transaction"]
    if transaction_type(transaction) < 2:
        return int(transaction.gas_price)
    if known["baseFee"] is None:
        return int(transaction.max_fee_per_gas)
    return int(min(transaction.max_fee_per_gas, known["baseFee"] + transaction.max_priority_fee_per_gas))


def _waiting(evm: Evm, transaction_hash: bytes) -> dict[str, Any] | None:
    """A transaction of the pool in the form of a mined one."""
    for transaction in list(evm.pool.values()):
        if transaction.hash == transaction_hash:
            return {
                "transaction": transaction,
                "blockHash": None,
                "blockNumber": None,
                "transactionIndex": None,
                "baseFee": None,
            }
    return None
