"""Time ideas for a faster CPU path against what nvembed does: `python benches/cpu_leads.py MODEL [ROUNDS]`.

MODEL is a folder exported with `--target cpu` at the 7B widths. The two sides of a comparison take turns; each row of
the table has the median, smallest and largest ratio of their times. Above 1, the idea is faster. docs/lab/cpu-speed.md
says which ideas were adopted.
"""

import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HIDDEN, KEYS, INNER = 4096, 1024, 14336
MEASURED = 2


def session(model: str | bytes, threads: int = 0, **entries: str) -> onnxruntime.InferenceSession:
    """A session with nvembed's settings, except for the given ones."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = entries.pop("arena", "1") == "1"
    for name, value in entries.items():
        options.add_session_config_entry("session." + name.replace("__", "."), value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def products(precision: str, outputs: list[int]) -> bytes:
    """A graph that multiplies the same [M, 4096] input by one weight matrix for each output width."""
    rng, nodes, constants = np.random.default_rng(0), [], []
    quantized = precision == "w8a8"
    for number, width in enumerate(outputs):
        if quantized:
            weight = rng.integers(-127, 128, (HIDDEN, width), np.int8)
            constants.append(numpy_helper.from_array(np.full(width, 1e-3, np.float32), f"scales{number}"))
            inputs = ["x", f"w{number}", "step", f"scales{number}", "zero"]
            nodes.append(helper.make_node("MatMulIntegerToFloat", inputs, [f"y{number}"], domain="com.microsoft"))
        else:
            weight = rng.standard_normal((HIDDEN, width), np.float32)
            nodes.append(helper.make_node("MatMul", ["x", f"w{number}"], [f"y{number}"]))
        constants.append(numpy_helper.from_array(weight, f"w{number}"))
    constants += [numpy_helper.from_array(np.float32(1 / 127), "step"), numpy_helper.from_array(np.uint8(128), "zero")]
    dtype = TensorProto.UINT8 if quantized else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", dtype, ["M", HIDDEN])],
        [helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, None) for number in range(len(outputs))],
        constants,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def seconds(run) -> float:
    """The shortest time of a few runs."""
    times = []
    for _ in range(MEASURED):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def compare(name: str, ours, other, rounds: int) -> None:
    """Time both sides and print a row of the table."""
    ours(), other()
    ratios = sorted(seconds(ours) / seconds(other) for _ in range(rounds))
    print(f"| {name} | {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |", flush=True)


def main() -> None:
    """Print a Markdown table."""
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 7
    print(f"onnxruntime {onnxruntime.__version__}, {rounds} rounds\n\n| idea | speedup |\n|---|---:|")
    rng = np.random.default_rng(1)
    together = {"q, k and v": [HIDDEN, KEYS, KEYS], "gate and up": [INNER, INNER]}
    for precision in ("fp32", "w8a8"):
        for name, outputs in together.items():
            apart, one = (session(products(precision, widths)) for widths in (outputs, [sum(outputs)]))
            for tokens in (32, 128, 512):
                x = rng.integers(0, 255, (tokens, HIDDEN), np.uint8)
                x = x if precision == "w8a8" else x.astype(np.float32)
                sides = [lambda s=s, x=x: s.run(None, {"x": x}) for s in (apart, one)]
                compare(f"{name} in one product, {precision}, {tokens} tokens", *sides, rounds)
            del apart, one
    path = str(folder / "model.onnx")
    settings = {
        "one thread": {"threads": 1},
        "threads sleep instead of spinning": {"intra_op__allow_spinning": "0"},
        "finer division of work (dynamic_block_base 4)": {"dynamic_block_base": "4"},
        "no memory arena": {"arena": "0"},
        "denormals as zeros": {"set_denormal_as_zero": "1"},
    }
    ours = session(path)
    for name, setting in settings.items():
        other = session(path, **setting)
        for length in (32, 128):
            ids = rng.integers(5, 30_000, (1, length))
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "pool_mask": np.ones_like(ids)}
            sides = [lambda s=s, feeds=feeds: s.run(None, feeds) for s in (ours, other)]
            compare(f"{name}, {folder.name}, 1 × {length}", *sides, rounds)
        del other


if __name__ == "__main__":
    main()
