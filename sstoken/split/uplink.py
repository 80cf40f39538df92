"""What the uplink of a round costs: bytes, and the time of its slowest client under one shared band.

Power is the most that a client may send with, since more power never slows a client; what is optimised is the band.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq


def payload_bytes(states: np.ndarray | float, hidden: int, bits: int) -> np.ndarray | float:
    """``states · D · q0 / 8`` a sample; states: K + 2 (K kept, one merged, the anchor)."""
    return states * hidden * bits / 8


def rate(band_hz: float | np.ndarray, *, power_w: float, gain: float | np.ndarray, noise_w_hz: float) -> np.ndarray:
    """Shannon's ``W log2(1 + P g / (N0 W))`` in bits a second; 0 without a band."""
    band = np.asarray(band_hz, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = band * np.log2(1 + power_w * np.asarray(gain) / (noise_w_hz * band))
    return np.where(band > 0, found, 0.0)


def share_band(
    payload_bits: np.ndarray, gain: np.ndarray, *, band_hz: float, power_w: float, noise_w_hz: float
) -> np.ndarray:
    """Each client's part of the band that lets the slowest be done first: all are then done at once.

    Args:
        payload_bits: [M], above 0. gain: [M], of the channel's power.

    Returns:
        [M] Hz, sums to ``band_hz``.
    """

    channel = {"power_w": power_w, "noise_w_hz": noise_w_hz}

    def needed(seconds: float) -> np.ndarray:
        return np.array([_band_for(n / seconds, g, band_hz, channel) for n, g in zip(payload_bits, gain, strict=True)])

    if len(gain) == 1:
        return np.array([band_hz])
    quickest = float(max(payload_bits / rate(band_hz, gain=gain, **channel)))  # each with the whole band
    slowest = float(max(payload_bits / rate(band_hz / len(gain), gain=gain, **channel)))  # with equal parts
    seconds = brentq(lambda t: needed(t).sum() - band_hz, quickest, slowest * (1 + 1e-9), xtol=quickest * 1e-12)
    found = needed(seconds)
    return found * band_hz / found.sum()


def _band_for(bits_per_second: float, gain: float, band_hz: float, channel: dict) -> float:
    """The band at which a client reaches a rate; more than the whole where that does not do."""
    most = float(rate(band_hz, gain=gain, **channel))
    if bits_per_second >= most:
        return band_hz * bits_per_second / most
    return brentq(lambda w: float(rate(w, gain=gain, **channel)) - bits_per_second, band_hz * 1e-12, band_hz)


def efficiency(retained: np.ndarray, seconds: np.ndarray) -> float:
    """``STE = Σ_m f(K_m) / max_m T_m``, a second."""
    return float(np.sum(retained) / np.max(seconds))


def decibel(value: float | np.ndarray) -> float | np.ndarray:
    return 10 ** (value / 10)
