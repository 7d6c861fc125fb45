"""Upper confidence bounds of a share: what a finite reference cannot exclude.

A reference of n independent texts with c of them in a tail says that the tail's share is about c / n. The bound of Clopper and
Pearson is the largest share under which c or fewer would still happen with probability `risk`; it is exact for every n and c:

    P(Binomial(n, u) <= c) = risk        u = 1 where c = n

The distribution function is the regularized incomplete beta function, here by its continued fraction, for whole arrays at once.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_TINY: Final = 1e-300
_log_gamma = np.vectorize(math.lgamma, otypes=[float])


def upper_share(hits: npt.ArrayLike, totals: npt.ArrayLike, risk: float) -> Array:
    """The upper bound of a share, as an array of the arguments' shape, after `hits` in `totals`; 1 where nothing was seen.

    For each of them the true share is above its bound with probability `risk` at most. Raises `ValueError` for impossible counts.
    """
    c, n = np.broadcast_arrays(np.asarray(hits, dtype=np.float64), np.asarray(totals, dtype=np.float64))
    if not (np.all(c >= 0) and np.all(c <= n) and 0 < risk < 1):
        raise ValueError("hits must lie between 0 and totals, and the risk between 0 and 1")
    inside = c < n
    c, n = np.where(inside, c, 0.0), np.where(inside, n, 1.0)
    low, high = c / n, np.ones_like(c)
    z = NormalDist().inv_cdf(1 - risk)
    share = (c + z * z / 2 + z * np.sqrt(np.abs(c * (1 - c / n)) + z * z / 4)) / (n + z * z)  # Wilson's, which is near
    scale = _log_gamma(n + 1) - _log_gamma(c + 1) - _log_gamma(n - c)
    for _ in range(100):
        below = binomial_below(c, n, share)
        low, high = np.where(below > risk, share, low), np.where(below > risk, high, share)
        density = np.exp(scale + c * np.log(share) + (n - c - 1) * np.log1p(-share))
        step = np.log(np.maximum(below, _TINY) / risk) * below / np.maximum(density, _TINY)
        # Newton's step on the logarithm of the chance, by the share's complement on a logarithmic scale where that is the smaller
        # one; or half of what is left where the step leaves that.
        newton = np.where(share < 0.5, share + step, 1 - (1 - share) * np.exp(np.clip(-step / (1 - share), -30, 30)))
        done = np.abs(newton - share) <= 1e-10 * np.minimum(share, 1 - share)
        if np.all(done):
            break
        share = np.where(done, share, np.where((newton > low) & (newton < high), newton, (low + high) / 2))
    return np.where(inside, share, 1.0)


def lower_share(hits: npt.ArrayLike, totals: npt.ArrayLike, risk: float) -> Array:
    """The lower bound of a share, as `upper_share`; 0 where nothing was seen."""
    c, n = np.asarray(hits, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    return np.asarray(1 - upper_share(n - c, n, risk))


def binomial_below(c: Array, n: Array, share: Array) -> Array:
    """P(Binomial(n, share) <= c) for 0 <= c < n and 0 < share < 1, to about twelve digits."""
    return _beta(n - c, c + 1, 1 - share)


def _beta(a: Array, b: Array, x: Array) -> Array:
    """The regularized incomplete beta function I_x(a, b)."""
    # The fraction converges fast below the mean; above it, I_x(a, b) = 1 - I_(1-x)(b, a).
    swap = x > (a + 1) / (a + b + 2)
    a, b, x = np.where(swap, b, a), np.where(swap, a, b), np.clip(np.where(swap, 1 - x, x), 1e-15, 1 - 1e-15)
    front = np.exp(_log_gamma(a + b) - _log_gamma(a) - _log_gamma(b) + a * np.log(x) + b * np.log1p(-x)) / a
    c, d = np.ones_like(x), 1 / _away(1 - (a + b) * x / (a + 1))
    fraction = d.copy()
    for m in range(1, 4000):  # about the square root of n is needed
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = np.ones_like(x)
        for term in (even, odd):
            d, c = 1 / _away(1 + term * d), _away(1 + term / c)
            step *= c * d
        fraction *= step
        if np.all(np.abs(step - 1) < 1e-13):
            break
    below = front * fraction
    return np.asarray(np.where(swap, 1 - below, below))


def _away(x: Array) -> Array:
    return np.where(np.abs(x) < _TINY, _TINY, x)


def unlikely_chi_square(statistic: float, freedom: int, z: float) -> bool:
    """Whether a chi-square statistic is more than `z` standard errors high (Wilson and Hilferty's cube root)."""
    if freedom < 1:
        return False
    spread = 2 / (9 * freedom)
    return math.cbrt(statistic / freedom) > 1 - spread + z * math.sqrt(spread)
