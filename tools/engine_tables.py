"""Prints state/fixed_tables.py anew: `python -m tools.engine_tables`. A test compares the two.

Each polynomial interpolates its function at the Chebyshev nodes of its segment, in t from -1 to 1 across the
segment, with divided differences in 75 decimal digits; coefficients are rounded to nearest. The nodes are
rounded to twelve places, which costs nothing, so that every machine's cosine gives the same integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from tools.exact_math import CONTEXT, PI, mills

MILLS_DEGREE, MILLS_BITS = 13, 61
EXP2_DEGREE, EXP2_BITS = 12, 62
LN_TERMS, LN_BITS = 14, 80
PREAMBLE = '''"""Coefficients of the calculation engine: made by `python -m tools.engine_tables`, not by hand.

What they mean stands in state/fixed.py.
"""
'''


def interpolate(
    function: Callable[[Decimal], Decimal], low: Decimal, high: Decimal, degree: int
) -> list[Decimal]:
    """Coefficients, lowest first, of the polynomial in t = -1..1 through `function` at Chebyshev nodes."""
    size = degree + 1
    nodes = [Decimal(round(math.cos(math.pi * (2 * i + 1) / (2 * size)) * 10**12)) for i in range(size)]
    nodes = [node.scaleb(-12) for node in nodes]
    differences = [function(low + (high - low) * (t + 1) / 2) for t in nodes]
    for order in range(1, size):
        for i in range(size - 1, order - 1, -1):
            differences[i] = (differences[i] - differences[i - 1]) / (nodes[i] - nodes[i - order])
    polynomial = [Decimal(0)]
    for i in range(size - 1, -1, -1):
        shifted = [Decimal(0), *polynomial]
        for power, coefficient in enumerate(polynomial):
            shifted[power] -= nodes[i] * coefficient
        shifted[0] += differences[i]
        polynomial = shifted
    return polynomial[:size]


def rounded(value: Decimal, bits: int) -> int:
    return int((value * 2**bits).to_integral_value(ROUND_HALF_EVEN))


def mills_segments() -> list[tuple[Decimal, Decimal]]:
    """Eight of width 1/4 from 0 to 2, then four in each octave up to 32."""
    quarters = [(Decimal(i) / 4, Decimal(i + 1) / 4) for i in range(8)]
    octaves = [
        (Decimal(2**e * (4 + i)) / 4, Decimal(2**e * (5 + i)) / 4) for e in range(1, 5) for i in range(4)
    ]
    return quarters + octaves


def row(values: list[int]) -> str:
    """The lines of an inner tuple."""
    return "".join(f"        {value},\n" for value in values)


def source() -> str:
    """The text of state/fixed_tables.py."""
    with localcontext(CONTEXT):
        two = Decimal(2)
        exp2 = interpolate(lambda x: two ** (x - 1), Decimal(0), Decimal(1), EXP2_DEGREE)
        tables = [interpolate(mills, low, high, MILLS_DEGREE) for low, high in mills_segments()]
        constants = {
            f"LN2_X{LN_BITS}": rounded(two.ln(), LN_BITS),
            "LOG2E_X80": rounded(1 / two.ln(), 80),
            "LOG2E_X62": rounded(1 / two.ln(), 62),
            "LOG2_DENSITY_AT_0_X57": rounded((1 / (2 * PI).sqrt()).ln() / two.ln(), 57),
            "SQRT_HALF_X80": rounded(1 / two.sqrt(), 80),
        }
        atanh = [rounded(Decimal(1) / (2 * i + 1), LN_BITS) for i in range(LN_TERMS)]
    lines = [PREAMBLE]
    lines += [f"{name} = {value}" for name, value in constants.items()]
    lines.append(
        f"\nEXP2_X{EXP2_BITS} = (\n" + "".join(f"    {rounded(c, EXP2_BITS)},\n" for c in exp2) + ")"
    )
    lines.append(
        f'"""2^(f - 1) for f = 0..1 in t = 2f - 1, lowest power first, {EXP2_BITS} fractional bits."""'
    )
    lines.append(f"\nATANH_X{LN_BITS} = (\n" + "".join(f"    {value},\n" for value in atanh) + ")")
    lines.append(f'"""1 / (2i + 1), {LN_BITS} fractional bits."""')
    body = "".join("    (\n" + row([rounded(c, MILLS_BITS) for c in table]) + "    ),\n" for table in tables)
    lines.append(f"\nMILLS_X{MILLS_BITS} = (\n{body})")
    lines.append(
        f'"""(1 - cdf) / density by segment in t, lowest power first, {MILLS_BITS} fractional bits."""'
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(source(), end="")
