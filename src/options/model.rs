//! The options of opening a model.

use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result, in_range};
use crate::provider::{GpuOptions, Provider};

/// The most threads a run may have.
const MAX_THREADS: usize = 1024;

/// Options that are fixed while a model is open.
///
/// An option that the chosen provider ignores is an error unless it has its default. New options may be added: start from
/// the defaults.
///
/// ```
/// use nvembed::{ModelOptions, Provider};
/// let mut options = ModelOptions::default();
/// options.provider = Provider::Cuda;
/// options.gpu.device_ids = vec![0, 1];
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelOptions {
    /// Where the model runs. Default: the CPU. A provider that cannot be used is an error, never a silent run on the CPU.
    pub provider: Provider,
    /// Devices, memory, shapes, CUDA graphs and engines of the GPU providers.
    pub gpu: GpuOptions,
    /// The ONNX Runtime library to load, a file or a folder. `None` searches for it; see
    /// [`Library::load`](crate::onnxruntime::Library::load) for the places.
    pub library: Option<PathBuf>,
    /// The plugin that has the provider: the file of a library that is registered with ONNX Runtime. `None`: for
    /// nv-tensorrt-rtx, the one of its PyPI package, which is searched for in the active virtual environment
    /// (`VIRTUAL_ENV`), in a `.venv` in any folder above the executable, and beside the ONNX Runtime library. Only for
    /// providers that come as plugins; [`Provider::Plugin`] needs it.
    pub provider_library: Option<PathBuf>,
    /// Threads per run, 1 to 1,024. `None`: one per physical core of the process's affinity, or fewer if its cgroup has a quota
    /// ([`machine::threads`](crate::machine::threads)); none is bound to a processor. Tokenization has threads of its own, one
    /// per processor of the same, which this does not change. CPU, OpenVINO and unknown plugins only.
    pub intra_threads: Option<usize>,
    /// Compare the SHA-256 of every file with the manifest. Default: false, since it reads the whole model.
    pub verify_hashes: bool,
    /// Run the golden rows of the model folder when it opens, alone and in one batch, on every device, and refuse to open when
    /// an embedding differs from its reference by more than the precision's [tolerance](crate::model::Precision::tolerance).
    /// That takes some seconds with a model of 7B on a processor, and is done once: [`ModelOptions::cache`] remembers the
    /// model's files, the library's build, the machine and the options. Default: true.
    pub self_check: bool,
    /// Where [`prepare`](crate::prepare) writes and [`Embedder::open`](crate::Embedder::open) looks, and where it is remembered
    /// that a model was checked. `None`: the folder `cache` in the model folder.
    pub cache: Option<PathBuf>,
    /// Rearrange the weights for the processor with all threads instead of one, when the model opens. That is faster, but
    /// until it is done the pages of the weights file stay mapped beside the rearranged copy: resident memory shows twice the
    /// model, though the system can drop those pages whenever it needs them. Needs ONNX Runtime 1.32; with an older version,
    /// opening logs a warning and uses one thread. Default: false. CPU only.
    pub parallel_prepacking: bool,
    /// Return the memory of each node of the graph to the system as soon as it is free, instead of keeping it in ONNX
    /// Runtime's arena for the next node and the next run. Slower; a row of 16,384 tokens takes about a third less. Default:
    /// false. CPU only.
    pub low_memory: bool,
    /// Other options of the execution provider by ONNX Runtime's names, for example `("sdpa_kernel", "1")` on CUDA. They
    /// replace what the fields above set; device, stream, graphs and profiles cannot be set this way. Not on the CPU.
    pub provider_options: Vec<(String, String)>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            provider: Provider::default(),
            gpu: GpuOptions::default(),
            library: None,
            provider_library: None,
            intra_threads: None,
            verify_hashes: false,
            self_check: true,
            cache: None,
            parallel_prepacking: false,
            low_memory: false,
            provider_options: Vec::new(),
        }
    }
}

impl ModelOptions {
    /// The names of all options except those of [`ModelOptions::gpu`], which are [`GpuOptions::NAMES`].
    pub const NAMES: &'static [&'static str] = &[
        "provider",
        "library",
        "provider_library",
        "intra_threads",
        "verify_hashes",
        "self_check",
        "cache",
        "parallel_prepacking",
        "low_memory",
        "provider_options",
    ];

    /// The options that do not have their default and that the provider ignores, by name.
    pub fn ignored(&self) -> Vec<&'static str> {
        // Without `..`, so that a new option cannot be forgotten here. All providers read the first five.
        let Self {
            provider: _,
            library: _,
            verify_hashes: _,
            self_check: _,
            cache: _,
            gpu,
            provider_library,
            intra_threads,
            parallel_prepacking,
            low_memory,
            provider_options,
        } = self;
        let changed = [
            ("provider_library", provider_library.is_some()),
            ("intra_threads", intra_threads.is_some()),
            ("parallel_prepacking", *parallel_prepacking),
            ("low_memory", *low_memory),
            ("provider_options", !provider_options.is_empty()),
        ];
        let changed = changed.into_iter().filter_map(|(name, changed)| changed.then_some(name));
        changed.chain(gpu.changed()).filter(|name| !self.provider.spec().options.contains(name)).collect()
    }

    /// The same options for another provider, with the default in place of each option that it ignores: for programs that
    /// open models on several providers.
    pub fn for_provider(&self, provider: Provider) -> Self {
        let mut options = Self { provider, ..self.clone() };
        let reads = |name: &str| provider.spec().options.contains(&name);
        options.gpu = self.gpu.only(reads);
        options.provider_library = options.provider_library.filter(|_| reads("provider_library"));
        options.intra_threads = options.intra_threads.filter(|_| reads("intra_threads"));
        options.parallel_prepacking &= reads("parallel_prepacking");
        options.low_memory &= reads("low_memory");
        options.provider_options.retain(|_| reads("provider_options"));
        options
    }

    /// The same options without those that have no influence on what is computed.
    pub(crate) fn of_computation(&self) -> Self {
        let (cache, library, provider_library) = (None, None, None);
        let gpu = GpuOptions { device_ids: Vec::new(), stream: None, ..self.gpu.clone() };
        Self { cache, library, provider_library, verify_hashes: false, gpu, ..self.clone() }
    }

    /// Checks every range that does not depend on the model, and that the provider reads what was set.
    ///
    /// # Errors
    /// [`ErrorKind::Option`] naming the value and its limits, or the option and the provider.
    pub(crate) fn check(&self) -> Result<()> {
        self.provider.check_name(self.provider_library.is_some())?;
        if let Some(name) = self.ignored().first() {
            let provider = self.provider;
            let message = format!("provider {provider} ignores `{name}`; leave it out, or choose another provider");
            return Err(Error::new(ErrorKind::Option, message));
        }
        if let Some(threads) = self.intra_threads {
            in_range("`intra_threads`", threads, 1, MAX_THREADS)?;
        }
        self.provider.check_provider_options(&self.provider_options)?;
        self.gpu.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_the_provider_ignores_is_refused_by_name() {
        type Change = (&'static str, fn(&mut ModelOptions));
        let change: [Change; 5] = [
            ("intra_threads", |options| options.intra_threads = Some(2)),
            ("low_memory", |options| options.low_memory = true),
            ("provider_options", |options| options.provider_options = vec![("a".to_owned(), "b".to_owned())]),
            ("tf32", |options| options.gpu.tf32 = true),
            ("workspace", |options| options.gpu.workspace = Some(1)),
        ];
        let reads = |provider: Provider| -> Vec<&str> {
            let accepted = |(name, set): &Change| {
                let mut options = ModelOptions { provider, ..ModelOptions::default() };
                set(&mut options);
                match options.check() {
                    Ok(()) => Some(*name),
                    Err(error) => {
                        let wanted = format!("provider {provider} ignores `{name}`");
                        assert!(error.to_string().starts_with(&wanted), "{error}");
                        None
                    }
                }
            };
            change.iter().filter_map(accepted).collect()
        };
        assert_eq!(reads(Provider::Cpu), ["intra_threads", "low_memory"]);
        assert_eq!(reads(Provider::OpenVino), ["intra_threads", "provider_options"]);
        assert_eq!(reads(Provider::Cuda), ["provider_options", "tf32"]);
        assert_eq!(reads(Provider::TensorRt), ["provider_options", "workspace"]);
    }

    #[test]
    fn for_a_provider_only_what_it_reads_is_kept() {
        let mut all = ModelOptions { intra_threads: Some(2), low_memory: true, ..ModelOptions::default() };
        all.parallel_prepacking = true;
        all.provider_options = vec![("a".to_owned(), "b".to_owned())];
        all.gpu.tf32 = true;
        all.gpu.sequence_buckets = vec![16];
        all.gpu.workspace = Some(1);
        for &provider in Provider::ALL {
            let kept = all.for_provider(provider);
            assert_eq!((kept.ignored(), kept.provider), (vec![], provider));
            assert!(kept.check().is_ok(), "{provider}");
        }
        assert!(all.for_provider(Provider::Cpu).low_memory && !all.for_provider(Provider::Cuda).low_memory);
        let (cuda, tensorrt) = (all.for_provider(Provider::Cuda).gpu, all.for_provider(Provider::TensorRt).gpu);
        assert!(cuda.tf32 && !tensorrt.tf32 && cuda.workspace.is_none() && tensorrt.workspace == Some(1));
    }

    #[test]
    fn every_option_that_a_provider_reads_exists() {
        for &provider in Provider::ALL {
            for name in provider.spec().options {
                assert!(ModelOptions::NAMES.contains(name) || GpuOptions::NAMES.contains(name), "{provider}: {name}");
            }
            assert!(ModelOptions { provider, ..ModelOptions::default() }.check().is_ok(), "{provider}");
        }
    }
}
