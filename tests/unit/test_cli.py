"""The command line without a node: every command's help, and what wrong values are answered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from sequencer import cli_units
from sequencer.cli import app
from sequencer.cli_output import print_table
from sequencer.cli_proof import check_proof
from sequencer.cli_support import TRADER_VARIABLES, CliError, exits_cleanly, explain_node_error
from sequencer.cli_trader import print_receipt
from sequencer.client import NodeError, NodeUnreachable
from state.keys import account_key
from state.proofs import EMPTY_ROOT, NO_PATH, AbsenceProof, MembershipProof, ProofError, leaf_hash
from state.signatures import address_of

COMMANDS = (
    "init",
    "node",
    "verifier",
    "deploy",
    "keys new",
    "keys show",
    "deposit",
    "withdraw",
    "oracle",
    "order",
    "cancel",
    "account",
    "history",
    "markets",
    "book",
    "fees",
    "status",
    "receipt",
    "proof",
)
SECRET = "4c" * 32
NOWHERE = "http://127.0.0.1:1"


def run(*arguments: str, text: str | None = None, **environment: str) -> Result:
    env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("STRADDLE_")}
    env |= {"STRADDLE_NODE": NOWHERE, "STRADDLE_L1_URL": NOWHERE, "COLUMNS": "300", **environment}
    return CliRunner().invoke(app, list(arguments), env=env, input=text)


def refused(*arguments: str, text: str | None = None, **environment: str) -> str:
    """What a command says that must end with status 1."""
    result = run(*arguments, text=text, **environment)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    return result.stderr


def misused(*arguments: str, **environment: str) -> str:
    """What a command says that must end with status 2: wrong usage."""
    result = run(*arguments, **environment)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())


# help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    assert f"Example: straddle {command}" in result.stdout


def test_the_list_of_commands_is_complete() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"^│ {command.split()[0]} ", result.stdout, re.MULTILINE), command


def test_reading_commands_load_neither_l1_nor_keystore_libraries() -> None:
    """They take seconds to import; a trader who sends an order should not wait for them."""
    code = "import sys, sequencer.cli; print([m for m in ('web3', 'eth_account') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# units


@given(st.integers(1, 10**17))
def test_dollars_come_back_exactly(uusd: int) -> None:
    shown = cli_units.show_dollars(uusd)
    assert cli_units.dollars(shown.removeprefix("$").replace(",", "")) == uusd


@given(st.integers(1, 10**15))
def test_coins_come_back_exactly(ulots: int) -> None:
    assert cli_units.coins(cli_units.plain(ulots).replace(",", "")) == ulots


@pytest.mark.parametrize(
    ("text", "uusd"),
    [("1", 1_000_000), ("0.000001", 1), ("1250.50", 1_250_500_000), ("1.5000000", 1_500_000)],
)
def test_dollars(text: str, uusd: int) -> None:
    assert cli_units.dollars(text) == uusd


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1e3",
        "0",
        "0.0000001",
        "1.0000001",
        "nan",
        "1,000",
        "$1",
        "1.",
        ".5",
        "100000000001",
        "１",
    ],
)
def test_amounts_that_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        cli_units.dollars(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("8h", 28_800), ("7d", 604_800)]
)
def test_durations(text: str, seconds: int) -> None:
    assert cli_units.duration(text) == seconds


@pytest.mark.parametrize("text", ["0", "0s", "-1s", "1w", "1.5h", "soon", ""])
def test_durations_that_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        cli_units.duration(text)


def test_moments() -> None:
    assert cli_units.moment("2999-01-01T00:00:00+00:00") == 32_472_144_000
    for text in ("2999-01-01T00:00:00", "2020-01-01T00:00:00+00:00", "tomorrow"):
        with pytest.raises(typer.BadParameter):
            cli_units.moment(text)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("cash_uusd", -1_500_000, "-$1.50"),
        ("size_ulots", -250_000, "-0.25"),
        ("band_ppm", 100_000, "10 %"),
        ("number", 7, "7"),
        ("reduce_only", True, "True"),
    ],
)
def test_fields_are_shown_in_the_unit_of_their_name(name: str, value: Any, shown: str) -> None:
    assert cli_units.show_field(name, value) == shown


# wrong usage: status 2, and the option is named

ORDER = ("order", "buy", "1", "BTC-PERPETUAL")
HASH = "0x" + "11" * 32


@pytest.mark.parametrize(
    ("arguments", "named", "says"),
    [
        (("init", "king"), "ROLE", "not a role"),
        (("order", "hold", "1", "X", "--price", "1"), "side", "'buy', 'sell'"),
        (("order", "buy", "1.0000001", "X", "--price", "1"), "SIZE", "more than 6 decimal places"),
        (("order", "buy", "0", "X", "--price", "1"), "SIZE", "outside"),
        ((*ORDER, "--price", "1e5"), "--price", "not a price"),
        (ORDER, "--price", "name one"),
        ((*ORDER, "--market"), "--market", "needs --protect"),
        ((*ORDER, "--market", "--protect", "5", "--price", "5"), "--price", "--protect instead"),
        ((*ORDER, "--price", "5", "--protect", "5"), "--protect", "only a --market"),
        ((*ORDER, "--price", "5", "--ioc", "--fok"), "--ioc and --fok", "choose one"),
        ((*ORDER, "--price", "5", "--ioc", "--expires", "1h"), "--expires", "never rests"),
        ((*ORDER, "--price", "5", "--expires", "yesterday"), "--expires", "not a time"),
        ((*ORDER, "--price", "5", "--deadline", "never"), "--deadline", "not a duration"),
        ((*ORDER, "--price", "5", "--nonce", "-1"), "--nonce", ""),
        ((*ORDER, "--price", "5", "--account", "0"), "--account", ""),
        ((*ORDER, "--price", "5", "--node", "localhost:8645"), "--node", "http://host:port"),
        ((*ORDER, "--price", "5", "--rollup", "0x12"), "--rollup", "not an address"),
        ((*ORDER, "--price", "5", "--bid", "1e3"), "--bid", "not an amount"),
        (("fees", "--watch", "--tiers"), "--watch", "do not change"),
        (("fees", "--account", "1"), "--account", "only --tiers"),
        (("cancel",), "ORDER_ID INSTRUMENT", "--all"),
        (("cancel", "x", "BTC-PERPETUAL"), "ORDER_ID INSTRUMENT", "order's number"),
        (("cancel", "--all", "1", "BTC-PERPETUAL"), "--all", "one instrument"),
        (("account", "1", "--owner", "0x" + "11" * 20), "--owner", "enough"),
        (("account", "-1"), "", ""),
        (("book", "X", "--depth", "0"), "--depth", ""),
        (("receipt", "0x12"), "HASH", "64 hexadecimal"),
        (("proof",), "KEY", "name one leaf"),
        (("proof", "--account", "1", "--system"), "KEY", "name one leaf"),
        (("proof", "--system", "--at", "earliest"), "--at", "neither"),
        (("proof", "--account", str(2**64)), "--account", "larger"),
        (("deposit", "0.0000001"), "DOLLARS", "decimal places"),
        (("deposit", "1", "--l1", "ws://x"), "--l1", "http"),
        (("withdraw",), "DOLLARS", "--number"),
        (("withdraw", "5", "--number", "1"), "DOLLARS", "--number"),
        (("withdraw", "--number", "1", "--to", "0x" + "11" * 20), "--to", "not begun"),
        (("withdraw", "--number", "1", "--begin-only"), "--begin-only", "not begun"),
        (("withdraw", "--number", "1", "--data-dir", "x"), "--data-dir", "--rollup"),
        (("withdraw", "5", "--data-dir", "x"), "--data-dir", "--number"),
        (("deploy", "--escape-delay", "1h"), "--escape-delay", "longer"),
        (("deploy", "--governor", "me"), "--governor", "not an address"),
    ],
)
def test_wrong_usage_names_the_option(arguments: tuple[str, ...], named: str, says: str) -> None:
    said = misused(*arguments)
    assert named in said
    assert says in said


def test_an_l1_must_be_named() -> None:
    said = misused("deposit", "1", STRADDLE_L1_URL="")
    assert "--l1" in said
    assert "STRADDLE_L1_URL" in said


# nobody there: status 1, one or two lines, no traceback


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("markets",),
        ("book", "BTC-PERPETUAL"),
        ("receipt", HASH),
        ("account", "1"),
        ("proof", "--system"),
        (*ORDER, "--price", "1"),
        ("cancel", "--all"),
        ("withdraw", "1", "--begin-only"),
        ("deposit", "1"),
    ],
)
def test_no_node(arguments: tuple[str, ...]) -> None:
    said = refused(*arguments, STRADDLE_PRIVATE_KEY=SECRET)
    assert said.startswith("straddle: the node does not answer: 127.0.0.1:1")
    assert "STRADDLE_NODE" in said
    assert len(said.splitlines()) == 2


# keys


def test_a_new_key_is_private_and_shows_its_address(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    made = run("keys", "new", str(path), text="secret words\nsecret words\n")
    assert made.exit_code == 0, made.output
    assert "secret words" not in made.output
    address = made.stdout.splitlines()[-1]
    assert path.stat().st_mode & 0o777 == 0o600
    assert run("keys", "show", str(path)).stdout.strip() == address
    before = path.read_bytes()
    assert "exists already" in refused("keys", "new", str(path), STRADDLE_PASSWORD="other")
    assert path.read_bytes() == before
    assert "wrong password" in refused_unlock(path, "secret word")
    assert "another key than the address" in refused_unlock(swapped(path), "secret words")


def refused_unlock(path: Path, password: str) -> str:
    """Unlocks without a node: the error must come before one is needed, so `unlock` is called directly."""
    from sequencer.cli_keys import unlock

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRADDLE_PASSWORD", password)
        with pytest.raises(CliError) as caught:
            unlock(path, None)
    assert password not in str(caught.value)
    return str(caught.value)


def swapped(path: Path) -> Path:
    """The keystore with another address written into it."""
    keystore = json.loads(path.read_text()) | {"address": "11" * 20}
    other = path.with_name("swapped.json")
    other.write_text(json.dumps(keystore))
    return other


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        ("{", "not a keystore"),
        ("[]", "not a keystore"),
        ('{"address": "12"}', "not a keystore"),
    ],
)
def test_files_that_are_no_keystores(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    assert says in refused("keys", "show", str(path))


@pytest.mark.parametrize("text", ["a\nb\n", "\n\n"])
def test_a_password_must_be_typed_twice_and_not_be_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key.json"
    assert run("keys", "new", str(path), text=text).exit_code == 1
    assert not path.exists()


def test_password_files(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    assert "--password-file" in refused("keys", "new", str(tmp_path / "k"), "--password-file", str(missing))
    missing.write_text("\n")
    assert "empty" in refused("keys", "new", str(tmp_path / "k"), "--password-file", str(missing))


def test_no_key_and_bad_keys() -> None:
    assert "no key" in refused("account")
    bad = "zz" + SECRET[2:]
    said = refused("account", STRADDLE_PRIVATE_KEY=bad)
    assert "not 32 bytes of hex" in said
    assert bad not in said
    assert "0x" + address_of(bytes.fromhex(SECRET)).hex() not in said


# errors and output


def test_a_nodes_error_is_shown_with_code_and_figures_in_human_units() -> None:
    data = {"code": "INSUFFICIENT_MARGIN", "needed_uusd": 6_000_000_000, "available_uusd": 12_500_000}
    said = explain_node_error("insufficient margin", -32043, data)
    assert said == "insufficient margin (INSUFFICIENT_MARGIN)\n  needed $6,000.00, available $12.50"
    assert explain_node_error("odd", -7, None) == "odd (-7)"
    assert "\x1b" not in explain_node_error("\x1b[2J", -7, {"code": "X", "field": "\x1b[0m"})


@pytest.mark.parametrize(
    "error", [CliError("why"), NodeError(-1, "why"), NodeUnreachable("why"), OSError("why")]
)
def test_errors_that_a_user_can_act_on_become_one_message(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    @exits_cleanly
    def command() -> None:
        raise ExceptionGroup("nursery", [error])

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err.startswith("straddle: ")


@pytest.mark.parametrize("nested", [False, True])
def test_an_interrupt_is_no_error(nested: bool, capsys: pytest.CaptureFixture[str]) -> None:
    @exits_cleanly
    def command() -> None:
        raise BaseExceptionGroup("nursery", [KeyboardInterrupt()]) if nested else KeyboardInterrupt

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == ""


def test_bugs_are_not_hidden() -> None:
    @exits_cleanly
    def command() -> None:
        raise ExceptionGroup("nursery", [CliError("why"), ZeroDivisionError()])

    with pytest.raises(ExceptionGroup):
        command()


def test_a_piped_table_is_plain_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title", ["name", "size"], [["BTC", "1.5"], ["\x1b[31m[red]", "20"]])
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "title",
        "name        size",
        "BTC          1.5",
        "\N{REPLACEMENT CHARACTER}[31m[red]    20",
    ]


def test_the_first_orders_number_is_zero_and_only_a_sweep_says_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    operation = {
        "code": "OK",
        "order_id": 0,
        "end": "cancelled",
        "filled_ulots": 0,
        "resting_ulots": 0,
        "cancelled_ulots": 250_000,
    }
    receipt = {
        "hash": HASH,
        "status": "executed",
        "stage": "sealed",
        "block_number": 1,
        "index": 0,
        "batch": 1,
        "timestamp_ms": 0,
        "fee": {"inclusion_uusd": 1, "trading_uusd": 0},
        "withdrawal": None,
        "operations": [operation],
        "fills": [],
    }
    for sweep, number in ((False, "0"), (True, "all")):
        print_receipt(receipt, sweep)
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.split() == [number, "cancelled", "0", "0", "0.25"]


# proofs


def node_answer(root: bytes, proof: MembershipProof | AbsenceProof) -> dict[str, Any]:
    present = isinstance(proof, MembershipProof)
    return {"root": "0x" + root.hex(), "present": present, "encoded": "0x" + proof.encode().hex()}


def test_proofs_are_checked_and_not_believed() -> None:
    key, value = account_key(1), b"money"
    root = leaf_hash(key, value)
    assert check_proof(node_answer(root, MembershipProof(key, value, NO_PATH)), key) == value
    assert check_proof(node_answer(EMPTY_ROOT, AbsenceProof(key, None, NO_PATH)), key) is None
    for lie in (
        node_answer(root, MembershipProof(key, b"more money", NO_PATH)),
        node_answer(root, AbsenceProof(key, None, NO_PATH)),
        node_answer(root, MembershipProof(account_key(2), value, NO_PATH)),
        node_answer(root, MembershipProof(key, value, NO_PATH)) | {"encoded": "0x00"},
    ):
        with pytest.raises(ProofError):
            check_proof(lie, key)


# services


def test_a_traders_variables_do_not_stop_a_service(tmp_path: Path) -> None:
    """A node refuses unknown STRADDLE_ variables; those of the trader's commands it must not see."""
    environment = dict.fromkeys(TRADER_VARIABLES, "x")
    said = refused("verifier", "--config", str(tmp_path / "none.toml"), **environment)
    assert "none.toml" in said
    assert "unknown environment variable" not in said
