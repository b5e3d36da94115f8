//! The whole pipeline: prompts in, embeddings out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::batch::Batch;
use crate::cancel::Patience;
use crate::embeddings::Embeddings;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::library::Library;
use crate::manifest::Manifest;
use crate::on_device::DeviceEmbeddings;
use crate::options::{EncodeOptions, LoadOptions};
use crate::prepare;
use crate::prompt::Prompt;
use crate::running::Running;
use crate::session::Source;
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
    engine: Engine,
    graph_path: PathBuf,
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
        options.provider.check_model(&manifest)?;
        options.provider.check_in_library(&library)?;
        if options.verify_hashes {
            manifest.verify_hashes()?;
        }
        let tokenizer = Tokenizer::open(&manifest)?;
        let engine = Engine::open(&manifest, &library, options, source)?;
        let graph_path = if options.provider.is_gpu() { manifest.graph_path() } else { source.path(&manifest) };
        tracing::debug!(graph = %graph_path.display(), "opened");
        Ok(Self { manifest, library, tokenizer, engine, graph_path })
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
        self.start(self.encode_all(prompts, options)?, options, start)?.finish()
    }

    /// Embeds prompts on a GPU and leaves the rows there, in the order of the prompts, for a search on that GPU.
    ///
    /// The prompts run as one batch. The host waits until it is on its way, not until it is done.
    ///
    /// # Errors
    /// As [`Embedder::embed`]; [`ErrorKind::Option`](crate::ErrorKind::Option) when the model is not open on a GPU, there
    /// are no prompts or more than fit one batch within [`EncodeOptions::max_batch_tokens`] and
    /// [`EncodeOptions::max_batch_size`]; [`ErrorKind::Device`](crate::ErrorKind::Device) when the GPU fails, or
    /// [`CudaOptions::buffer_sets`](crate::CudaOptions::buffer_sets) outputs of that shape are held already.
    pub fn embed_on_device(&self, prompts: &[Prompt<'_>], options: &EncodeOptions) -> Result<DeviceEmbeddings> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Option, message));
        let Some(worker) = self.engine.worker()? else {
            return refuse("the model is open on the CPU, whose embeddings are on no GPU".to_owned());
        };
        let encodings = self.encode_all(prompts, options)?;
        let longest = encodings.iter().map(|encoding| encoding.ids().len()).max().unwrap_or(0);
        let most = self.engine.max_rows(longest, options);
        if !(1..=most).contains(&encodings.len()) {
            let count = encodings.len();
            return refuse(format!("{count} prompts of up to {longest} tokens, allowed are 1 to {most} in one batch"));
        }
        let batch = Batch::new(&encodings.iter().collect::<Vec<_>>(), self.manifest.pad_token_id());
        let place = worker.hold(batch, &Patience::of(options))?;
        let tokens = encodings.iter().map(|encoding| encoding.ids().len()).collect();
        let truncated = encodings.iter().map(Encoding::truncated).collect();
        Ok(DeviceEmbeddings::new(Arc::clone(worker), place, self.dim(), tokens, truncated))
    }

    /// Allocates buffers and records CUDA graphs for every shape that calls with these options can need, so that no call
    /// waits for that. Returns the number of shapes; on the CPU there are none.
    ///
    /// # Errors
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) or [`ErrorKind::Inference`](crate::ErrorKind::Inference) when a
    /// shape cannot be run, for example for want of memory; [`ErrorKind::Option`](crate::ErrorKind::Option) for an option
    /// out of range.
    pub fn warm_up(&self, options: &EncodeOptions) -> Result<usize> {
        options.resolve(self.manifest.max_length())?;
        self.engine.warm_up(options)
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
        &self.graph_path
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
        Patience::of(options).check()?;
        let EncodeOptions { truncation, special_tokens, .. } = *options;
        let encodings = self.tokenizer.encode(prompts, Limits { max_length, truncation, special_tokens });
        let checked = |encoding: Encoding| self.engine.check_length(encoding.ids().len()).map(|()| encoding);
        Ok(encodings.into_iter().map(|encoding| encoding.and_then(checked)).collect())
    }

    /// Tokenizes prompts of which each must be good.
    fn encode_all(&self, prompts: &[Prompt<'_>], options: &EncodeOptions) -> Result<Vec<Encoding>> {
        let named = |(index, encoding): (usize, Result<Encoding>)| encoding.map_err(|error| error.of_prompt(index));
        self.encode(prompts, options)?.into_iter().enumerate().map(named).collect()
    }

    /// Plans, and begins to run.
    pub(crate) fn start(
        &self,
        encodings: Vec<Encoding>,
        options: &EncodeOptions,
        start: Instant,
    ) -> Result<Running<'_>> {
        Running::start(&self.engine, encodings, self.dim(), self.manifest.pad_token_id(), options, start)
    }

    /// Whether runs go on by themselves while the caller tokenizes.
    pub(crate) fn runs_ahead(&self) -> bool {
        self.engine.depth() > 0
    }
}

impl std::fmt::Debug for Embedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedder").field("folder", &self.manifest.folder()).finish_non_exhaustive()
    }
}
