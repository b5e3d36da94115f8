//! Files of lines: where rows begin, and rows from such a place on.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Fields, Kind, Reason, Record, json, open};
use crate::error::{Error, Result};

/// The longest line that is read: 256 MiB.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// Reads a file of lines and calls `on_row` with the offset of each row's line. In JSON lines, empty lines are no rows.
/// `on_bytes` gets all bytes of the file, in order.
///
/// # Errors
/// [`Error::Input`] when the file cannot be read; those of `on_row`.
pub(crate) fn scan_lines(
    path: &Path,
    kind: Kind,
    mut on_bytes: impl FnMut(&[u8]),
    mut on_row: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut file = open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let (mut offset, mut start) = (0, 0);
    // Whether the line so far is a row.
    let mut is_row = false;
    loop {
        let read = file.read(&mut buffer).map_err(|error| Error::input(path, format!("cannot be read: {error}")))?;
        let bytes = &buffer[..read];
        on_bytes(bytes);
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if is_row || kind != Kind::Jsonl || has_letters(&rest[..end]) {
                on_row(start)?;
            }
            offset += end as u64 + 1;
            (start, is_row, rest) = (offset, false, &rest[end + 1..]);
        }
        // The last line may lack its end.
        is_row |= if kind == Kind::Jsonl { has_letters(rest) } else { !rest.is_empty() };
        offset += rest.len() as u64;
        if read == 0 {
            return if is_row { on_row(start) } else { Ok(()) };
        }
    }
}

fn has_letters(bytes: &[u8]) -> bool {
    !bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

/// Rows of a file of lines, from an offset on.
pub(crate) struct Lines {
    file: BufReader<File>,
    path: PathBuf,
    kind: Kind,
    /// Whether the next line is the first of the file, where a byte order mark may be.
    is_first: bool,
}

impl Lines {
    /// # Errors
    /// [`Error::Input`].
    pub(crate) fn open(path: &Path, kind: Kind, offset: u64) -> Result<Self> {
        let mut file = BufReader::with_capacity(1 << 16, open(path)?);
        let to_offset = file.seek(SeekFrom::Start(offset));
        to_offset.map_err(|error| Error::input(path, format!("cannot be read at byte {offset}: {error}")))?;
        Ok(Self { file, path: path.to_owned(), kind, is_first: offset == 0 })
    }

    /// The next row; `None` at the end of the file.
    ///
    /// # Errors
    /// [`Error::Input`] when the file cannot be read.
    pub(crate) fn next(&mut self, fields: &Fields) -> Result<Option<Record>> {
        loop {
            let mut line = Vec::new();
            let mut limited = self.file.by_ref().take(MAX_LINE_BYTES + 1);
            let read = limited.read_until(b'\n', &mut line);
            let read = read.map_err(|error| Error::input(&self.path, format!("cannot be read: {error}")))?;
            if read == 0 {
                return Ok(None);
            }
            let is_first = std::mem::take(&mut self.is_first);
            if self.kind == Kind::Jsonl && read as u64 <= MAX_LINE_BYTES && !has_letters(line.trim_ascii_end()) {
                continue;
            }
            if read as u64 > MAX_LINE_BYTES {
                self.skip_line()?;
                let message = format!("the line has more than {MAX_LINE_BYTES} bytes, the limit");
                return Ok(Some(Record { id: None, content: Err(Reason::input(message)) }));
            }
            let record = match text(line, is_first) {
                Ok(line) if self.kind == Kind::Jsonl => json::record(&line, fields),
                content => Record { id: None, content: content.map(|text| (None, text)) },
            };
            return Ok(Some(record));
        }
    }

    /// The bytes of the first row; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub(crate) fn first_line(mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = self.file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
            read.map_err(|error| Error::input(&self.path, format!("cannot be read: {error}")))?;
            if line.is_empty() {
                return Ok(None);
            }
            if has_letters(line.trim_ascii_end()) {
                let start = if line.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
                return Ok(Some(line.split_off(start)));
            }
        }
    }

    fn skip_line(&mut self) -> Result<()> {
        let skipped = self.file.skip_until(b'\n');
        skipped.map(|_| ()).map_err(|error| Error::input(&self.path, format!("cannot be read: {error}")))
    }
}

/// The line without its end, and without a byte order mark at the start of the file.
fn text(mut line: Vec<u8>, is_first: bool) -> std::result::Result<String, Reason> {
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    if is_first && line.starts_with(b"\xef\xbb\xbf") {
        line.drain(..3);
    }
    let text = String::from_utf8(line).map_err(|error| {
        Reason::input(format!("invalid UTF-8 at byte {} of the line", error.utf8_error().valid_up_to() + 1))
    })?;
    match text.find('\0') {
        // Legal for the model, but in practice a UTF-16 or binary file.
        Some(at) => Err(Reason::input(format!(
            "NUL byte at byte {} of the line: is this UTF-16 or binary? In JSON lines, a text may contain one as \\u0000",
            at + 1
        ))),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::IdType;

    fn fields() -> Fields {
        Fields { text: "text".to_owned(), id: None, id_type: IdType::Int64, instruction: None }
    }

    /// The texts that are read from each row's offset, which must be the same as reading on.
    fn rows(content: &[u8], kind: Kind) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, content).unwrap();
        let (mut offsets, mut bytes) = (Vec::new(), Vec::new());
        let on_row = |offset| {
            offsets.push(offset);
            Ok(())
        };
        scan_lines(&path, kind, |some| bytes.extend_from_slice(some), on_row).unwrap();
        assert_eq!(bytes, content);
        let mut from_start = Lines::open(&path, kind, 0).unwrap();
        let text = |record: Record| record.content.map_or_else(|reason| reason.message, |(_, text)| text);
        let found = offsets.iter().map(|offset| {
            let there = Lines::open(&path, kind, *offset).unwrap().next(&fields()).unwrap().map(text);
            assert_eq!(there, from_start.next(&fields()).unwrap().map(text));
            there.unwrap()
        });
        let found = found.collect();
        assert!(from_start.next(&fields()).unwrap().is_none(), "no row was missed");
        found
    }

    #[test]
    fn a_row_begins_where_the_scan_says() {
        assert_eq!(rows(b"\xef\xbb\xbfone\r\n\ntwo\n", Kind::Lines), ["one", "", "two"]);
        assert_eq!(rows(b"one\ntwo", Kind::Lines), ["one", "two"]);
        assert_eq!(rows(b"", Kind::Lines), [""; 0]);
        assert_eq!(rows(b"\n", Kind::Lines), [""]);
        let lines = b"\n{\"text\": \"a\"}\n \t\r\n\r\n{\"text\": \"b\"}\n  ";
        assert_eq!(rows(lines, Kind::Jsonl), ["a", "b"]);
        let long = "x".repeat(3 << 20);
        assert_eq!(rows(format!("{long}\n{long}y\n").as_bytes(), Kind::Lines), [long.clone(), format!("{long}y")]);
    }

    #[test]
    fn bytes_that_are_no_text_are_named_by_their_place() {
        let found = rows(b"fine\ncaf\xe9\nh\0i\n", Kind::Lines);
        assert_eq!(found[0], "fine");
        assert!(found[1].contains("invalid UTF-8 at byte 4") && found[2].contains("NUL byte at byte 2"), "{found:?}");
    }
}
