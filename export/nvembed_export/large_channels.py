"""Input channels of products whose values are too large for 8 bits beside the others.

Trained models have a few channels with values far above the others, the same ones for every text (arXiv 2208.07339 and
2402.17762). 8-bit codes whose step they decide leave no digits for the others. So they are kept apart, in float32, as
the first paper does it. They are found in the float64 reference, in what each weight is multiplied with.
"""

from __future__ import annotations

import numpy as np

from nvembed_export.checkpoint import CROSS, FEED_FORWARD

#: A channel is large if some token has a value of more than RATIO times its typical magnitude there.
RATIO = 16.0
#: One channel in so many may be large, since their products take longer; then the largest are.
SHARE = 64
#: Weights of the fused pooler are multiplied with a LayerNorm's rows before its scale.
_FOLDED = {
    f"{CROSS}.scores.weight": f"{CROSS}.norm.weight",
    f"{FEED_FORWARD}.folded.weight": f"{FEED_FORWARD}.norm.weight",
}


class LargeChannels:
    """Observes a reference; afterwards, the large channels of each weight's input."""

    def __init__(self) -> None:
        self._ratios: dict[str, np.ndarray] = {}

    def observe(self, name: str, x: np.ndarray) -> None:
        """What the weight `name` is multiplied with, [T, in]."""
        magnitudes = np.abs(x)
        typical = np.median(magnitudes, axis=-1, keepdims=True)
        found = np.divide(magnitudes, typical, out=np.zeros_like(magnitudes), where=typical > 0).max(axis=0)
        self._ratios[name] = np.maximum(self._ratios.get(name, 0), found)

    def of(self, name: str) -> tuple[int, ...]:
        """Indices of the large channels of what the weight `name` is multiplied with, in ascending order."""
        ratios = self._ratios.get(_FOLDED.get(name, name))
        if ratios is None:
            return ()
        order = np.argsort(-ratios, kind="stable")[: max(1, len(ratios) // SHARE)]
        return tuple(sorted(int(channel) for channel in order if ratios[channel] > RATIO))
