"""The functions of the calculation engine in decimal arithmetic, slowly and to some 50 digits: what its
tables are made from and its errors are measured against. Nothing that runs an exchange uses it.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

CONTEXT = Context(prec=75, rounding=ROUND_HALF_EVEN, Emin=-(10**6), Emax=10**6)
PI = Decimal(
    "3.141592653589793238462643383279502884197169399375105820974944592307816406286208998628034825342117"
)
FRACTION_TERMS = 700
"""Of the continued fraction: enough for 50 digits from 2 upwards."""


def density(x: Decimal) -> Decimal:
    """The normal density."""
    with localcontext(CONTEXT):
        return (-x * x / 2).exp() / (2 * PI).sqrt()


def mills(x: Decimal) -> Decimal:
    """(1 - cdf(x)) / density(x), for x >= 0: a power series below 2, Laplace's continued fraction above."""
    with localcontext(CONTEXT):
        if x >= 2:
            tail = Decimal(0)
            for n in range(FRACTION_TERMS, 0, -1):
                tail = n / (x + tail)
            return 1 / (x + tail)
        term = total = x
        n = 1
        while term > Decimal("1e-75"):
            n += 2
            term = term * x * x / n
            total += term
        return (PI / 2).sqrt() * (x * x / 2).exp() - total


def cdf(x: Decimal) -> Decimal:
    """The normal distribution function."""
    with localcontext(CONTEXT):
        tail = density(x) * mills(abs(x))
        return tail if x < 0 else 1 - tail


def black76(forward: Decimal, strike: Decimal, total_vol: Decimal) -> tuple[Decimal, Decimal, Decimal]:
    """(call, put, d1), undiscounted; total_vol > 0."""
    with localcontext(CONTEXT):
        d1 = (forward / strike).ln() / total_vol + total_vol / 2
        if d1 > 0:
            put = strike * cdf(total_vol - d1) - forward * cdf(-d1)
            return put + forward - strike, put, d1
        call = forward * cdf(d1) - strike * cdf(d1 - total_vol)
        return call, call - forward + strike, d1
