"""The leaf that counts what an account has beyond orders: who has nothing is found out by one read."""

from __future__ import annotations

from state.keys import extras_key
from state.leaves import Extras
from state.view import StateView


def extras_of(view: StateView, account: int) -> Extras | None:
    """None when there is nothing."""
    leaf: Extras | None = view.get(extras_key(account))
    return leaf


def count_extras(view: StateView, account: int, triggers: int = 0, protections: int = 0) -> None:
    """Changes the counts; the leaf comes and goes with them."""
    key = extras_key(account)
    leaf: Extras | None = view.get(key)
    if leaf is None:
        view.put(key, Extras(triggers, protections))
        return
    leaf.triggers += triggers
    leaf.protections += protections
    if leaf.triggers or leaf.protections:
        view.touch(key, leaf)
    else:
        view.delete(key)
