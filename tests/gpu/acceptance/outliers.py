"""Write a small random checkpoint with massive activations, as Mistral has: one channel of the residual stream × 1,000.

python tests/gpu/acceptance/outliers.py OUT
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "export" / "tests"))

from seeded_checkpoint import Spec, write_checkpoint

# Heads of 64, so that CUDA's fused attention is used; one of 512 / 128 channels large.
SPEC = Spec("outliers", 8, 128, 4, 2, 2, None, 256, 63, 4, 128, dtype="F32", outliers=1000.0)

if __name__ == "__main__":
    print(write_checkpoint(Path(sys.argv[1]), SPEC))
