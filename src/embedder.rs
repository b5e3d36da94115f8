//! The whole pipeline: prompts in, embeddings out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::batch::Shape;
use crate::cache::{Entry, Place};
use crate::embeddings::{Dtype, Embeddings};
use crate::error::{Error, ErrorKind, Result};
use crate::execution::gpu::DeviceEmbeddings;
use crate::execution::{Executor, Opening};
use crate::model::Manifest;
use crate::onnxruntime::{GraphFile, Library};
use crate::options::{EmbedOptions, ModelOptions};
use crate::pipeline::Pipeline;
use crate::prompt::Prompt;
use crate::provider::Provider;
use crate::self_check::SelfCheck;
use crate::stream::EmbedIter;
use crate::tokenize::{Encoding, Tokenizer, Tokens};

/// An open model.
///
/// It is `Send` and `Sync`: share one between threads by reference or in an `Arc`. Calls from several threads tokenize at the
/// same time and take turns on the graph, since each run uses all of the session's threads. A second `Embedder` of the same
/// model needs its memory again and gains nothing.
pub struct Embedder {
    manifest: Manifest,
    library: Library,
    provider: Provider,
    pub(crate) pipeline: Pipeline,
    graph_path: PathBuf,
}

impl Embedder {
    /// Opens a model folder made by the exporter.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] when the folder, manifest, tokenizer or graph is missing, damaged or not of the kind this version
    /// implements; [`ErrorKind::Library`] and [`ErrorKind::Provider`] when ONNX Runtime or the provider cannot be used;
    /// [`ErrorKind::Option`] when an option is out of range or the provider ignores it. [`ErrorKind::Provider`] also when the
    /// golden rows are not what they should be; see [`ModelOptions::self_check`].
    pub fn open(folder: impl AsRef<Path>, options: &ModelOptions) -> Result<Self> {
        if options.gpu.target_gpu.is_some() {
            let message = "`target_gpu` is for nvembed prepare; a model opens on the GPUs of `device_ids`";
            return Err(Error::new(ErrorKind::Option, message));
        }
        let opening = Opening::new(folder, options)?;
        let entry = Place::of(&opening).and_then(|place| place.find(options.verify_hashes));
        let check = SelfCheck::new(&opening, entry.as_ref());
        let embedder = Self::assemble(&opening, entry.as_ref())?;
        check.run(&embedder.pipeline)?;
        Ok(embedder)
    }

    /// Opens tokenizer and graph, with what was prepared if there is an entry.
    ///
    /// # Errors
    /// As [`Embedder::open`].
    pub(crate) fn assemble(opening: &Opening, entry: Option<&Entry>) -> Result<Self> {
        let (manifest, library) = (opening.manifest.clone(), opening.library.clone());
        let tokenizer = Tokenizer::open(&manifest)?;
        let (executor, file) = match &opening.shapes {
            Some(shapes) => {
                let engines = entry.map(|entry| entry.folder().to_owned());
                if engines.is_none() {
                    check_engines_may_be_built(opening)?;
                }
                let file = match &engines {
                    Some(folder) if opening.options.provider.compiles() => GraphFile::Prepared(folder.clone()),
                    _ => GraphFile::Model,
                };
                (Executor::on_gpus(opening, shapes, engines)?, file)
            }
            None => {
                let file = match entry.cloned() {
                    None => GraphFile::Model,
                    Some(Entry::Filling(folder)) => GraphFile::SaveInto(folder),
                    Some(Entry::Complete(folder)) => GraphFile::Prepared(folder),
                };
                (Executor::on_host(opening, &file)?, file)
            }
        };
        let graph_path = file.path(&manifest);
        let pipeline = Pipeline::new(&manifest, tokenizer, executor);
        Ok(Self { manifest, library, provider: opening.options.provider, pipeline, graph_path })
    }

    /// Embeds prompts: row i of the result belongs to `prompts[i]`.
    ///
    /// How prompts are batched does not change the rows beyond rounding (1e-6 for an fp32 model).
    ///
    /// # Errors
    /// [`ErrorKind::Option`] for an option out of range; [`ErrorKind::Input`] or [`ErrorKind::TooLong`] naming the first
    /// prompt that cannot be embedded, in which case none is; [`ErrorKind::Inference`] when a run fails;
    /// [`ErrorKind::Cancelled`] or [`ErrorKind::DeadlineExceeded`] when the options end the call.
    pub fn embed(&self, prompts: &[Prompt<'_>], options: &EmbedOptions) -> Result<Embeddings> {
        let start = Instant::now();
        let encodings = self.pipeline.encode_all(prompts, options)?;
        self.pipeline.start(encodings, options, start)?.finish()
    }

    /// Embeds prompts on a GPU and leaves the rows there, in the order of the prompts, for a search on that GPU.
    ///
    /// The prompts run as one batch. The host waits until the run has started, not until it is done.
    ///
    /// # Errors
    /// As [`Embedder::embed`]; [`ErrorKind::Option`] when the model is not open on a GPU, or when there are no prompts or more
    /// than fit one batch within [`EmbedOptions::max_batch_tokens`] and [`EmbedOptions::max_batch_size`];
    /// [`ErrorKind::Device`] when the GPU fails, or when
    /// [`GpuOptions::buffer_sets`](crate::gpu::GpuOptions::buffer_sets) outputs of that shape are already held.
    pub fn embed_on_device(&self, prompts: &[Prompt<'_>], options: &EmbedOptions) -> Result<DeviceEmbeddings> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Option, message));
        let Some(worker) = self.pipeline.executor.worker()? else {
            let provider = self.provider;
            return refuse(format!(
                "the model is open on {provider}: open it with a GPU `provider` to keep rows on a GPU"
            ));
        };
        if options.dimensions.is_some() || !matches!(options.dtype, Dtype::F32 | Dtype::F16) {
            return refuse(
                "rows on a GPU are as the graph returns them: leave `dimensions` and `dtype` out".to_owned(),
            );
        }
        let encodings = self.pipeline.encode_all(prompts, options)?;
        let lengths = encodings.iter().map(|encoding| encoding.ids().len());
        let (rows, length, tokens) = (encodings.len(), lengths.clone().max().unwrap_or(0), lengths.sum());
        let executor = &self.pipeline.executor;
        if rows == 0 || !executor.fits(Shape { rows, length, tokens }, options) {
            return refuse(format!(
                "prompts whose rows stay on a GPU run as one batch, of 1 to {} rows (`max_batch_size`) and at most {} tokens when \
                 padded (`max_batch_tokens`), got {rows} prompts of up to {length} tokens",
                options.max_batch_size,
                executor.max_batch_tokens(options)
            ));
        }
        DeviceEmbeddings::run(worker, &encodings, self.dim(), &options.stop())
    }

    /// Allocates buffers and records CUDA graphs for every shape that calls with these options can need, so that no call has
    /// to. Returns the number of shapes; on the CPU there are none.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] or [`ErrorKind::Inference`] when a shape cannot be run, for example because memory runs out;
    /// [`ErrorKind::Option`] for an option out of range.
    pub fn warm_up(&self, options: &EmbedOptions) -> Result<usize> {
        let max_length = self.pipeline.check(options)?;
        self.pipeline.executor.warm_up(options, max_length)
    }

    /// Embeds a stream of prompts of any length, with bounded memory. Each prompt has a tag, of any type, that comes back with
    /// its result; results come in the order of the prompts. `prompts.enumerate()` gives each its number.
    ///
    /// Prompts are read in windows ([`EmbedOptions::window`], and a few megabytes of text at most), and each window is embedded
    /// as by [`Embedder::embed`]. A prompt that cannot be embedded yields its error in its place, and the stream goes on; a
    /// run that fails yields its error for every prompt of its window.
    ///
    /// ```no_run
    /// # use nvembed::{EmbedOptions, Embedder, Prompt};
    /// # fn all(embedder: &Embedder, lines: impl Iterator<Item = String>) -> nvembed::Result<()> {
    /// let prompts = lines.map(Prompt::passage).enumerate();
    /// for (number, embedding) in embedder.embed_iter(prompts, &EmbedOptions::default())? {
    ///     println!("{number}: {:?}", embedding?.values.to_f32());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Option`] for an option out of range.
    pub fn embed_iter<'e, 'p, T, I>(
        &'e self,
        prompts: I,
        options: &EmbedOptions,
    ) -> Result<EmbedIter<'e, T, I::IntoIter>>
    where
        I: IntoIterator<Item = (T, Prompt<'p>)>,
    {
        self.pipeline.check(options)?;
        Ok(EmbedIter::new(&self.pipeline, prompts.into_iter(), options.clone()))
    }

    /// The token ids of each prompt as a call with these options would run them.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn tokenize(&self, prompts: &[Prompt<'_>], options: &EmbedOptions) -> Result<Vec<Tokens>> {
        let encodings = self.pipeline.encode_all(prompts, options)?;
        Ok(encodings.into_iter().map(Encoding::into_tokens).collect())
    }

    /// Whether a run can succeed at all: on GPUs, whether one of them is left. Does not wait, and runs nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when every GPU has failed; they stay unusable until the process restarts.
    pub fn check_devices(&self) -> Result<()> {
        self.pipeline.executor.worker().map(drop)
    }

    /// The piece of text that a token id stands for, as the vocabulary has it: `▁` is a space. `None` for an id that the
    /// vocabulary does not have.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.pipeline.piece(id)
    }

    /// The manifest of the open folder.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The ONNX Runtime library in use.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// The graph file in use: the model folder's own, or a [prepared](crate::prepare) one.
    pub fn graph_path(&self) -> &Path {
        &self.graph_path
    }

    /// D, the embedding dimension.
    pub fn dim(&self) -> usize {
        self.manifest.dim()
    }
}

/// # Errors
/// [`ErrorKind::Provider`] when the provider needs engines, and the options do not allow to build them now.
fn check_engines_may_be_built(opening: &Opening) -> Result<()> {
    let Opening { manifest, options, .. } = opening;
    if !options.provider.builds_engines() || options.gpu.build_on_open {
        return Ok(());
    }
    let message = format!(
        "no {} engine was prepared for {} with this library, GPU and these options; build one with nvembed prepare, which takes \
         minutes, or allow it when the model opens (`build_on_open`)",
        options.provider,
        manifest.folder().display()
    );
    Err(Error::new(ErrorKind::Provider, message))
}

impl std::fmt::Debug for Embedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedder").field("folder", &self.manifest.folder()).finish_non_exhaustive()
    }
}
