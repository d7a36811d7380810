"""The contracts of one exchange on titanoboa, as the agreement tests settle on them."""

import boa

from tests.agreement.inbox_calls import hex_address
from tests.compiled_contracts import deployer
from tests.contracts.vault.lens_views import with_views

ROUND_SECONDS = 5
CHAIN_ID = 31337


class Contracts:
    """For `Exchange`, which has markets, keepers, sequencer, governor, guardian and a clock when it deploys."""

    @staticmethod
    def _raw(contract) -> bytes:
        return bytes.fromhex(str(contract.address)[2:])

    def _uptime_feed(self) -> str:
        """Of a chain that says when it was down; nobody, unless a test has one."""
        return "0x" + "00" * 20

    def _deploy(self) -> None:
        """Token, oracle, vault and all that it names; vault, exit and inbox know each other's addresses beforehand."""
        env = boa.env
        env.evm.patch.chain_id = CHAIN_ID
        env.evm.patch.timestamp = self.now
        keepers = [hex_address(key.address) for key in self.keepers]
        sequencer = hex_address(self.sequencer.address)
        self.token = deployer("TestUSDC").deploy()
        jumps = [market.jump_ppm_per_s for market in self.markets]
        governor = env.generate_address("governor")
        roles = (keepers, 3, keepers, sequencer, governor, self._uptime_feed())
        self.oracle = deployer("PriceOracle").deploy(ROUND_SECONDS, 3, jumps, *roles)
        helpers = [
            deployer(name).deploy().address
            for name in ("Clerk", "Backstop", "Reasons", "OrderVerifier", "Lens")
        ]
        vault = env.generate_address("vault")
        helpers.append(deployer("Exit").deploy(vault).address)
        names = (vault, helpers[-1], governor)
        self.inbox = deployer("Inbox").deploy(self.token.address, *names, 0)
        configs = [
            (
                market.symbol,
                market.lot_tick_value,
                market.price_band_ppm,
                market.liquidation_fee_ppm,
                market.max_price_age_s,
                market.open_interest_cap_lots,
                market.fund_position_cap_lots,
                [(tier.lower_notional // 10**6, tier.initial_fraction_ppm) for tier in market.tiers],
            )
            for market in self.markets
        ]
        vault_arguments = (self.token.address, self.oracle.address, self.inbox.address, *helpers, sequencer)
        made = deployer("MarginVault").deploy(*vault_arguments, configs, override_address=vault)
        self.vault = with_views(made)
        contracts = [contract.address for contract in (self.vault, self.inbox, self.oracle)]
        keys = [hex_address(key.address) for key in (self.proposer, self.guardian)]
        self.governance = deployer("Governor").deploy(*contracts, *keys, override_address=governor)
