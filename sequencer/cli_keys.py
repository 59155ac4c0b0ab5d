"""Keys on the command line: making keystores, showing addresses, unlocking a key to sign with.

A secret comes from an encrypted keystore or from the environment, never from an argument, and is never
printed; nor is a password.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sequencer.cli_options import AsJson, PasswordFile
from sequencer.cli_output import note, print_json
from sequencer.cli_support import CliError, exits_cleanly

if TYPE_CHECKING:
    from sequencer.signing import SecretKey

keys_app = typer.Typer(no_args_is_help=True, help="Make a key, or show the address of one.")
KeystorePath = Annotated[Path, typer.Argument(metavar="PATH", help="The keystore file.")]


@keys_app.command(epilog="Example: straddle keys new trader.json")
@exits_cleanly
def new(path: KeystorePath, password_file: PasswordFile = None, as_json: AsJson = False) -> None:
    """Make a key in an encrypted keystore that only you can read, and print its address.

    Keep the file and the password apart, and a copy of both: nobody can bring back either.
    """
    if path.exists():
        raise CliError(f"{path} exists already; it was left as it is")
    password = _password(password_file, confirm=True)
    from l1_bridge.keys import write_keystore

    address = "0x" + write_keystore(path, secrets.token_bytes(32), password).hex()
    if as_json:
        print_json({"address": address, "path": str(path)})
        return
    note(f"wrote {path}")
    typer.echo(address)


@keys_app.command(epilog="Example: straddle keys show trader.json")
@exits_cleanly
def show(path: KeystorePath, as_json: AsJson = False) -> None:
    """Print the address of a keystore; its password is not needed."""
    address = "0x" + keystore_address(path).hex()
    if as_json:
        print_json({"address": address, "path": str(path)})
    else:
        typer.echo(address)


def keystore_address(path: Path) -> bytes:
    """The address that a keystore file names. Raises CliError."""
    try:
        found = json.loads(path.read_text("utf-8"))["address"]
        address = bytes.fromhex(str(found).removeprefix("0x"))
    except OSError as error:
        raise CliError(f"keystore {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise CliError(f"keystore {path}: not a keystore with an address") from None
    if len(address) != 20:
        raise CliError(f"keystore {path}: not a keystore with an address")
    return address


def own_address(key: Path | None) -> bytes:
    """The address of the key that `unlock` would give, without its password. Raises CliError."""
    if key is not None:
        return keystore_address(key)
    return _environment_key().address


def unlock(key: Path | None, password_file: Path | None) -> SecretKey:
    """The key to sign with. Asks for the password if nothing else tells it. Raises CliError."""
    if key is None:
        return _environment_key()
    expected = keystore_address(key)
    password = _password(password_file, confirm=False)
    from eth_account import Account

    from sequencer.signing import SecretKey

    try:
        found = SecretKey(bytes(Account.decrypt(json.loads(key.read_text("utf-8")), password)))
    except (ValueError, TypeError, KeyError, AssertionError):
        raise CliError(f"keystore {key}: wrong password, or not a keystore") from None
    if found.address != expected:
        raise CliError(f"keystore {key}: it holds another key than the address in it says")
    return found


def _environment_key() -> SecretKey:
    text = os.environ.get("STRADDLE_PRIVATE_KEY", "").removeprefix("0x")
    if not text:
        raise CliError("no key: name a keystore with --key or STRADDLE_KEY, or set STRADDLE_PRIVATE_KEY")
    from sequencer.signing import SecretKey

    try:
        return SecretKey(bytes.fromhex(text))
    except ValueError:
        raise CliError("STRADDLE_PRIVATE_KEY: not 32 bytes of hex that make a key") from None


def _password(file: Path | None, confirm: bool) -> str:
    if file is not None:
        try:
            password = file.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise CliError(f"--password-file: {file}: {reason}") from None
    elif "STRADDLE_PASSWORD" in os.environ:
        password = os.environ["STRADDLE_PASSWORD"]
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
    if not password:
        raise CliError("the password is empty")
    return password
