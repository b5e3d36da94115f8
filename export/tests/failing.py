"""Asserts what every failing export must have in common."""

from __future__ import annotations

import pytest

from nvembed_export.export import ExportOptions, export

FP32 = ExportOptions(precision="fp32")


def assert_fails(checkpoint, out, error_type, *fragments: str, options: ExportOptions = FP32) -> str:
    """The export raises exactly this error, its message contains the fragments, and no file is left behind."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(error_type) as caught:
        export(checkpoint, out, options)
    assert type(caught.value) is error_type
    message = str(caught.value)
    for fragment in fragments:
        assert fragment in message, message
    assert sorted(out.parent.iterdir()) == before
    return message
