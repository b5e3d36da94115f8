//! Texts from files or stdin: plain lines or JSON lines, read one at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use nvembed::Prompt;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::format;
use crate::exit::CliError;

/// The longest line that is read: 256 MiB.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// How a line holds a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// JSON lines for files named .jsonl or .ndjson, otherwise plain lines; a first line that is a JSON record is then refused.
    Auto,
    /// Each line is a text; an empty line is an empty text.
    Lines,
    /// Each line is a JSON object with "text" and optionally "instruction" or "task", and "id"; empty lines are skipped.
    Jsonl,
}

/// One text, as it was read.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) prompt: Prompt<'static>,
    /// The record's own identifier, which is returned with its embedding.
    pub(crate) id: Option<Box<RawValue>>,
    /// Where it was read, as "FILE:LINE".
    pub(crate) place: String,
    /// Bytes of input read so far, over all files.
    pub(crate) bytes_read: u64,
}

/// Why there is no record.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// A line that holds no record; the next one may.
    Record(BadRecord),
    /// A file that cannot be read: nothing follows.
    File(CliError),
}

/// A line that holds no record that can be embedded.
#[derive(Debug)]
pub(crate) struct BadRecord {
    pub(crate) place: String,
    pub(crate) id: Option<Box<RawValue>>,
    pub(crate) reason: String,
    pub(crate) bytes_read: u64,
}

impl From<ReadError> for CliError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Record(BadRecord { place, reason, .. }) => Self::Input(format!("{place}: {reason}")),
            ReadError::File(error) => error,
        }
    }
}

impl From<ReadError> for anyhow::Error {
    fn from(error: ReadError) -> Self {
        CliError::from(error).into()
    }
}

/// The fields of a line of JSON lines, for the two ways to read them.
///
/// Values are kept as they are written: an identifier must come back unchanged, and the parser's own messages about a value
/// would print it, which may be a user's text.
macro_rules! json_record {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        struct $name<'a> {
            #[serde(borrow)]
            text: &'a RawValue,
            #[serde(borrow)]
            instruction: Option<&'a RawValue>,
            #[serde(borrow)]
            task: Option<&'a RawValue>,
            #[serde(borrow)]
            id: Option<&'a RawValue>,
        }
    };
}

json_record! {
    /// A line of JSON lines. Unknown fields are refused: a misspelt "instruction" would silently change the embedding.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    JsonRecord
}
json_record! {
    /// The same, with unknown fields passed over.
    #[derive(Deserialize)]
    #[serde(remote = "JsonRecord")]
    WithOtherFields
}

impl<'a> JsonRecord<'a> {
    fn parse(line: &'a str, ignores_unknown_fields: bool) -> serde_json::Result<Self> {
        if !ignores_unknown_fields {
            return serde_json::from_str(line);
        }
        let mut parser = serde_json::Deserializer::from_str(line);
        let record = WithOtherFields::deserialize(&mut parser)?;
        parser.end().map(|()| record)
    }
}

/// Reads records from files, in order. A file that cannot be read ends the sequence; a bad record does not.
pub(crate) struct Reader {
    files: std::vec::IntoIter<PathBuf>,
    format: InputFormat,
    default_instruction: String,
    ignores_unknown_fields: bool,
    current: Option<OpenFile>,
    bytes_read: u64,
    failed: bool,
}

struct OpenFile {
    lines: Box<dyn BufRead + Send>,
    name: String,
    is_json: bool,
    /// Nobody said that each line is a text.
    is_guess: bool,
    line: u64,
    /// Whether the last line was too long, and its rest is still to come.
    is_in_line: bool,
}

impl Reader {
    /// Reads `files`, or stdin if there are none or a file is called `-`. Records without an instruction of their own
    /// get the default one.
    pub(crate) fn new(mut files: Vec<PathBuf>, format: InputFormat, default_instruction: String) -> Self {
        if files.is_empty() {
            files.push(PathBuf::from("-"));
        }
        let files = files.into_iter();
        let (ignores_unknown_fields, current) = (false, None);
        Self { files, format, default_instruction, ignores_unknown_fields, current, bytes_read: 0, failed: false }
    }

    /// Passes over fields of JSON records that it does not know, if `ignores`; otherwise a record with one is bad.
    pub(crate) fn ignoring_unknown_fields(self, ignores: bool) -> Self {
        Self { ignores_unknown_fields: ignores, ..self }
    }

    /// Looks at whether all files can be opened, before anything is done with the first.
    ///
    /// # Errors
    /// [`CliError::Input`].
    pub(crate) fn check(files: &[PathBuf]) -> Result<(), CliError> {
        for path in files.iter().filter(|path| *path != Path::new("-")) {
            // A pipe would notice that it was opened.
            let opened =
                path.metadata().and_then(|file| if file.is_file() { File::open(path).map(|_| ()) } else { Ok(()) });
            opened.map_err(|error| CliError::unopened(&path.display().to_string(), error))?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            if self.current.is_none() {
                let Some(path) = self.files.next() else { return Ok(None) };
                self.current = Some(OpenFile::open(&path, self.format).map_err(ReadError::File)?);
            }
            let Some(file) = &mut self.current else { continue };
            if std::mem::take(&mut file.is_in_line) {
                let rest = file.lines.skip_until(b'\n').map_err(|error| {
                    ReadError::File(CliError::Input(format!(
                        "{}: cannot be read in line {}: {error}",
                        file.name, file.line
                    )))
                })?;
                self.bytes_read += rest as u64;
            }
            let mut line = Vec::new();
            let mut limited = file.lines.by_ref().take(MAX_LINE_BYTES + 1);
            let read = limited.read_until(b'\n', &mut line).map_err(|error| {
                ReadError::File(CliError::Input(format!(
                    "{}: cannot be read after line {}: {error}",
                    file.name, file.line
                )))
            })?;
            if read == 0 {
                self.current = None;
                continue;
            }
            self.bytes_read += read as u64;
            file.line += 1;
            let bytes_read = self.bytes_read;
            let bad = |place: String, id, reason| ReadError::Record(BadRecord { place, id, reason, bytes_read });
            if read as u64 > MAX_LINE_BYTES {
                // Its rest may have no end, and is skipped only if the next record is asked for.
                file.is_in_line = true;
                let reason = format!("the line has more than {MAX_LINE_BYTES} bytes, the limit");
                return Err(bad(file.place(), None, reason));
            }
            let of_file = |reason| ReadError::File(CliError::Input(reason));
            if file.line == 1
                && let Some(what) = format::not_utf8(&line)
            {
                return Err(of_file(format!("{}: {what}", file.name)));
            }
            let text = file.text(line).map_err(|reason| bad(file.place(), None, reason))?;
            if file.is_guess && file.line == 1 && format::is_record(&text) {
                return Err(of_file(format!(
                    "{}: the line is a JSON object with \"text\", but the input is not named .jsonl: say --format jsonl, or \
                     --format lines to embed the JSON source itself",
                    file.place()
                )));
            }
            if file.is_json && text.trim().is_empty() {
                continue;
            }
            let record = file.record(text, &self.default_instruction, self.ignores_unknown_fields);
            let mut record = record.map_err(|(id, reason)| bad(file.place(), id, reason))?;
            record.bytes_read = self.bytes_read;
            return Ok(Some(record));
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.read().transpose();
        self.failed = matches!(result, Some(Err(ReadError::File(_))));
        result
    }
}

impl OpenFile {
    fn open(path: &Path, format: InputFormat) -> Result<Self, CliError> {
        let is_stdin = path == Path::new("-");
        let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
        let lines: Box<dyn BufRead + Send> = if is_stdin {
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            let file = File::open(path).map_err(|error| CliError::unopened(&name, error))?;
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        let is_json = match format {
            InputFormat::Lines => false,
            InputFormat::Jsonl => true,
            InputFormat::Auto => format::is_named_jsonl(path),
        };
        let is_guess = format == InputFormat::Auto && !is_json;
        Ok(Self { lines, name, is_json, is_guess, line: 0, is_in_line: false })
    }

    fn place(&self) -> String {
        format!("{}:{}", self.name, self.line)
    }

    /// The line without its end and without a byte order mark at the start of the file.
    fn text(&self, mut line: Vec<u8>) -> Result<String, String> {
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        let text = String::from_utf8(line).map_err(|error| {
            let at = error.utf8_error().valid_up_to() + 1;
            format!("invalid UTF-8 at byte {at} of the line")
        })?;
        let text = if self.line == 1 { text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned() } else { text };
        if let Some(at) = text.find('\0') {
            // Legal for the model, but in practice a UTF-16 or binary file.
            return Err(format!(
                "NUL byte at byte {} of the line: is this UTF-16 or binary? In JSON lines, a text may contain one as \\u0000",
                at + 1
            ));
        }
        Ok(text)
    }

    /// The record of a line, or its identifier, where it can be read, and what is wrong.
    fn record(
        &self,
        line: String,
        default_instruction: &str,
        ignores_unknown_fields: bool,
    ) -> Result<Record, (Option<Box<RawValue>>, String)> {
        let place = self.place();
        if !self.is_json {
            let prompt = Prompt::with_instruction(default_instruction.to_owned(), line);
            return Ok(Record { prompt, id: None, place, bytes_read: 0 });
        }
        if !line.trim_start().starts_with('{') {
            return Err((None, "not a valid record: expected a JSON object".to_owned()));
        }
        let record = JsonRecord::parse(&line, ignores_unknown_fields).map_err(|error| {
            // The parser counts lines within the record, which is always one line; the file's own line is in `place`.
            let (reason, column) = (error.to_string(), error.column());
            let reason = reason.trim_end_matches(&format!(" at line 1 column {column}"));
            let hint = if reason.starts_with("unknown field") {
                "; `embed --ignore-unknown-fields` passes over them"
            } else {
                ""
            };
            (None, format!("not a valid record: {reason} at byte {column} of the line{hint}"))
        })?;
        let id = record.id.map(ToOwned::to_owned);
        let string = |name: &str, value: &RawValue| {
            serde_json::from_str::<String>(value.get()).map_err(|error| {
                // The parser counts from the start of the value.
                let (reason, column) = (error.to_string(), error.column());
                let reason = match reason.strip_suffix(&format!(" at line 1 column {column}")) {
                    _ if error.is_data() => "expected a string".to_owned(),
                    Some(reason) => {
                        let start = value.get().as_ptr().addr() - line.as_ptr().addr();
                        format!("{reason} at byte {} of the line", start + column)
                    }
                    None => reason,
                };
                (id.clone(), format!("not a valid record: field `{name}`: {reason}"))
            })
        };
        let text = string("text", record.text)?;
        let instruction = record.instruction.map(|value| string("instruction", value)).transpose()?;
        let task = record.task.map(|value| string("task", value)).transpose()?;
        let instruction = match (instruction, task) {
            (Some(_), Some(_)) => {
                return Err((id, "has both \"instruction\" and \"task\"; give one of them".to_owned()));
            }
            (Some(instruction), None) => instruction,
            (None, Some(task)) => Prompt::instruction_for(&task),
            (None, None) => default_instruction.to_owned(),
        };
        Ok(Record { prompt: Prompt::with_instruction(instruction, text), id, place, bytes_read: 0 })
    }
}
