"""Configuration files from definitions: one TOML file per role, environment on top, nothing unknown.

A role's configuration is a frozen dataclass of frozen dataclasses: one TOML table for each field, one key for
each field below. Those definitions are the only source: defaults, types, the commented default file
(`default_text`, from the attribute docstrings) and the environment variables (`STRADDLE_<SECTION>_<KEY>`)
all come from them. `__post_init__` of a section checks its values and raises ValueError; that of the role
checks relations between sections. `load` turns everything that is wrong into one ConfigError.

Secrets (`Secret`) may come from the environment only, never from a file that gets copied around, and never
show in a repr.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

ENVIRONMENT_PREFIX = "STRADDLE_"

Role = TypeVar("Role")


class ConfigError(Exception):
    """What is wrong with the configuration, one line for each problem."""


class Secret:
    """A value that is shown to nobody by accident; `reveal` returns it."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)" if self._value else "Secret()"


NO_SECRET = Secret()


def load(role: type[Role], path: Path | None, environment: Mapping[str, str]) -> Role:
    """The role's configuration: defaults, then the file, then the environment.

    Raises ConfigError for a file that cannot be read, unknown tables, keys or variables (with the nearest
    known name), values of the wrong type, and limits that contradict each other.
    """
    problems: list[str] = []
    tables = _read_toml(path) if path else {}
    sections = get_type_hints(role)
    for name in tables:
        if name not in sections:
            problems.append(f"unknown table [{name}]{_suggestion(name, sections)}")
        elif not isinstance(tables[name], dict):
            problems.append(f"{name}: expected a table [{name}]")
    values = _environment_values(sections, environment, problems)
    made: dict[str, Any] = {}
    for name, section in sections.items():
        table = tables.get(name)
        made[name] = _section(name, section, table if isinstance(table, dict) else {}, values[name], problems)
    if problems:
        raise ConfigError("\n".join(problems))
    try:
        return role(**made)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def default_text(role: type[Any]) -> str:
    """The default configuration as a TOML file with every key, its default and what it means."""
    lines = [f"# {line}" for line in _paragraph(role.__doc__)]
    lines.append("# Every key may be overridden by the environment variable STRADDLE_<TABLE>_<KEY>.")
    for name, section in get_type_hints(role).items():
        documents = _field_docs(section)
        lines += ["", *(f"# {line}" for line in _paragraph(section.__doc__)), f"[{name}]"]
        for field in dataclasses.fields(section):
            lines += [f"# {line}" for line in _paragraph(documents.get(field.name))]
            default = field.default
            if isinstance(default, Secret):
                lines.append(f"# (environment only: {ENVIRONMENT_PREFIX}{name.upper()}_{field.name.upper()})")
            else:
                lines.append(f"{field.name} = {_toml(default)}")
    return "\n".join(lines) + "\n"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _environment_values(
    sections: Mapping[str, Any], environment: Mapping[str, str], problems: list[str]
) -> dict[str, dict[str, str]]:
    """Variables by section and key; those with our prefix that name nothing become problems."""
    known = {
        f"{ENVIRONMENT_PREFIX}{name.upper()}_{field.name.upper()}": (name, field.name)
        for name, section in sections.items()
        for field in dataclasses.fields(section)
    }
    values: dict[str, dict[str, str]] = {name: {} for name in sections}
    for variable, text in sorted(environment.items()):
        if variable in known:
            name, key = known[variable]
            values[name][key] = text
        elif variable.startswith(ENVIRONMENT_PREFIX):
            problems.append(f"unknown environment variable {variable}{_suggestion(variable, known)}")
    return values


def _section(
    name: str, section: Any, table: Mapping[str, Any], overrides: Mapping[str, str], problems: list[str]
) -> Any:
    types = get_type_hints(section)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in types:
            problems.append(f"{name}.{key}: unknown key{_suggestion(key, types)}")
        elif types[key] is Secret:
            variable = f"{ENVIRONMENT_PREFIX}{name.upper()}_{key.upper()}"
            problems.append(f"{name}.{key}: secrets do not belong in a file; set {variable} instead")
        else:
            _take(name, key, types[key], value, True, values, problems)
    for key, text in overrides.items():
        value = msgspec.json.decode(text) if _is_list(types[key], text) else text
        _take(name, key, types[key], value, False, values, problems)
    try:
        return section(**values)
    except ValueError as error:
        problems.append(f"{name}.{error}")
        return None


def _take(
    name: str, key: str, wanted: Any, value: Any, strict: bool, into: dict[str, Any], problems: list[str]
) -> None:
    try:
        if wanted is Secret:
            into[key] = Secret(value)
        else:
            into[key] = msgspec.convert(value, wanted, strict=strict)
    except msgspec.ValidationError as error:
        problems.append(f"{name}.{key}: {error}")


def _is_list(wanted: Any, text: str) -> bool:
    if not str(wanted).startswith("tuple[") or not text.startswith("["):
        return False
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _field_docs(section: Any) -> dict[str, str]:
    """The string that follows each annotated field in the class's source."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(definition, ast.ClassDef)
    documents: dict[str, str] = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            documents[field.target.id] = after.value.value
    return documents


def _paragraph(text: str | None) -> list[str]:
    """The first paragraph of a docstring, wrapped for a comment."""
    if not text:
        return []
    return textwrap.wrap(inspect.cleandoc(text).split("\n\n")[0], 100)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return msgspec.json.encode(str(value)).decode()
