//! Arguments that several commands have, and how they become options of the library. Flags have the names of the options.

mod gpu;
pub(crate) mod instruction;
mod size;

use std::path::PathBuf;
use std::sync::OnceLock;

use clap::Args;
use nvembed::{EmbedOptions, Embedder, ModelOptions, Provider, SpecialTokens, Truncation};

pub(crate) use gpu::GpuArguments;
pub(crate) use size::size;

/// Which ONNX Runtime library to use.
#[derive(Debug, Args)]
pub(crate) struct LibraryArguments {
    /// ONNX Runtime's shared library, or its folder. Default: ORT_DYLIB_PATH, beside this program, the virtual environment,
    /// the system.
    #[arg(long, value_name = "PATH")]
    pub(crate) library: Option<PathBuf>,
}

/// Which model to open, and how.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    /// Model folder made by nvembed-export.
    #[arg(short, long, value_name = "DIR", env = "NVEMBED_MODEL")]
    model: PathBuf,
    /// Execution provider: cpu, cuda, tensorrt, nv-tensorrt-rtx or openvino; or any other, with --provider-library. One that
    /// cannot be used is an error.
    #[arg(long, default_value_t, value_name = "NAME", value_parser = parse::<Provider>)]
    provider: Provider,
    #[command(flatten)]
    open: OpenArguments,
}

/// How models are opened. An option that the provider ignores is an error.
#[derive(Debug, Args)]
pub(crate) struct OpenArguments {
    /// The plugin library that has the provider. Default for nv-tensorrt-rtx: that of its PyPI package, in the virtual
    /// environment or beside ONNX Runtime.
    #[arg(long, value_name = "FILE")]
    provider_library: Option<PathBuf>,
    /// Threads per run (cpu, openvino). Default: one per physical core that the process may use.
    #[arg(long, value_name = "N")]
    intra_threads: Option<usize>,
    /// Compare every file's SHA-256 with the manifest first.
    #[arg(long)]
    verify_hashes: bool,
    /// Open the model without running its golden rows, which is done once for each model, library, machine and options.
    #[arg(long)]
    no_self_check: bool,
    /// Where `nvembed prepare` keeps what it makes, and where it is remembered that a model was checked. Default: the folder
    /// cache in the model folder.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Open faster, with all threads (cpu). Resident memory then shows up to twice the model until it is open.
    #[arg(long)]
    parallel_prepacking: bool,
    /// Return memory to the system after each node of the graph (cpu): slower, with a lower peak for very long texts.
    #[arg(long)]
    low_memory: bool,
    /// Set another option of the execution provider, by ONNX Runtime's name. Repeatable. Not on cpu.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    provider_option: Vec<(String, String)>,
    #[command(flatten)]
    library: LibraryArguments,
    #[command(flatten)]
    gpu: GpuArguments,
}

impl ModelArguments {
    /// Opens the model.
    pub(crate) fn open(self) -> nvembed::Result<Embedder> {
        let (folder, options) = self.resolve();
        Embedder::open(folder, &options)
    }

    /// The model folder, and how to open it.
    pub(crate) fn resolve(self) -> (PathBuf, ModelOptions) {
        (self.model, self.open.options(self.provider))
    }
}

impl OpenArguments {
    pub(crate) fn options(&self, provider: Provider) -> ModelOptions {
        let mut options = ModelOptions::default();
        options.provider = provider;
        options.gpu = self.gpu.options();
        options.library = self.library.library.clone();
        options.provider_library = self.provider_library.clone();
        options.intra_threads = self.intra_threads;
        options.verify_hashes = self.verify_hashes;
        options.self_check = !self.no_self_check;
        options.cache = self.cache.clone();
        options.parallel_prepacking = self.parallel_prepacking;
        options.low_memory = self.low_memory;
        options.provider_options = self.provider_option.clone();
        options
    }
}

/// How texts become rows.
#[derive(Debug, Args)]
pub(crate) struct EmbedArguments {
    /// Longest row in token ids, including <s> and </s>. Default: the model's limit.
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// What to do with longer texts: reference cuts on the right and loses </s>, as NVIDIA's code does; keep-eos cuts and
    /// ends with </s>; start leaves out the start of the text; error fails.
    #[arg(long, value_name = "POLICY", default_value_t, value_parser = parse::<Truncation>)]
    truncation: Truncation,
    /// How <s>, </s> and <unk> in texts are read: parse as special tokens, as NVIDIA's code does; literal as plain text.
    #[arg(long, value_name = "HOW", default_value_t, value_parser = parse::<SpecialTokens>)]
    special_tokens: SpecialTokens,
    /// Padded tokens per batch. Default: 1024 on CPUs, 4096 on GPUs.
    #[arg(long, value_name = "N")]
    max_batch_tokens: Option<usize>,
    /// Rows per batch.
    #[arg(long, value_name = "N", default_value_t = EmbedOptions::default().max_batch_size)]
    max_batch_size: usize,
    /// Keep only the first N numbers of each embedding, brought back to unit length. NV-Embed was not trained for it. Default:
    /// all.
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
}

impl EmbedArguments {
    pub(crate) fn options(&self) -> EmbedOptions {
        let mut options = EmbedOptions::default();
        options.max_length = self.max_length;
        options.truncation = self.truncation;
        options.special_tokens = self.special_tokens;
        options.max_batch_tokens = self.max_batch_tokens;
        options.max_batch_size = self.max_batch_size;
        options.dimensions = self.dimensions;
        options
    }
}

/// The flags of the command that runs.
static FLAGS: OnceLock<Vec<String>> = OnceLock::new();

/// Keeps the flags of the command that runs, for [`flag`].
pub(crate) fn keep_flags(command: &clap::Command) {
    let flags = command.get_arguments().filter_map(|argument| argument.get_long());
    FLAGS.get_or_init(|| flags.map(|flag| format!("--{flag}")).collect());
}

/// What the command line calls an option of the library: its flag, or its plain name where the command has no such flag.
pub(crate) fn flag(option: &str) -> String {
    let flag = match option {
        "cuda_graphs" | "self_check" => format!("--no-{}", option.replace('_', "-")),
        "provider_options" => "--provider-option".to_owned(),
        _ => format!("--{}", option.replace('_', "-")),
    };
    match FLAGS.get() {
        Some(flags) if !flags.contains(&flag) => option.to_owned(),
        _ => flag,
    }
}

/// Reads an option of the library that has names; its error lists them.
pub(crate) fn parse<T: std::str::FromStr<Err = nvembed::Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: nvembed::Error| error.report(flag))
}

/// Reads an option of a corpus that has names.
pub(crate) fn parse_corpus<T: std::str::FromStr<Err = nvembed_corpus::Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: nvembed_corpus::Error| with_flags(&error.to_string()))
}

/// A text that names options in backticks, with their flags instead.
pub(crate) fn with_flags(text: &str) -> String {
    let is_name =
        |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let words = text.split('`').enumerate();
    words.map(|(index, word)| if index % 2 == 1 && is_name(word) { flag(word) } else { word.to_owned() }).collect()
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use nvembed::gpu::GpuOptions;

    use super::*;

    #[derive(Debug, Parser)]
    struct All {
        #[command(flatten)]
        model: ModelArguments,
        #[command(flatten)]
        embed: EmbedArguments,
    }

    #[test]
    fn every_option_of_the_library_is_a_flag_by_its_name() {
        // Objects of a program's own, and the commands' own flags, are no flags of these arguments.
        let not_here = ["stream", "buffer_sets", "target_gpu", "deadline", "cancel", "dtype", "window"];
        let command = All::command();
        let flags: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
        let names = ModelOptions::NAMES.iter().chain(GpuOptions::NAMES).chain(EmbedOptions::NAMES);
        for name in names.filter(|name| !not_here.contains(name)) {
            assert!(flags.contains(&flag(name).trim_start_matches('-')), "{name}: {flags:?}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        let all = All::try_parse_from(["test", "--model", "folder"]).unwrap();
        assert_eq!(all.model.resolve().1, ModelOptions::default());
        assert_eq!(format!("{:?}", all.embed.options()), format!("{:?}", EmbedOptions::default()));
    }

    #[test]
    fn flags_land_in_their_options() {
        let words = "test --model m --provider cuda --intra-threads 3 --low-memory --device-ids 1,2 --memory-limit 2GiB \
                     --tf32 --fpa-intb-gemm --no-cuda-graphs --max-cuda-graphs 7 --arena-strategy next-power-of-two \
                     --sequence-buckets 16,32 --batch-buckets 1 --workspace 512MiB --build-on-open --provider-option a=b=c \
                     --provider-library p.so \
                     --max-length 9 --truncation keep-eos --special-tokens literal --dimensions 5";
        let all = All::try_parse_from(words.split_whitespace()).unwrap();
        let (_, options) = all.model.resolve();
        assert_eq!((options.provider, options.intra_threads, options.low_memory), (Provider::Cuda, Some(3), true));
        assert_eq!(options.provider_options, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(options.provider_library, Some("p.so".into()));
        let GpuOptions { device_ids, memory_limit, tf32, cuda_graphs, max_cuda_graphs, .. } = &options.gpu;
        assert_eq!((&**device_ids, *memory_limit, *tf32), (&[1, 2][..], Some(2 << 30), true));
        assert!(options.gpu.fpa_intb_gemm);
        assert_eq!((*cuda_graphs, *max_cuda_graphs), (false, 7));
        assert_eq!(options.gpu.arena_strategy.to_string(), "next-power-of-two");
        assert_eq!((&*options.gpu.sequence_buckets, &*options.gpu.batch_buckets), (&[16, 32][..], &[1][..]));
        assert_eq!((options.gpu.workspace, options.gpu.build_on_open), (Some(512 << 20), true));
        let embed = all.embed.options();
        assert_eq!((embed.max_length, embed.truncation), (Some(9), Truncation::KeepEos));
        assert_eq!((embed.special_tokens, embed.dimensions), (SpecialTokens::Literal, Some(5)));
    }
}
