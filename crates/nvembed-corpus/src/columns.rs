//! The columns of a part: their types, how they are written, and what stands for their content.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, FixedSizeBinaryBuilder, Float32Builder, Int32Builder, Int64Builder, StringBuilder,
};
use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, Float16Array, Float32Array, Int8Array, RecordBatch, UInt8Array,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, SchemaRef};
use half::f16;
use nvembed::{Dtype, Embedding, Row};
use parquet::basic::{Compression as Codec, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::input::{Id, IdType, Reason};
use crate::options::Compression;

/// Rows of a row group: what a writer and every reader hold in memory at a time, 64 MiB for rows of 4,096 f32.
pub(crate) const GROUP_ROWS: usize = 4096;

/// What the columns of a part are.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) dtype: Dtype,
    /// The numbers of a row.
    pub(crate) dimensions: usize,
    pub(crate) id_type: IdType,
    /// Whether rows may lack an embedding, and say why.
    pub(crate) has_errors: bool,
    pub(crate) has_hashes: bool,
}

/// One row of a part.
#[derive(Debug)]
pub(crate) struct OutputRow {
    pub(crate) id: Option<Id>,
    pub(crate) text_sha256: Option<[u8; 32]>,
    pub(crate) content: Result<Embedding, Reason>,
}

impl Layout {
    /// Elements of a row as it is stored.
    fn width(&self) -> i32 {
        i32::try_from(self.dtype.elements(self.dimensions)).unwrap_or(i32::MAX)
    }

    /// The type of an element. `element` is its name in the Parquet format's own lists.
    fn element(&self) -> FieldRef {
        let data_type = match self.dtype {
            Dtype::F16 => DataType::Float16,
            Dtype::Int8 => DataType::Int8,
            Dtype::Binary => DataType::UInt8,
            _ => DataType::Float32,
        };
        Arc::new(Field::new("element", data_type, false))
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        let id = match self.id_type {
            IdType::Int64 => DataType::Int64,
            IdType::String => DataType::Utf8,
        };
        let may_lack = self.has_errors;
        let embedding = DataType::FixedSizeList(self.element(), self.width());
        let mut fields = vec![Field::new("id", id, may_lack), Field::new("embedding", embedding, may_lack)];
        if self.dtype == Dtype::Int8 {
            fields.push(Field::new("scale", DataType::Float32, may_lack));
        }
        fields.push(Field::new("tokens", DataType::Int32, may_lack));
        fields.push(Field::new("truncated", DataType::Boolean, may_lack));
        if self.has_hashes {
            fields.push(Field::new("text_sha256", DataType::FixedSizeBinary(32), may_lack));
        }
        if self.has_errors {
            fields.push(Field::new("error_kind", DataType::Utf8, true));
            fields.push(Field::new("error", DataType::Utf8, true));
        }
        Arc::new(Schema::new(fields))
    }

    /// How they are written. Parquet has no integers of one byte and stores plain ones in four, so those keep a dictionary;
    /// f32 is smallest with its bytes in separate streams. So would f16 be, but DuckDB 2.0 does not read that
    /// (docs/lab/corpus.md has the sizes).
    pub(crate) fn properties(&self, compression: Compression) -> WriterProperties {
        let embedding = ColumnPath::new(["embedding", "list", "element"].map(str::to_owned).to_vec());
        let codec = match compression {
            Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
            Compression::None => Codec::UNCOMPRESSED,
        };
        let builder = WriterProperties::builder()
            .set_created_by(format!("nvembed {}", env!("CARGO_PKG_VERSION")))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_compression(codec)
            .set_column_statistics_enabled(embedding.clone(), EnabledStatistics::None);
        let builder = match self.dtype {
            Dtype::Int8 | Dtype::Binary => builder,
            dtype => {
                let encoding = if dtype == Dtype::F16 { Encoding::PLAIN } else { Encoding::BYTE_STREAM_SPLIT };
                builder.set_column_dictionary_enabled(embedding.clone(), false).set_column_encoding(embedding, encoding)
            }
        };
        builder.build()
    }

    /// Rows as columns.
    ///
    /// # Errors
    /// When the arrays do not fit the schema, which would be a mistake here.
    pub(crate) fn batch(&self, rows: &[OutputRow]) -> Result<RecordBatch, ArrowError> {
        let embeddings = || rows.iter().map(|row| row.content.as_ref().ok());
        let mut columns: Vec<ArrayRef> = vec![self.ids(rows), self.embeddings(embeddings())?];
        if self.dtype == Dtype::Int8 {
            let mut scales = Float32Builder::with_capacity(rows.len());
            embeddings().for_each(|embedding| {
                scales.append_option(embedding.map(|embedding| match &embedding.values {
                    Row::Int8 { scale, .. } => *scale,
                    _ => 1.0,
                }));
            });
            columns.push(Arc::new(scales.finish()));
        }
        let mut tokens = Int32Builder::with_capacity(rows.len());
        let mut truncated = BooleanBuilder::with_capacity(rows.len());
        for embedding in embeddings() {
            tokens.append_option(embedding.map(|embedding| i32::try_from(embedding.tokens).unwrap_or(i32::MAX)));
            truncated.append_option(embedding.map(|embedding| embedding.truncated));
        }
        columns.push(Arc::new(tokens.finish()));
        columns.push(Arc::new(truncated.finish()));
        if self.has_hashes {
            let mut hashes = FixedSizeBinaryBuilder::with_capacity(rows.len(), 32);
            for row in rows {
                match &row.text_sha256 {
                    Some(hash) => hashes.append_value(hash)?,
                    None => hashes.append_null(),
                }
            }
            columns.push(Arc::new(hashes.finish()));
        }
        if self.has_errors {
            for part in [|reason: &Reason| reason.kind.to_owned(), |reason: &Reason| reason.message.clone()] {
                let mut texts = StringBuilder::new();
                rows.iter().for_each(|row| texts.append_option(row.content.as_ref().err().map(part)));
                columns.push(Arc::new(texts.finish()));
            }
        }
        RecordBatch::try_new(self.schema(), columns)
    }

    fn ids(&self, rows: &[OutputRow]) -> ArrayRef {
        match self.id_type {
            IdType::Int64 => {
                let mut ids = Int64Builder::with_capacity(rows.len());
                for row in rows {
                    ids.append_option(
                        row.id.as_ref().and_then(|id| if let Id::Number(id) = id { Some(*id) } else { None }),
                    );
                }
                Arc::new(ids.finish())
            }
            IdType::String => {
                let mut ids = StringBuilder::new();
                for row in rows {
                    ids.append_option(
                        row.id.as_ref().and_then(|id| if let Id::Text(id) = id { Some(id) } else { None }),
                    );
                }
                Arc::new(ids.finish())
            }
        }
    }

    fn embeddings<'r>(
        &self,
        rows: impl Iterator<Item = Option<&'r Embedding>> + Clone,
    ) -> Result<ArrayRef, ArrowError> {
        let width = self.width() as usize;
        /// The elements of all rows, with zeros for those that have none.
        fn flat<'r, T: Default + Clone + 'r>(
            rows: impl Iterator<Item = Option<&'r Embedding>>,
            width: usize,
            of: impl Fn(&'r Row) -> Option<&'r [T]>,
        ) -> Vec<T> {
            let mut all = Vec::new();
            for row in rows {
                match row.and_then(|embedding| of(&embedding.values)) {
                    Some(values) => all.extend_from_slice(values),
                    None => all.resize(all.len() + width, T::default()),
                }
            }
            all
        }
        let values: ArrayRef = match self.dtype {
            Dtype::F16 => Arc::new(Float16Array::from(flat::<f16>(rows.clone(), width, |row| match row {
                Row::F16(values) => Some(values),
                _ => None,
            }))),
            Dtype::Int8 => Arc::new(Int8Array::from(flat(rows.clone(), width, |row| match row {
                Row::Int8 { values, .. } => Some(values),
                _ => None,
            }))),
            Dtype::Binary => Arc::new(UInt8Array::from(flat(rows.clone(), width, |row| match row {
                Row::Binary { bytes, .. } => Some(bytes),
                _ => None,
            }))),
            _ => Arc::new(Float32Array::from(flat(rows.clone(), width, |row| match row {
                Row::F32(values) => Some(values),
                _ => None,
            }))),
        };
        let nulls: NullBuffer = rows.map(|row| row.is_some()).collect::<Vec<_>>().into();
        let nulls = Some(nulls).filter(|nulls| nulls.null_count() > 0);
        Ok(Arc::new(FixedSizeListArray::try_new(self.element(), self.width(), values, nulls)?))
    }
}

/// The content of columns, however they are cut into batches, encoded and compressed: a SHA-256 of every value and its being
/// there.
pub(crate) struct ContentHash(Vec<sha2::Sha256>);

impl ContentHash {
    pub(crate) fn new(schema: &Schema) -> Self {
        use sha2::Digest as _;
        Self(schema.fields().iter().map(|_| sha2::Sha256::new()).collect())
    }

    pub(crate) fn add(&mut self, batch: &RecordBatch) {
        use sha2::Digest as _;
        for (hasher, column) in self.0.iter_mut().zip(batch.columns()) {
            for_each_value(column, |value| match value {
                Some(bytes) => {
                    hasher.update([1]);
                    hasher.update((bytes.len() as u64).to_le_bytes());
                    hasher.update(bytes);
                }
                None => hasher.update([0]),
            });
        }
    }

    pub(crate) fn finish(self) -> String {
        use sha2::Digest as _;
        let columns: Vec<_> = self.0.into_iter().map(|hasher| hasher.finalize()).collect();
        crate::hash::sha256(columns.concat())
    }
}

/// The bytes of each value of a column of a part; `None` for null.
fn for_each_value(column: &ArrayRef, mut each: impl FnMut(Option<&[u8]>)) {
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float32Type, Int32Type, Int64Type};

    let mut at = |row: usize, bytes: &[u8]| each(column.is_valid(row).then_some(bytes));
    let rows = 0..column.len();
    match column.data_type() {
        DataType::Int64 => {
            rows.for_each(|row| at(row, &column.as_primitive::<Int64Type>().value(row).to_le_bytes()));
        }
        DataType::Int32 => {
            rows.for_each(|row| at(row, &column.as_primitive::<Int32Type>().value(row).to_le_bytes()));
        }
        DataType::Float32 => {
            rows.for_each(|row| at(row, &column.as_primitive::<Float32Type>().value(row).to_le_bytes()));
        }
        DataType::Boolean => rows.for_each(|row| at(row, &[u8::from(column.as_boolean().value(row))])),
        DataType::Utf8 => rows.for_each(|row| at(row, column.as_string::<i32>().value(row).as_bytes())),
        DataType::FixedSizeBinary(_) => rows.for_each(|row| at(row, column.as_fixed_size_binary().value(row))),
        DataType::FixedSizeList(..) => {
            let list = column.as_fixed_size_list();
            let data = list.values().to_data();
            let size = data.data_type().primitive_width().unwrap_or(1);
            let width = list.value_length() as usize * size;
            let bytes = data.buffers().first().map(|buffer| buffer.as_slice()).unwrap_or_default();
            rows.for_each(|row| {
                let start = data.offset() * size + row * width;
                at(row, &bytes[start..start + width]);
            });
        }
        // A part has no others; a file that has is not one, as its hash then says.
        _ => each(None),
    }
}
