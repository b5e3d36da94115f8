"""What GPUs can do at most, from NVIDIA's data sheets."""

from __future__ import annotations

# Dense fp16 products with fp32 sums, in TFLOP/s. The key is a part of the name that the driver reports; the first match
# counts. None: a variant of the GPU below it, whose peak is another that we do not know.
PEAK_TFLOPS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "GH200": 989,
    "H200 NVL": 835,
    "H200": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "A40": 150,
    "A10G": 70,
    "A10": 125,
    "T4": 65,
    "RTX 6000 Ada": 364,
    "RTX A6000": 155,
    "RTX 4090 D": None,
    "RTX 4090": 165,
    "RTX 5090 D": None,
    "RTX 5090": 210,
}


def peak_tflops(gpu: str) -> int | None:
    """The peak of the GPU of that name; None when it is not in the table. A name is a whole word: L4 is not L40."""
    if "Laptop" in gpu:
        return None
    words = f" {gpu.replace('-', ' ')} "
    return next((tflops for name, tflops in PEAK_TFLOPS.items() if f" {name} " in words), None)
