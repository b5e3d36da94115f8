//! Columns of Parquet files.

use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use super::{Fields, Id, IdType, Reason, Record, open};
use crate::error::{Error, Result};

/// Bytes of a batch that is read at a time, as far as the file's own averages tell.
const BATCH_BYTES: u64 = 4 << 20;
/// The most rows of such a batch.
const BATCH_ROWS: u64 = 1024;

/// The footer of a file, with its columns as the Parquet types alone say: what a writer's library added (dictionaries, large
/// strings) changes nothing about the values.
fn metadata(path: &Path) -> Result<ArrowReaderMetadata> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ArrowReaderMetadata::load(&open(path)?, options).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::input(path, format!("cannot be read as Parquet: {error}"))
}

/// The columns of a file.
pub(crate) struct Columns {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

impl Columns {
    /// # Errors
    /// [`Error::Input`].
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), metadata: metadata(path)? })
    }

    /// The type of identifiers in a column; `None` when there is no such column.
    ///
    /// # Errors
    /// [`Error::Input`] for a column of another type.
    pub(crate) fn id_type(&self, name: &str) -> Result<Option<IdType>> {
        let Ok(field) = self.metadata.schema().field_with_name(name) else { return Ok(None) };
        match field.data_type() {
            DataType::Utf8 => Ok(Some(IdType::String)),
            integer if integer.is_integer() => Ok(Some(IdType::Int64)),
            other => {
                let message = format!("column {name:?} is {other}; identifiers (`id`) must be integers or strings");
                Err(Error::input(&self.path, message))
            }
        }
    }

    /// # Errors
    /// [`Error::Input`] when a column in use is missing or of another type.
    pub(crate) fn check(&self, fields: &Fields) -> Result<()> {
        let texts = [(Some(&fields.text), "text"), (fields.instruction.as_ref(), "instruction_field")];
        for (name, option) in texts {
            let Some(name) = name else { continue };
            let schema = self.metadata.schema();
            let Ok(field) = schema.field_with_name(name) else {
                let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let message = format!("has no column {name:?} (`{option}`); it has {}", names.join(", "));
                return Err(Error::input(&self.path, message));
            };
            if *field.data_type() != DataType::Utf8 {
                let message = format!("column {name:?} is {}, not a string (`{option}`)", field.data_type());
                return Err(Error::input(&self.path, message));
            }
        }
        let Some(name) = &fields.id else { return Ok(()) };
        match self.id_type(name)? {
            Some(id_type) if id_type == fields.id_type => Ok(()),
            Some(_) => {
                Err(Error::input(&self.path, format!("column {name:?} is of another type than in the first file")))
            }
            None => Err(Error::input(&self.path, format!("has no column {name:?} (`id`)"))),
        }
    }
}

/// For each row group its rows, and the uncompressed bytes of the text column.
///
/// # Errors
/// [`Error::Input`].
pub(crate) fn row_groups(path: &Path, text: &str) -> Result<Vec<(u64, u64)>> {
    let metadata = metadata(path)?;
    let groups = metadata.metadata().row_groups().iter().map(|group| {
        let bytes = group.columns().iter().filter(|column| column.column_path().parts() == [text]);
        let bytes = bytes.map(|column| column.uncompressed_size().max(0) as u64).sum();
        (group.num_rows().max(0) as u64, bytes)
    });
    Ok(groups.collect())
}

/// Rows of a Parquet file.
pub(crate) struct ParquetRows {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    /// The next row of the batch.
    next: usize,
}

impl ParquetRows {
    /// Rows from `start` on, at most `count`.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub(crate) fn open(path: &Path, fields: &Fields, start: u64, count: u64) -> Result<Self> {
        let metadata = metadata(path)?;
        // Only the row groups that have some of these rows.
        let (mut first, mut groups, mut offset) = (0, Vec::new(), 0);
        let (mut bytes, mut rows) = (0, 0);
        for (index, group) in metadata.metadata().row_groups().iter().enumerate() {
            let end = first + group.num_rows().max(0) as u64;
            if end > start && first < start.saturating_add(count) {
                if groups.is_empty() {
                    offset = start - first;
                }
                groups.push(index);
                let text = group.columns().iter().filter(|column| column.column_path().parts() == [&*fields.text]);
                bytes += text.map(|column| column.uncompressed_size().max(0) as u64).sum::<u64>();
                rows += end - first;
            }
            first = end;
        }
        let columns = [Some(&fields.text), fields.id.as_ref(), fields.instruction.as_ref()];
        let columns = columns.into_iter().flatten().map(String::as_str);
        let batch_rows = (BATCH_BYTES * rows).checked_div(bytes).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(open(path)?, metadata);
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
        let builder = builder.with_projection(mask).with_row_groups(groups).with_batch_size(batch_rows as usize);
        let builder = builder.with_offset(offset as usize).with_limit(count as usize);
        let reader = builder.build().map_err(|error| unreadable(path, error))?;
        Ok(Self { path: path.to_owned(), reader, batch: None, next: 0 })
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Input`] when the file cannot be read.
    pub(crate) fn next(&mut self, fields: &Fields) -> Result<Option<Record>> {
        loop {
            match &self.batch {
                Some(batch) if self.next < batch.num_rows() => {
                    self.next += 1;
                    return Ok(Some(record(batch, self.next - 1, fields)));
                }
                _ => {
                    let Some(batch) = self.reader.next() else { return Ok(None) };
                    self.batch = Some(batch.map_err(|error| unreadable(&self.path, error))?);
                    self.next = 0;
                }
            }
        }
    }
}

fn record(batch: &RecordBatch, row: usize, fields: &Fields) -> Record {
    let string = |name: &str| {
        let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>())?;
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let id = fields.id.as_deref().map(|name| {
        let id = match fields.id_type {
            IdType::String => string(name).map(Id::Text),
            IdType::Int64 => integer(batch.column_by_name(name), row).map(Id::Number),
        };
        id.ok_or_else(|| Reason::input(format!("column {name:?}: null, or not an integer of 64 bits")))
    });
    let (id, bad_id) = match id.transpose() {
        Ok(id) => (id, None),
        Err(reason) => (None, Some(reason)),
    };
    let text = string(&fields.text);
    let content = match (bad_id, text) {
        (Some(reason), _) => Err(reason),
        (None, Some(text)) => Ok((fields.instruction.as_deref().and_then(string), text)),
        (None, None) => Err(Reason::input(format!("column {:?}: the text is null", fields.text))),
    };
    Record { id, content }
}

fn integer(column: Option<&arrow_array::ArrayRef>, row: usize) -> Option<i64> {
    let column = column?;
    if column.is_null(row) {
        return None;
    }
    macro_rules! value {
        ($type:ty) => {
            i64::try_from(column.as_primitive_opt::<$type>()?.value(row)).ok()
        };
    }
    match column.data_type() {
        DataType::Int8 => value!(Int8Type),
        DataType::Int16 => value!(Int16Type),
        DataType::Int32 => value!(Int32Type),
        DataType::Int64 => value!(Int64Type),
        DataType::UInt8 => value!(UInt8Type),
        DataType::UInt16 => value!(UInt16Type),
        DataType::UInt32 => value!(UInt32Type),
        DataType::UInt64 => value!(UInt64Type),
        _ => None,
    }
}
