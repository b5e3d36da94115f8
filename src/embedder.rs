//! The whole pipeline: prompts in, embeddings out.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Plan};
use crate::cancel::CancelToken;
use crate::embeddings::{Embeddings, Stats};
use crate::error::Result;
use crate::library::Library;
use crate::manifest::Manifest;
use crate::options::{EncodeOptions, LoadOptions};
use crate::prepare;
use crate::prompt::Prompt;
use crate::session::{Session, Source};
use crate::stream::EmbedIter;
use crate::tokenizer::{Encoding, Limits, Tokenizer};

/// An open model.
///
/// It is `Send` and `Sync`: share one between threads by reference or in an `Arc`. Calls from several threads tokenize
/// side by side and take turns on the graph, which uses all of its threads in each run. More than one `Embedder` of the
/// same model costs its memory again and gains nothing.
pub struct Embedder {
    manifest: Manifest,
    library: Library,
    tokenizer: Tokenizer,
    session: Session,
}

impl Embedder {
    /// Opens a model folder made by the exporter.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) when the folder, manifest, tokenizer or graph is missing, damaged or
    /// not of the kind this runtime implements; [`ErrorKind::Library`](crate::ErrorKind::Library) and
    /// [`ErrorKind::Provider`](crate::ErrorKind::Provider) when ONNX Runtime or the provider asked for cannot be had;
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) when an option is out of range.
    pub fn open(folder: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let manifest = Manifest::open(folder)?;
        let library = Library::load(options.library.as_deref())?;
        let source = prepare::find(&manifest, &library, options).map_or(Source::Model, Source::Prepared);
        Self::open_source(manifest, library, options, &source)
    }

    pub(crate) fn open_source(
        manifest: Manifest,
        library: Library,
        options: &LoadOptions,
        source: &Source,
    ) -> Result<Self> {
        if options.verify_hashes {
            manifest.verify_hashes()?;
        }
        let tokenizer = Tokenizer::open(&manifest)?;
        let session = Session::open(&manifest, &library, options, source)?;
        tracing::debug!(graph = %session.path().display(), "opened");
        Ok(Self { manifest, library, tokenizer, session })
    }

    /// Embeds prompts: row i of the result belongs to `prompts[i]`.
    ///
    /// How the prompts are batched does not show in the rows beyond rounding (1e-6 for an fp32 model).
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) for an option out of range;
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) or [`ErrorKind::TooLong`](crate::ErrorKind::TooLong) naming the first
    /// prompt that cannot be embedded, in which case none is; [`ErrorKind::Inference`](crate::ErrorKind::Inference) when
    /// a run fails; [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) when the options' token was cancelled.
    pub fn embed(&self, prompts: &[Prompt<'_>], options: &EncodeOptions) -> Result<Embeddings> {
        let start = Instant::now();
        let encodings = self.encode(prompts, options)?;
        let encodings: Vec<Encoding> = encodings
            .into_iter()
            .enumerate()
            .map(|(index, encoding)| encoding.map_err(|error| error.of_prompt(index)))
            .collect::<Result<_>>()?;
        self.run(&encodings, options, start)
    }

    /// Embeds a stream of prompts of any length, with bounded memory; the results come in the order of the prompts.
    ///
    /// Prompts are taken in windows ([`EncodeOptions::window`], and a few megabytes of text at most), each embedded as by
    /// [`Embedder::embed`]. A prompt that cannot be embedded yields its error in its place, and the stream goes on; a
    /// run that fails yields its error for every prompt of its window.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) for an option out of range.
    pub fn embed_iter<'e, 'p, I>(&'e self, prompts: I, options: &EncodeOptions) -> Result<EmbedIter<'e, I::IntoIter>>
    where
        I: IntoIterator<Item = Prompt<'p>>,
    {
        options.resolve(self.manifest.max_length())?;
        Ok(EmbedIter::new(self, prompts.into_iter(), options.clone()))
    }

    /// The manifest of the open folder.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The ONNX Runtime library in use.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// The file of the graph that runs: the model folder's own, or one that [`crate::prepare`] made of it.
    pub fn graph_path(&self) -> &Path {
        self.session.path()
    }

    /// D, the embedding dimension.
    pub fn dim(&self) -> usize {
        self.manifest.dim()
    }

    /// The token ids of each prompt, cut to the row limit, and the number of leading ids that are not pooled.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn tokenize(&self, prompts: &[Prompt<'_>], options: &EncodeOptions) -> Result<Vec<(Vec<u32>, usize)>> {
        let encodings = self.encode(prompts, options)?;
        encodings
            .into_iter()
            .map(|encoding| encoding.map(|one| (one.ids().to_vec(), one.instruction_tokens())))
            .collect()
    }

    /// Tokenizes; the outer error is of the options, each inner one of its prompt.
    pub(crate) fn encode(&self, prompts: &[Prompt<'_>], options: &EncodeOptions) -> Result<Vec<Result<Encoding>>> {
        let max_length = options.resolve(self.manifest.max_length())?;
        options.cancel.as_ref().map_or(Ok(()), CancelToken::check)?;
        let EncodeOptions { truncation, special_tokens, .. } = *options;
        let encodings = self.tokenizer.encode(prompts, Limits { max_length, truncation, special_tokens });
        let checked = |encoding: Encoding| self.session.check_length(encoding.ids().len()).map(|()| encoding);
        Ok(encodings.into_iter().map(|encoding| encoding.and_then(checked)).collect())
    }

    /// Plans, runs and puts in order.
    pub(crate) fn run(&self, encodings: &[Encoding], options: &EncodeOptions, start: Instant) -> Result<Embeddings> {
        let lengths: Vec<usize> = encodings.iter().map(|encoding| encoding.ids().len()).collect();
        let plan = Plan::new(&lengths, |longest| {
            let by_budget = (options.max_batch_tokens / longest.max(1)).min(options.max_batch_size);
            by_budget.min(self.session.max_rows(longest))
        });
        let mut embeddings = Embeddings::with_shape(encodings.len(), self.dim(), options.output);
        let mut stats = Stats { batches: plan.batches().len(), tokens: lengths.iter().sum(), ..Stats::default() };
        for rows in plan.batches() {
            let of_batch: Vec<&Encoding> = rows.iter().map(|row| &encodings[*row]).collect();
            let batch = Batch::new(&of_batch, self.manifest.pad_token_id());
            let (output, elapsed) = timed(|| self.session.run(&batch, options.cancel.as_ref()));
            embeddings.set(rows, &output?)?;
            let (rows, length) = batch.shape();
            stats.padded_tokens += rows * length;
            stats.session_time += elapsed;
        }
        for (row, encoding) in encodings.iter().enumerate() {
            embeddings.set_info(row, encoding.ids().len(), encoding.truncated());
        }
        stats.total_time = start.elapsed();
        embeddings.set_stats(stats);
        Ok(embeddings)
    }
}

impl std::fmt::Debug for Embedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedder").field("folder", &self.manifest.folder()).finish_non_exhaustive()
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
