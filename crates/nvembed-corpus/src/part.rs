//! One part: a Parquet file that is there once it is whole.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::file::metadata::KeyValue;
use tempfile::NamedTempFile;

use crate::columns::{ContentHash, GROUP_ROWS, Layout, OutputRow};
use crate::error::{Error, Result};
use crate::files::{publish, unfinished};
use crate::manifest::Manifest;
use crate::options::Compression;

/// The names of what a part's footer says.
const CORPUS: &str = "nvembed.corpus";
const PART: &str = "nvembed.part";
const CONTENT: &str = "nvembed.content_sha256";

/// Writes one part.
pub(crate) struct PartWriter {
    layout: Layout,
    path: PathBuf,
    file: NamedTempFile,
    writer: ArrowWriter<BufWriter<File>>,
    hash: ContentHash,
    group: Vec<OutputRow>,
}

/// What the footer of a part says of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) rows: u64,
    pub(crate) corpus: Option<String>,
    pub(crate) part: Option<String>,
    pub(crate) content: Option<String>,
}

impl PartWriter {
    /// # Errors
    /// [`Error::Output`].
    pub(crate) fn create(folder: &Path, manifest: &Manifest, part: usize, layout: Layout) -> Result<Self> {
        let path = folder.join(manifest.name_of(part));
        let file = unfinished(folder)?;
        let target = file.as_file().try_clone().map_err(|error| Error::output(&path, error))?;
        let compression = manifest.options.compression.parse().unwrap_or(Compression::Zstd);
        let (schema, properties) = (layout.schema(), layout.properties(compression));
        let hash = ContentHash::new(&schema);
        let mut writer = ArrowWriter::try_new(BufWriter::with_capacity(1 << 20, target), schema, Some(properties))
            .map_err(|error| Error::parquet_output(&path, error))?;
        let options = serde_json::to_string(&manifest.options).map_err(|error| Error::output(&path, error.into()))?;
        for (name, value) in [
            (CORPUS, manifest.digest()),
            (PART, manifest.name_of(part)),
            ("nvembed.first_row", manifest.rows_of(part).start.to_string()),
            ("nvembed.model", manifest.model.name.clone()),
            ("nvembed.model_manifest_sha256", manifest.model.digest.clone()),
            ("nvembed.precision", manifest.model.precision.clone()),
            ("nvembed.provider", manifest.model.provider.clone()),
            ("nvembed.dtype", manifest.options.dtype.clone()),
            ("nvembed.dimensions", manifest.options.dimensions.to_string()),
            ("nvembed.options", options),
        ] {
            writer.append_key_value_metadata(KeyValue::new(name.to_owned(), value));
        }
        Ok(Self { layout, path, file, writer, hash, group: Vec::with_capacity(GROUP_ROWS) })
    }

    /// The file that is there until the part is whole.
    pub(crate) fn unfinished(&self) -> &Path {
        self.file.path()
    }

    /// # Errors
    /// [`Error::Output`].
    pub(crate) fn row(&mut self, row: OutputRow) -> Result<()> {
        self.group.push(row);
        if self.group.len() == GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let batch = self.layout.batch(&self.group).map_err(|error| Error::parquet_output(&self.path, error.into()))?;
        self.group.clear();
        self.hash.add(&batch);
        self.writer
            .write(&batch)
            .and_then(|()| self.writer.flush())
            .map_err(|error| Error::parquet_output(&self.path, error))
    }

    /// Completes the file, reads its footer again, and gives the file its name.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub(crate) fn finish(mut self, manifest: &Manifest, part: usize) -> Result<()> {
        if !self.group.is_empty() {
            self.flush()?;
        }
        self.writer.append_key_value_metadata(KeyValue::new(CONTENT.to_owned(), self.hash.finish()));
        self.writer.close().map_err(|error| Error::parquet_output(&self.path, error))?;
        if let Err(reason) = check(self.file.path(), manifest, part) {
            return Err(Error::output(
                &self.path,
                std::io::Error::other(format!("what was written is damaged: {reason}")),
            ));
        }
        publish(self.file, &self.path)
    }
}

/// Reads the footer of a part.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn footer(path: &Path) -> std::result::Result<Footer, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|error| error.to_string())?;
    let metadata = metadata.metadata().file_metadata();
    let value = |name: &str| {
        let pairs = metadata.key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == name).and_then(|pair| pair.value.clone())
    };
    let rows = metadata.num_rows().max(0) as u64;
    Ok(Footer { rows, corpus: value(CORPUS), part: value(PART), content: value(CONTENT) })
}

/// Checks by its footer that a file is whole, and this part of this corpus.
///
/// # Errors
/// Why not.
pub(crate) fn check(path: &Path, manifest: &Manifest, part: usize) -> std::result::Result<(), String> {
    let Footer { rows, corpus, part: name, content } = footer(path)?;
    let wanted = manifest.rows_of(part);
    let wanted = wanted.end - wanted.start;
    if corpus.as_deref() != Some(&manifest.digest()) {
        return Err("it belongs to another corpus".to_owned());
    }
    if name.as_deref() != Some(&manifest.name_of(part)) {
        return Err(format!("it is {} under another name", name.unwrap_or_default()));
    }
    if rows != wanted || content.is_none() {
        return Err(format!("it has {rows} rows, expected {wanted}"));
    }
    Ok(())
}

/// Reads a whole part and compares its content with the hash in its footer; `on_batch` gets every batch.
///
/// # Errors
/// What is wrong.
pub(crate) fn read(path: &Path, mut on_batch: impl FnMut(&RecordBatch)) -> std::result::Result<(), String> {
    let wanted = footer(path)?.content;
    let file = File::open(path).map_err(|error| error.to_string())?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let mut hash = ContentHash::new(builder.schema());
    let reader = builder.with_batch_size(1024).build().map_err(|error| error.to_string())?;
    for batch in reader {
        let batch = batch.map_err(|error| error.to_string())?;
        hash.add(&batch);
        on_batch(&batch);
    }
    if Some(hash.finish()) == wanted { Ok(()) } else { Err("its content is not what was written".to_owned()) }
}

/// Reads some columns of a part.
///
/// # Errors
/// Why they cannot be read.
pub(crate) fn read_columns(
    path: &Path,
    names: &[&str],
    mut on_batch: impl FnMut(&RecordBatch),
) -> std::result::Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    for batch in builder.with_projection(mask).build().map_err(|error| error.to_string())? {
        on_batch(&batch.map_err(|error| error.to_string())?);
    }
    Ok(())
}
