//! What a file holds, from its name where it says so and from its first bytes where a wrong guess would go unnoticed.

use std::collections::HashMap;
use std::path::Path;

use serde::de::IgnoredAny;

/// Whether a file is named as JSON lines, in letters of any case.
pub(crate) fn is_named_jsonl(path: &Path) -> bool {
    has_extension(path, &["jsonl", "ndjson"])
}

/// Whether a file is named as a NumPy array, in letters of any case.
pub(crate) fn is_named_npy(path: &Path) -> bool {
    has_extension(path, &["npy"])
}

fn has_extension(path: &Path, wanted: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| wanted.iter().any(|wanted| extension.eq_ignore_ascii_case(wanted)))
}

/// Why the first line of a file cannot be text in UTF-8; None if it may be.
pub(crate) fn not_utf8(line: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 6] = [
        (b"\xff\xfe", "the file is UTF-16, as PowerShell writes it; convert it to UTF-8"),
        (b"\xfe\xff", "the file is UTF-16; convert it to UTF-8"),
        (b"\x1f\x8b", "the file is compressed by gzip; give its content: gzip -dc FILE | nvembed embed ..."),
        (b"\x28\xb5\x2f\xfd", "the file is compressed by zstd; give its content: zstd -dc FILE | nvembed embed ..."),
        (b"PK\x03\x04", "the file is a zip archive; give its content"),
        (b"PAR1", "the file is Parquet; `nvembed corpus` reads it"),
    ];
    KNOWN.iter().find(|(start, _)| line.starts_with(start)).map(|(_, what)| *what)
}

/// Whether a line is a record of JSON lines, which as plain text would get an embedding of its punctuation and field names.
pub(crate) fn is_record(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('{')
        && serde_json::from_str::<HashMap<String, IgnoredAny>>(line).is_ok_and(|fields| fields.contains_key("text"))
}
