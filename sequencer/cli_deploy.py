"""The deploy command: the contracts of a new rollup on an L1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import trio
import typer

from sequencer.cli_keys import unlock
from sequencer.cli_money import needed_l1
from sequencer.cli_options import AsJson, KeyPath, L1Url, PasswordFile
from sequencer.cli_output import note, print_fields, print_json
from sequencer.cli_support import CliError, exits_cleanly
from sequencer.cli_units import address, dollars, duration, or_default

if TYPE_CHECKING:
    from l1_bridge.deploy import DeployConfig, Deployment
    from sequencer.signing import SecretKey

DAY_S = 86_400
LARGEST_CAP_UUSD = 4 * 10**18
_seconds = or_default(duration)


def _duration_option(name: str, shown: str, text: str) -> Any:
    return typer.Option(name, parser=_seconds, metavar="DURATION", show_default=shown, help=text)


def _role_option(name: str, text: str) -> Any:
    return typer.Option(name, parser=address, metavar="ADDRESS", help=f"{text} On a devnet, default: you.")


@dataclass(frozen=True, slots=True)
class Roles:
    """Who may do what; None was not named."""

    governor: bytes | None
    poster: bytes | None
    guardian: bytes | None


@exits_cleanly
def deploy(
    l1: L1Url = None,
    token: Annotated[
        bytes | None,
        typer.Option(
            "--token",
            parser=address,
            metavar="ADDRESS",
            help="The collateral, an ERC-20 with 6 decimals. On a devnet, default: a worthless test token.",
        ),
    ] = None,
    governor: Annotated[bytes | None, _role_option("--governor", "Lists instruments, sets roles.")] = None,
    poster: Annotated[bytes | None, _role_option("--poster", "Posts batches: the node's key.")] = None,
    guardian: Annotated[
        bytes | None, _role_option("--guardian", "May revert batches that are not final.")
    ] = None,
    chain_id: Annotated[
        int,
        typer.Option("--chain-id", min=1, max=2**63 - 1, help="The rollup's own; part of what wallets sign."),
    ] = 424_242,
    challenge_window: Annotated[
        int, _duration_option("--challenge-window", "7d", "From posting until a batch is final.")
    ] = 7 * DAY_S,
    forced_delay: Annotated[
        int, _duration_option("--forced-delay", "1d", "A message may stay unread for this long.")
    ] = DAY_S,
    escape_delay: Annotated[
        int, _duration_option("--escape-delay", "14d", "The operator may be silent for this long.")
    ] = 14 * DAY_S,
    clock_drift: Annotated[
        int, _duration_option("--clock-drift", "60s", "The rollup's clock may be ahead by this.")
    ] = 60,
    minimum_deposit: Annotated[
        int,
        typer.Option("--minimum-deposit", parser=or_default(dollars), metavar="DOLLARS", show_default="1.00"),
    ] = 1_000_000,
    deposit_cap: Annotated[
        int | None,
        typer.Option(
            "--deposit-cap",
            parser=dollars,
            metavar="DOLLARS",
            help="Most the vault may hold. Default: no cap.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="Where the deployment is saved.")] = Path(
        "deployment.json"
    ),
    key: KeyPath = None,
    password_file: PasswordFile = None,
    as_json: AsJson = False,
) -> None:
    """Deploy Rollup, Vault and Inbox, and save where they are.

    Off devnets the token and all three roles must be named, and well-known development keys are refused.
    """
    if out.exists():
        raise CliError(f"--out: {out} exists already; nothing was deployed")
    if escape_delay <= forced_delay or escape_delay < challenge_window:
        raise typer.BadParameter(
            "must be longer than --forced-delay and not shorter than --challenge-window",
            param_hint="--escape-delay",
        )
    from l1_bridge.deploy import DeployConfig
    from state.genesis import GENESIS_ROOT

    url, roles = needed_l1(l1), Roles(governor, poster, guardian)

    def config(own: bytes) -> DeployConfig:
        return DeployConfig(
            rollup_chain_id=chain_id,
            genesis_root=GENESIS_ROOT,
            governor=roles.governor or own,
            poster=roles.poster or own,
            guardian=roles.guardian or own,
            token=token,
            challenge_window_s=challenge_window,
            forced_delay_s=forced_delay,
            escape_delay_s=escape_delay,
            clock_drift_s=clock_drift,
            minimum_deposit_uusd=minimum_deposit,
            deposit_cap_uusd=deposit_cap or LARGEST_CAP_UUSD,
        )

    signing_key = unlock(key, password_file)
    found = trio.run(_deploy, url, signing_key, roles, config(signing_key.address))
    found.save(out)
    if as_json:
        print_json(found)
        return
    print_fields(
        f"deployed; saved in {out}",
        [
            ("rollup", f"{found.rollup_chain_id} at {found.rollup}"),
            ("inbox", found.inbox),
            ("vault", found.vault),
            ("token", found.token),
            ("L1", f"chain {found.l1_chain_id}, block {found.deploy_block}"),
            ("genesis root", found.genesis_root),
        ],
    )


async def _deploy(url: str, key: SecretKey, roles: Roles, config: DeployConfig) -> Deployment:
    from l1_bridge import deploy as contracts
    from l1_bridge.keys import DEVNET_CHAIN_IDS
    from sequencer.cli_l1 import open_client, sender_for

    async with open_client(url) as client:
        chain_id = await client.chain_id()
        if chain_id not in DEVNET_CHAIN_IDS:
            check_real_chain(chain_id, roles, config.token)
        sender = await sender_for(client, key)
        note(
            f"deploying to L1 chain {chain_id} as 0x{key.address.hex()}\n"
            f"  governor 0x{config.governor.hex()}\n  poster   0x{config.poster.hex()}\n"
            f"  guardian 0x{config.guardian.hex()}"
        )
        return await contracts.deploy(sender, config)


def check_real_chain(chain_id: int, roles: Roles, token: bytes | None) -> None:
    """Raises BadParameter or KeyRefused for what only a devnet may have."""
    from l1_bridge.keys import DEVNET_KEYS, KeyRefused
    from state.signatures import address_of

    known = {address_of(secret) for secret in DEVNET_KEYS}
    named = {
        "--token": token,
        "--governor": roles.governor,
        "--poster": roles.poster,
        "--guardian": roles.guardian,
    }
    for option, given in named.items():
        if given is None:
            raise typer.BadParameter(f"chain {chain_id} is not a devnet: name it", param_hint=option)
        if given in known:
            raise KeyRefused(
                f"{option}: 0x{given.hex()} is a well-known development key; chain {chain_id} is not a devnet"
            )
