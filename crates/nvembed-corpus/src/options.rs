//! What a corpus job is asked to do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nvembed::{Dtype, EmbedOptions};

use crate::error::{Error, Result};

/// The most rows of a part: 2²⁴. A part is what an interruption can cost, so more is never useful.
const MAX_SHARD_ROWS: u64 = 1 << 24;

/// Options of a corpus job. New options may be added: start from [`CorpusOptions::new`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CorpusOptions {
    /// The files with the texts, in order.
    pub inputs: Vec<PathBuf>,
    /// The folder for the manifest and the parts.
    pub out: PathBuf,
    /// What the input files hold.
    pub format: Format,
    /// The column or field with the text. Default: `text`.
    pub text: String,
    /// The column or field with the identifier. `None`: `id` where the input has it, otherwise rows are numbered from 0.
    pub id: Option<String>,
    /// The column or field with a literal instruction per text, if there is one.
    pub instruction_field: Option<String>,
    /// The literal instruction of texts that have none of their own.
    pub instruction: String,
    /// How texts become rows. Element type and dimensions are those of the output; f16 by default.
    pub embed: EmbedOptions,
    /// Rows of a part.
    pub shard_rows: u64,
    /// Which of the parts this process makes.
    pub shard: Shard,
    /// How columns are compressed.
    pub compression: Compression,
    /// What happens to a record that cannot be embedded.
    pub on_error: OnError,
    /// Whether the SHA-256 of each text is written too.
    pub text_hash: bool,
    /// Whether a text that comes more than once in a part is embedded once.
    pub dedupe: bool,
    /// Whether an existing corpus in the folder is removed first.
    pub start_over: bool,
}

impl CorpusOptions {
    /// The defaults, for these inputs and this folder.
    pub fn new(inputs: Vec<PathBuf>, out: impl AsRef<Path>) -> Self {
        let mut embed = EmbedOptions::default();
        embed.dtype = Dtype::F16;
        Self {
            inputs,
            out: out.as_ref().to_owned(),
            format: Format::default(),
            text: "text".to_owned(),
            id: None,
            instruction_field: None,
            instruction: String::new(),
            embed,
            shard_rows: 65_536,
            shard: Shard::default(),
            compression: Compression::default(),
            on_error: OnError::default(),
            text_hash: false,
            dedupe: false,
            start_over: false,
        }
    }

    /// # Errors
    /// [`Error::Option`] naming the value and its limits.
    pub(crate) fn check(&self) -> Result<()> {
        if self.inputs.is_empty() {
            return Err(Error::Option("there is no `input`: name the files with the texts".to_owned()));
        }
        if !(1..=MAX_SHARD_ROWS).contains(&self.shard_rows) {
            let message = format!("`shard_rows` must be 1 to {MAX_SHARD_ROWS}, got {}", self.shard_rows);
            return Err(Error::Option(message));
        }
        let fields = [Some(&self.text), self.id.as_ref(), self.instruction_field.as_ref()];
        let fields: Vec<_> = fields.into_iter().flatten().collect();
        for (index, field) in fields.iter().enumerate() {
            if fields[..index].contains(field) {
                let message =
                    format!("`text`, `id` and `instruction_field` must be different fields, got {field:?} twice");
                return Err(Error::Option(message));
            }
        }
        Ok(())
    }
}

/// What an input file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// Parquet for files named .parquet, JSON lines for .jsonl and .ndjson, otherwise lines.
    #[default]
    Auto,
    /// Each line is a text; an empty line is an empty text.
    Lines,
    /// Each line is a JSON object; empty lines are skipped.
    Jsonl,
    /// Parquet, of which only the columns in use are read.
    Parquet,
}

/// What happens to a record that cannot be embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnError {
    /// The job ends and names it.
    #[default]
    Stop,
    /// Its embedding is null, and a column says why.
    Skip,
}

/// How columns are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Zstandard.
    #[default]
    Zstd,
    /// Not at all.
    None,
}

/// One of `count` processes that share a corpus; it makes every `count`-th part, beginning with part `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

impl Shard {
    /// Shard `index` of `count`, counted from 0.
    ///
    /// # Errors
    /// [`Error::Option`] unless `index` is less than `count`.
    pub fn new(index: usize, count: usize) -> Result<Self> {
        if index < count {
            return Ok(Self { index, count });
        }
        let last = count.saturating_sub(1);
        let message = format!("`shard` must be I/N with I from 0 to N - 1 ({last} here), got {index}/{count}");
        Err(Error::Option(message))
    }

    /// Whether this process makes part `part`.
    pub fn has(self, part: usize) -> bool {
        part % self.count == self.index
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        let (index, count) =
            numbers.ok_or_else(|| Error::Option(format!("`shard` must be two numbers I/N, got {text:?}")))?;
        Self::new(index, count)
    }
}

/// Enumerations whose values have names.
macro_rules! named {
    ($type:ident, $option:literal, $($value:ident => $name:literal),+) => {
        impl $type {
            /// The name of the value, as options have it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$value => $name),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                match name {
                    $($name => Ok(Self::$value),)+
                    _ => Err(Error::Option(format!(
                        "`{}` must be one of {}, got {name:?}", $option, [$($name),+].join(", ")
                    ))),
                }
            }
        }
    };
}

named!(Format, "format", Auto => "auto", Lines => "lines", Jsonl => "jsonl", Parquet => "parquet");
named!(OnError, "on_error", Stop => "stop", Skip => "skip");
named!(Compression, "compression", Zstd => "zstd", None => "none");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_belongs_to_exactly_one_shard() {
        let shards: Vec<_> = (0..3).map(|index| format!("{index}/3").parse::<Shard>().unwrap()).collect();
        for part in 0..20 {
            assert_eq!(shards.iter().filter(|shard| shard.has(part)).count(), 1);
        }
        for bad in ["3/3", "1", "a/b", "0/0", "-1/2", "1/2/3"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_name_lists_those_there_are() {
        assert_eq!("skip".parse::<OnError>().unwrap(), OnError::Skip);
        let error = "csv".parse::<Format>().unwrap_err().to_string();
        assert_eq!(error, "`format` must be one of auto, lines, jsonl, parquet, got \"csv\"");
    }

    #[test]
    fn the_same_field_is_not_taken_twice() {
        let mut options = CorpusOptions::new(vec!["a.jsonl".into()], "out");
        assert!(options.check().is_ok());
        options.id = Some("text".to_owned());
        assert!(options.check().unwrap_err().to_string().contains("\"text\" twice"));
    }
}
