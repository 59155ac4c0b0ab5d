"""Payloads of L1 messages: of one exact length (PROTOCOL section 4), with values within bounds or refused."""

from __future__ import annotations

from struct import Struct
from typing import Any, TypeVar

from state.errors import RejectCode, Rejected
from state.leaves import (
    FeeTerms,
    FeeTiers,
    Instrument,
    L1Terms,
    LiquidationParameters,
    MarginTerms,
    Parameters,
    PriorityTerms,
    Publishers,
)

DecodedLeaf = TypeVar(
    "DecodedLeaf",
    Instrument,
    Parameters,
    Publishers,
    LiquidationParameters,
    MarginTerms,
    FeeTerms,
    FeeTiers,
    PriorityTerms,
    L1Terms,
)


def unpack(layout: Struct, payload: bytes) -> tuple[Any, ...]:
    """Raises Rejected MALFORMED_MESSAGE when the length is not the layout's."""
    if len(payload) != layout.size:
        raise Rejected(RejectCode.MALFORMED_MESSAGE, expected=layout.size, got=len(payload))
    return layout.unpack(payload)


def decode_as(leaf_type: type[DecodedLeaf], payload: bytes) -> DecodedLeaf:
    """Raises Rejected MALFORMED_MESSAGE when it is not one leaf."""
    try:
        leaf: DecodedLeaf = leaf_type.decode(payload)
    except ValueError:
        raise Rejected(RejectCode.MALFORMED_MESSAGE, got=len(payload)) from None
    return leaf


def demand(good: dict[str, bool]) -> None:
    """Raises Rejected BAD_PARAMETERS, naming the first field that is not good."""
    for field, is_good in good.items():
        if not is_good:
            raise Rejected(RejectCode.BAD_PARAMETERS, field=field)
