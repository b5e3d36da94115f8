"""What every failing export must have in common."""

from __future__ import annotations

import pytest

from nvembed_export.export import ExportOptions, export

FP32 = ExportOptions(precision="fp32")


def assert_fails(checkpoint, out, error_type, *fragments: str, options: ExportOptions = FP32) -> str:
    """The export ends in exactly this error; its message names these things; nothing is left where it would write."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(error_type) as caught:
        export(checkpoint, out, options)
    assert type(caught.value) is error_type
    message = str(caught.value)
    for fragment in fragments:
        assert fragment in message, message
    assert sorted(out.parent.iterdir()) == before
    return message
