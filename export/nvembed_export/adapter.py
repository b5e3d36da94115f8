"""LoRA adapters of PEFT (arXiv 2106.09685), merged into the weights as PEFT merges them.

    W' = W + s B A        s = lora_alpha / r, with `use_rslora` lora_alpha / √r; A [r, in], B [out, r]
    W' = m ⊙ (W + s B A) / ‖W + s B A‖    with `use_dora` (arXiv 2402.09353), the norm and m per row of W

The sum is rounded to the dtype of W, as in PEFT, and for the embedding table the part added is rounded first. PEFT
computes B A in fp32 and this in fp64, so single values may be the other neighbour in the dtype of W. Rows are merged
when they are read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from nvembed_export.errors import CheckpointError, ConfigError, TensorError, WeightValueError
from nvembed_export.files import is_there, read_json, refuse_pointer
from nvembed_export.layout import BACKBONE, EMBEDDINGS, POOLER, KeptArrays
from nvembed_export.weight_files import DTYPE_BYTES, StoredTensor, read_pytorch, read_safetensors

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES = {"adapter_model.safetensors": read_safetensors, "adapter_model.bin": read_pytorch}
KEPT_FACTORS = 4  # A, B and norms of the weight that is being read and of the one before

# Keys that do not change the merged weights, whatever their value. All others must be neutral or are read below.
HARMLESS_KEYS = frozenset(
    """auto_mapping base_model_name_or_path ensure_weight_tying exclude_modules fan_in_fan_out inference_mode
    layers_pattern layers_to_transform lora_dropout megatron_core modules_to_save peft_version qalora_group_size
    revision target_modules task_type""".split()
)
READ_KEYS = frozenset(
    "alpha_pattern bias init_lora_weights lora_alpha peft_type r rank_pattern use_dora use_rslora".split()
)
# Ways to start training that leave the base model as it is. Others move a part of it into the adapter, so that the
# adapter belongs to a base model with changed weights.
UNCHANGED_BASE = (True, False, None, "gaussian", "orthogonal", "eva")

_PART = re.compile(r"(.+)\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector)(?:\.default)?(?:\.weight)?")


@dataclass
class _Factors:
    """What an adapter has for one module."""

    module: str
    parts: dict[str, StoredTensor] = field(default_factory=dict)


class Adapter:
    """An adapter's folder: low-rank factors by the name of the weight they change, and weights that replace others."""

    def __init__(
        self, folder: Path, config: dict[str, Any], factors: dict[str, _Factors], replaced: dict[str, StoredTensor]
    ):
        self.folder, self.config, self.factors, self.replaced = folder, config, factors, replaced
        self.kept = KeptArrays(KEPT_FACTORS)

    @classmethod
    def open(cls, folder: Path, expected: dict[str, tuple[int, ...]]) -> Adapter:
        """Read an adapter for a model of these tensors. Raises ConfigError, CheckpointError or TensorError."""
        config = _read_config(folder)
        present = [name for name in WEIGHT_FILES if is_there(folder / name, CheckpointError)]
        if not present:
            raise CheckpointError(f"{folder}: no weights of an adapter, expected {' or '.join(WEIGHT_FILES)}")
        refuse_pointer(folder / present[0], CheckpointError)
        tensors = WEIGHT_FILES[present[0]](folder / present[0])
        factors: dict[str, _Factors] = {}
        replaced: dict[str, StoredTensor] = {}
        for name, tensor in tensors.items():
            if tensor.dtype not in DTYPE_BYTES:
                raise TensorError(f"adapter's tensor `{name}` has dtype {tensor.dtype}, expected F16, BF16 or F32")
            match = _PART.fullmatch(name)
            short = (match[1] if match else name).removeprefix("base_model.model.")
            target = _resolve(f"{short}.weight" if match else short, expected)
            if target is None:
                raise TensorError(
                    f"adapter's tensor `{name}` belongs to no weight of the model; only low-rank factors and whole "
                    "weights (modules_to_save) can be merged"
                )
            if match:
                factors.setdefault(target, _Factors(short)).parts[match[2]] = tensor
            elif tensor.shape != expected[target]:
                raise TensorError(
                    f"adapter's tensor `{name}` has shape {list(tensor.shape)}, expected {list(expected[target])}"
                )
            else:
                replaced[target] = tensor
        if not tensors:
            raise TensorError(f"{folder}: the adapter has no tensors")
        result = cls(folder, config, factors, replaced)
        for target, found in factors.items():
            result._check(target, found, expected[target])
        return result

    def apply(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """The model's tensors with the adapter merged into them."""
        result = tensors | self.replaced
        return result | {name: self._merged(result[name], name, found) for name, found in self.factors.items()}

    def describe(self) -> str:
        base = self.config.get("base_model_name_or_path")
        trained = f", trained on {base!r}," if isinstance(base, str) and base else ""
        whole = f" and {len(self.replaced)} whole tensors" if self.replaced else ""
        return f"merged the adapter {self.folder}{trained} into {len(self.factors)} weights{whole}"

    def _rank(self, module: str) -> int:
        return self._by_pattern("rank_pattern", "r", module)

    def _scaling(self, module: str) -> float:
        rank = self._rank(module)
        return self._by_pattern("alpha_pattern", "lora_alpha", module) / (
            math.sqrt(rank) if self.config.get("use_rslora") else rank
        )

    def _by_pattern(self, patterns: str, otherwise: str, module: str) -> Any:
        """The value of the first pattern that matches the end of the module's name, as PEFT chooses."""
        for pattern, value in (self.config.get(patterns) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        return self.config[otherwise]

    def _check(self, target: str, found: _Factors, shape: tuple[int, ...]) -> None:
        """The factors fit the weight and the configuration."""
        rank = self._rank(found.module)
        a, b = ("lora_embedding_A", "lora_embedding_B") if target == EMBEDDINGS else ("lora_A", "lora_B")
        needed = {a: (rank, shape[1]), b: (shape[0], rank)}
        if target == EMBEDDINGS:  # PEFT's product of these is the transposed table
            needed = {a: (rank, shape[0]), b: (shape[1], rank)}
        if self.config.get("use_dora"):
            needed["lora_magnitude_vector"] = (shape[0],)
        if found.parts.keys() != needed.keys():
            raise TensorError(
                f"adapter has {sorted(found.parts)} for `{found.module}`, expected {sorted(needed)}: incomplete, or "
                "of a kind that cannot be merged"
            )
        for part, expected in needed.items():
            if found.parts[part].shape != expected:
                raise TensorError(
                    f"adapter's tensor `{found.parts[part].name}` has shape {list(found.parts[part].shape)}, expected "
                    f"{list(expected)} (r is {rank})"
                )

    def _merged(self, base: Any, name: str, found: _Factors) -> MergedTensor:
        scaling = self._scaling(found.module)

        def factor(part: str) -> np.ndarray:
            stored = found.parts[part]
            return self.kept.get(stored, lambda: stored.rows(0, stored.shape[0]).astype(np.float64))

        if name == EMBEDDINGS:
            delta = lambda start, stop: factor("lora_embedding_A")[:, start:stop].T @ factor("lora_embedding_B").T  # noqa: E731
        else:
            delta = lambda start, stop: factor("lora_B")[start:stop] @ factor("lora_A")  # noqa: E731
        magnitude = (lambda: factor("lora_magnitude_vector")) if self.config.get("use_dora") else None

        def scaled(start: int, stop: int) -> np.ndarray:
            part = (delta(start, stop) * scaling).astype(np.float32)
            return _rounded(part, base.dtype).astype(np.float32) if name == EMBEDDINGS else part

        return MergedTensor(base, scaled, magnitude)


@dataclass(frozen=True)
class MergedTensor:
    """A weight plus an adapter's part of it, in the weight's dtype."""

    base: Any
    delta: Callable[[int, int], np.ndarray]
    magnitude: Callable[[], np.ndarray] | None

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def dtype(self) -> str:
        return self.base.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        """As StoredTensor.rows, and raises WeightValueError if a sum is outside the dtype's range."""
        merged = self.base.rows(start, stop).astype(np.float32) + self.delta(start, stop)
        if self.magnitude is not None:
            norms = np.sqrt((merged.astype(np.float64) ** 2).sum(axis=1))
            merged *= (self.magnitude()[start:stop] / norms).astype(np.float32)[:, None]
        merged = _rounded(merged, self.dtype)
        if not np.isfinite(merged).all():
            raise WeightValueError(
                f"tensor `{self.name}` with the adapter merged is beyond the range of its dtype {self.dtype}: merge it "
                "into the weights in float32 or bfloat16"
            )
        return merged


def _rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """float32 rounded to a dtype of a file: float16 for F16, float32 for BF16 and F32."""
    with np.errstate(over="ignore"):
        if dtype == "F16":
            return array.astype(np.float16)
        return array.astype(ml_dtypes.bfloat16).astype(np.float32) if dtype == "BF16" else array


def _resolve(name: str, expected: dict[str, tuple[int, ...]]) -> str | None:
    """The model's name of an adapter's: as it is, below the backbone, or behind a wrapper's attributes."""
    candidates = [name, f"{BACKBONE}.{name}", f"{POOLER}.{name}"]
    for part in (f".{BACKBONE}.", f".{POOLER}."):
        if part in name:
            candidates.append(name[name.index(part) + 1 :])
    return next((candidate for candidate in candidates if candidate in expected), None)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not is_there(path, ConfigError):
        raise ConfigError(f"{path}: no such file, expected the folder of an adapter of PEFT")
    values = read_json(path, ConfigError)
    advice = "merge it with PEFT (merge_and_unload) and export the saved model"
    if values.get("peft_type") != "LORA":
        raise ConfigError(f"{path}: `peft_type` is {values.get('peft_type')!r}, supported: 'LORA'; {advice}")
    if values.get("bias", "none") != "none":
        raise ConfigError(f"{path}: `bias` is {values['bias']!r}, supported: 'none'; {advice}")
    if values.get("init_lora_weights", True) not in UNCHANGED_BASE:
        raise ConfigError(
            f"{path}: `init_lora_weights` is {values['init_lora_weights']!r}, which changes the base model's weights "
            f"too; {advice}"
        )
    for key, value in values.items():
        if key not in HARMLESS_KEYS | READ_KEYS and value not in (None, False, 0, "", [], {}):
            raise ConfigError(f"{path}: `{key}` is {json.dumps(value)[:80]}, but this key is unknown; {advice}")
    for key in ("r", "lora_alpha"):
        patterns = values.get({"r": "rank_pattern", "lora_alpha": "alpha_pattern"}[key]) or {}
        if not isinstance(patterns, dict) or not all(
            _is_positive(value) for value in (values.get(key), *patterns.values())
        ):
            raise ConfigError(f"{path}: `{key}` and its patterns must be positive numbers, got {values.get(key)!r}")
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"{path}: pattern `{pattern}` of `{key}`: {error}") from None
    return values


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1 << 31
