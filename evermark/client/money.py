"""Money in and out of an account, and who else may act for it."""

import asyncio

import msgspec

from evermark.client.errors import OutOfRange
from evermark.client.models import AgentReceipt, TransferReceipt, WithdrawReceipt
from evermark.client.session import SignedRequests, given
from evermark.client.signed import parse_address
from evermark.client.units import Human, to_quote_units
from evermark.protocol.orders import ApproveAgent, Transfer, Withdraw
from evermark.protocol.ranges import Beyond
from evermark.protocol.units import MAX_COLLATERAL

WITHDRAW_MAX_FEE = 1_000_000  # one USDC
CREDIT_POLL_S = 0.2


class MoneyVerbs(SignedRequests):
    """Deposits, withdrawals, transfers and agents."""

    async def withdraw(
        self,
        amount: Human | None = None,
        *,
        amount_units: int | None = None,
        max_fee_units: int = WITHDRAW_MAX_FEE,
    ) -> WithdrawReceipt:
        """Withdraw collateral to the owner's address on-chain; only the owner's key may. Raises Refused."""
        units = amount_units if amount_units is not None else to_quote_units(given(amount, "amount"))
        message = Withdraw(
            owner=self.owner,
            sub_account=self.sub_account,
            amount=units,
            max_fee=min(max_fee_units, units),
            action_sequence=(await self.account()).action_sequence + 1,
            deadline=await self._deadline(),
        )
        answer = await self._send("withdraw", "/v1/withdrawals", await self._signed(message), False)
        return msgspec.convert(answer, WithdrawReceipt, strict=False)

    async def transfer(
        self, to_sub_account: int, amount: Human | None = None, *, amount_units: int | None = None
    ) -> TransferReceipt:
        """Move collateral to another sub-account of the owner; 10 USDC or more open it. An agent may, within
        its transfer cap. Raises Refused."""
        units = amount_units if amount_units is not None else to_quote_units(given(amount, "amount"))
        message = Transfer(
            owner=self.owner,
            sub_account=self.sub_account,
            to_sub_account=to_sub_account,
            amount=units,
            action_sequence=(await self.account()).action_sequence + 1,
            deadline=await self._deadline(),
        )
        answer = await self._send("transfer", "/v1/transfers", await self._signed(message), False)
        return msgspec.convert(answer, TransferReceipt, strict=False)

    async def deposit(
        self, amount: Human | None = None, *, amount_units: int | None = None, credit_timeout_s: float = 60.0
    ) -> int:
        """Deposit USDC on-chain and wait until the exchange has credited it; the inbox entry's id.

        Needs `rpc_url` and the owner's raw key. Raises OutOfRange, ChainRefused; TimeoutError when mined and not
        credited in time.
        """
        if self.rpc_url is None or self._private_key is None:
            raise ValueError("a deposit needs rpc_url and a raw private key instead of a Signer")
        from evermark.client.deposits import deposit_on_chain  # web3 takes a second to load

        units = amount_units if amount_units is not None else to_quote_units(given(amount, "amount"))
        if not 0 < units <= MAX_COLLATERAL:
            raise OutOfRange(Beyond("amount", units, 1, MAX_COLLATERAL))
        before = await self.last_deposit()
        info = await self.exchange()
        entry = await deposit_on_chain(self.rpc_url, info, self._private_key, units, self.sub_account)
        async with asyncio.timeout(credit_timeout_s):
            while True:
                if await self.last_deposit() > before:
                    return entry
                await asyncio.sleep(CREDIT_POLL_S)

    async def approve_agent(
        self, agent: bytes | str, expires_in_s: int = 30 * 86_400, transfer_cap_units: int = 0
    ) -> AgentReceipt:
        """Let `agent` trade for this account; only the owner's key may. `expires_in_s` 0 revokes."""
        await self._hear_time()
        message = ApproveAgent(
            owner=self.owner,
            sub_account=self.sub_account,
            agent=parse_address(agent) if isinstance(agent, str) else agent,
            agent_expiry=self.clock.now_s() + expires_in_s if expires_in_s else 0,
            transfer_cap=transfer_cap_units,
            action_sequence=(await self.account()).action_sequence + 1,
            deadline=await self._deadline(),
        )
        answer = await self._send("agent", "/v1/agents", await self._signed(message), False)
        return msgspec.convert(answer, AgentReceipt, strict=False)
