"""revm (Rust, by pyrevm) behind titanoboa in place of py-evm: the same contracts' bytes, some forty times faster.

It says what came of a call: output, revert data, gas, events. It keeps no trace, so coverage needs py-evm, as does the snapshot
of gas, which counts cold words. EVERMARK_EVM=py-evm chooses that one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import boa
from boa.contracts.call_trace import TraceFrame
from boa.environment import Env
from boa.util.abi import Address
from boa.vm.gas_meters import GasMeter
from eth._utils.address import generate_contract_address
from eth.exceptions import Revert, VMError

try:
    import pyrevm
except ImportError:  # no wheel for this Python: py-evm does it too
    pyrevm = None

GAS = 10**9  # of a call that names none
REVERTED = re.compile(r"^Revert \{ gas_used: (\d+), output: 0x([0-9a-f]*) \}$")
FIRST_BLOCK, FIRST_TIME_S = 1, 1_700_000_000
ERROR_STRING = bytes.fromhex("08c379a0")
PASSER, STASH = Address("0x" + "99" * 20), Address("0x" + "98" * 20)
# What stands at a contract's address while the contract is the sender. Called by PASSER: calls the address in the first word with
# the rest of the calldata. By anybody else: runs the contract's code, which lies at STASH. Either way passes on what comes back.
PASSES_ON = bytes.fromhex(
    f"3373{PASSER[2:]}14604357"
    f"365f5f375f5f365f73{STASH[2:]}5af43d5f5f3e6062573d5ffd"
    "5b6020360360205f375f5f602036035f345f355af13d5f5f3e6062573d5ffd"
    "5b3d5ff3"
)


def intrinsic(data: bytes) -> int:
    """Gas of a transaction before its code runs, which titanoboa does not count."""
    zeros = data.count(0)
    return 21_000 + 4 * zeros + 16 * (len(data) - zeros)


class Message:
    """What titanoboa reads of the call that an outcome belongs to."""

    is_create = False

    def __init__(self, to: Address, sender: Address, data: bytes) -> None:
        self.code_address = self.storage_address = to.canonical_address
        self.sender, self.data, self.data_as_bytes = sender.canonical_address, data, data


class Outcome:
    """A call that is over, in the shape of py-evm's computation."""

    _gas_meter_class = GasMeter
    _contract_repr_before_revert = "a contract"
    vyper_source_pos = None  # no trace says where
    children: tuple[Any, ...] = ()
    beneficiaries: tuple[Any, ...] = ()

    def __init__(self, msg: Message, output: bytes, gas_used: int, error: VMError | None, logs: list) -> None:
        self.msg, self.output, self.error = msg, output, error
        self.gas_used, self._log_entries = gas_used, logs
        self.vyper_error_msg = "user revert with reason" if output[:4] == ERROR_STRING and error else None

    @property
    def is_error(self) -> bool:
        return self.error is not None

    def get_gas_used(self) -> int:
        return self.gas_used

    net_gas_used = property(get_gas_used)

    def get_raw_log_entries(self) -> tuple[Any, ...]:
        return tuple(self._log_entries)

    def get_log_entries(self) -> tuple[Any, ...]:
        """(address, topics, data) of each event, in order."""
        return () if self.is_error else tuple(entry[1:] for entry in self._log_entries)

    @property
    def call_trace(self) -> TraceFrame:
        return TraceFrame(self, None, 0, [])


class Patch:
    """Block and chain as calls see them; titanoboa's names."""

    def __init__(self) -> None:
        self.timestamp, self.block_number, self.chain_id = FIRST_TIME_S, FIRST_BLOCK, 1
        self.code_size_limit = 24_576

    @contextlib.contextmanager
    def anchor(self) -> Iterator[None]:
        kept = dict(vars(self))
        try:
            yield
        finally:
            vars(self).update(kept)


class Revm:
    """What titanoboa's Env asks of an EVM. Nonces outlive a revert, so that no address is ever used twice."""

    is_forked = False

    def __init__(self) -> None:
        self.patch = Patch()
        self.nonces: dict[bytes, int] = {}
        self.replaced: list[tuple[Address, bytes]] = []  # code before it was set, which revm does not journal
        self.block = (self.patch.timestamp, self.patch.block_number)
        self.evm, self.chain_id = self._made(), self.patch.chain_id

    def _made(self) -> Any:
        cfg = pyrevm.CfgEnv(chain_id=self.patch.chain_id)
        return pyrevm.EVM(gas_limit=2**63, spec_id="CANCUN", env=pyrevm.Env(cfg=cfg, block=self._block()))

    def _follow_patch(self) -> None:
        """Time and block are set anew where they changed; a chain id is for good once there is a contract."""
        if self.patch.chain_id != self.chain_id:
            assert not self.nonces, "revm keeps the chain id that it began with: this needs py-evm"
            self.evm, self.chain_id = self._made(), self.patch.chain_id
        now = (self.patch.timestamp, self.patch.block_number)
        if now != self.block:
            self.evm.set_block_env(self._block())
            self.block = now

    def _block(self) -> Any:
        return pyrevm.BlockEnv(
            number=self.patch.block_number, timestamp=self.patch.timestamp, gas_limit=2**63, basefee=0
        )

    # ------------------------------------------------------------------------------------------------------------- accounts

    def get_balance(self, address: Address) -> int:
        return self.evm.get_balance(address)

    def set_balance(self, address: Address, value: int) -> None:
        self.evm.set_balance(address, value)

    def get_code(self, address: Address) -> bytes:
        return bytes(self.evm.get_code(address) or b"")

    def set_code(self, address: Address, code: bytes) -> None:
        self.replaced.append((address, self.get_code(address)))
        self._put_code(address, code)

    def _put_code(self, address: Address, code: bytes) -> None:
        balance = self.get_balance(address)
        self.evm.insert_account_info(address, pyrevm.AccountInfo(code=code))
        self.set_balance(address, balance)

    def get_storage(self, address: Address, slot: int) -> int:
        return self.evm.storage(address, slot)

    def get_gas_limit(self) -> int:
        return GAS

    def reset_access_counters(self) -> None:
        """Nothing to do: gas of cold words is not measured here."""

    def get_gas_meter_class(self) -> type:
        return GasMeter

    def snapshot(self) -> Any:
        return self.evm.snapshot(), len(self.replaced)

    def revert(self, snapshot: Any) -> None:
        checkpoint, kept = snapshot
        self.evm.revert(checkpoint)
        while len(self.replaced) > kept:
            self._put_code(*self.replaced.pop())

    def generate_create_address(self, sender: Address) -> Address:
        self._follow_patch()
        nonce = self.nonces.get(sender.canonical_address, 0)
        self.nonces[sender.canonical_address] = nonce + 1
        return Address(generate_contract_address(sender.canonical_address, nonce))

    # ---------------------------------------------------------------------------------------------------------------- calls

    def deploy_code(
        self,
        sender: Address,
        origin: Address,
        target_address: Address,
        gas: int | None,
        gas_price: int,
        value: int,
        bytecode: bytes,
    ) -> Outcome:
        """Runs the constructor at the address that the contract will have, and leaves there what it returns."""
        self.set_code(target_address, bytecode)
        made = self._call(sender, target_address, b"", value, gas or GAS, False)
        self.set_code(target_address, b"" if made.is_error else made.output)
        return made

    def execute_code(
        self,
        sender: Address,
        to: Address,
        gas: int,
        gas_price: int,
        value: int,
        bytecode: bytes,
        data: bytes,
        is_static: bool,
        **ignored: Any,
    ) -> Outcome:
        deployed = self.get_code(to)
        if bytecode == deployed:
            return self._call(sender, to, data, value, gas, is_static)
        self._put_code(to, bytecode)  # titanoboa's `eval` and `internal` bring code of their own
        try:
            return self._call(sender, to, data, value, gas, is_static)
        finally:
            self._put_code(to, deployed)

    def _call(self, sender: Address, to: Address, data: bytes, value: int, gas: int, static: bool) -> Outcome:
        """A transaction is never a contract's (EIP-3607): one that a contract is to call with is passed on by it."""
        code = self.get_code(sender)
        if not code:
            return self._transact(sender, to, data, value, gas, static)
        self._put_code(STASH, code)
        self._put_code(sender, PASSES_ON)
        if value:
            self.set_balance(PASSER, value)
            self.set_balance(sender, self.get_balance(sender) - value)
        try:
            return self._transact(PASSER, sender, bytes(12) + to.canonical_address + data, value, gas, static)
        finally:
            self._put_code(sender, code)

    def _transact(
        self, sender: Address, to: Address, data: bytes, value: int, gas: int, static: bool
    ) -> Outcome:
        self._follow_patch()
        self.evm.reset_transient_storage()
        message = Message(to, sender, data)
        try:
            output = self.evm.message_call(sender, to, data, value, gas + intrinsic(data), 0, static)
        except RuntimeError as failure:
            told = str(failure)
            reverted = REVERTED.match(told)
            output = bytes.fromhex(reverted[2]) if reverted else b""
            error = Revert(output) if reverted else VMError(told)
            used = int(reverted[1]) - intrinsic(data) if reverted else gas
            return Outcome(message, output, used, error, [])
        result = self.evm.result
        return Outcome(message, bytes(output), result.gas_used - intrinsic(data), None, logs_of(result))


def logs_of(result: Any) -> list[tuple[int, bytes, tuple[int, ...], bytes]]:
    """(number, address, topics, data) of each event, as py-evm has them."""
    found = []
    for number, log in enumerate(result.logs):
        topics, data = log.data
        values = tuple(int.from_bytes(topic, "big") for topic in topics)
        found.append((number, bytes.fromhex(log.address[2:]), values, bytes(data)))
    return found


class FastEnv(Env):
    """titanoboa's environment over revm."""

    def __init__(self) -> None:
        super().__init__()
        self.evm = Revm()


def is_wanted() -> bool:
    """Unless the environment says py-evm, or coverage wants traces."""
    return (
        pyrevm is not None and os.environ.get("EVERMARK_EVM", "revm") == "revm" and not Env._coverage_enabled
    )


def fresh() -> Env:
    """An empty chain."""
    return FastEnv() if is_wanted() else Env()


def use() -> None:
    """Makes revm the EVM of this process, once, before anything is deployed."""
    if is_wanted() and not isinstance(boa.env, FastEnv):
        boa.set_env(FastEnv())
