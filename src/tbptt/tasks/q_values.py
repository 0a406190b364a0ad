"""Bellman Q-values of buying and selling: what the network learns to predict."""

import numpy as np
from jaxtyping import Float64


def q_values(
    prices: Float64[np.ndarray, "B N"], gamma: float, fee: float | Float64[np.ndarray, " S"]
) -> Float64[np.ndarray, "B N-1 2"]:
    """Q-values of buying and of selling at every step, computed backwards in O(N).

    With Δ_t = p_{t+1} - p_t, Q_t(buy) = Δ_t + γ·max(Q_{t+1}(buy), Q_{t+1}(sell) - 2·fee), and the mirror image for
    selling. The recursion starts from 0 at the last price. This is Bellman's optimality equation with a cost of 2·fee
    for changing sides (one fee to close, one to open).

    Args:
        prices: (B, N), each series padded at its end with its last price. The padding then has Q = 0 and does not
            affect the steps before it.
        gamma: discount per step, 0 <= γ < 1.
        fee: in price units; a number, (1,), or (B,) with one fee for each series.

    Returns:
        (B, N - 1, 2) float64, in price units: [..., 0] buy, [..., 1] sell.
    """
    change = np.diff(np.asarray(prices, dtype=np.float64), axis=1)  # (B, N-1)
    switch = 2.0 * np.asarray(fee, dtype=np.float64)
    q = np.empty((*change.shape, 2))
    buy = np.zeros(len(change))
    sell = np.zeros(len(change))
    for t in range(change.shape[1] - 1, -1, -1):
        buy, sell = (
            change[:, t] + gamma * np.maximum(buy, sell - switch),
            -change[:, t] + gamma * np.maximum(sell, buy - switch),
        )
        q[:, t, 0] = buy
        q[:, t, 1] = sell
    return q
