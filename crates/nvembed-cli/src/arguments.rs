//! The command line: arguments here, one file a command beside.

pub(crate) mod bench;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod exit;
pub(crate) mod gpu;
pub(crate) mod input;
pub(crate) mod inspect;
pub(crate) mod interrupt;
pub(crate) mod log;
pub(crate) mod output;
pub(crate) mod prepare;
pub(crate) mod score;
pub(crate) mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use nvembed::{Embedder, EncodeOptions, LoadOptions, Provider, SpecialTokens, Truncation};

/// Run NVIDIA NV-Embed text-embedding models on ONNX Runtime.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110, after_help = exit::HELP)]
pub(crate) struct Cli {
    /// Say more on stderr; twice for the libraries' own messages. The variable RUST_LOG has the last word.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Embed texts from files or stdin, one a line.
    Embed(embed::Arguments),
    /// Print the similarity of each query to each passage.
    Score(score::Arguments),
    /// Describe a model folder, the ONNX Runtime library and this machine.
    Inspect(inspect::Arguments),
    /// Compare a model's embeddings with known ones.
    Verify(verify::Arguments),
    /// Measure speed, of answers that were checked.
    Bench(bench::Arguments),
    /// Do ahead what opening a model on this machine takes, and let processes share its memory.
    Prepare(prepare::Arguments),
    /// Check the library, driver, GPUs and model, and say what is wrong.
    Doctor(doctor::Arguments),
}

/// Which ONNX Runtime library to use.
#[derive(Debug, Args)]
pub(crate) struct LibraryArguments {
    /// ONNX Runtime's shared library. Default: ORT_DYLIB_PATH, beside this program, the virtual environment, the system.
    #[arg(long, value_name = "FILE")]
    pub(crate) library: Option<PathBuf>,
}

/// Which model to open, and how.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    /// Model folder made by nvembed-export.
    #[arg(short, long, value_name = "DIR", env = "NVEMBED_MODEL")]
    model: PathBuf,
    /// Execution provider: cpu, cuda, tensorrt, nv-tensorrt-rtx or openvino. One that is not there is an error.
    #[arg(long, default_value_t, value_name = "NAME")]
    provider: Provider,
    #[command(flatten)]
    open: OpenArguments,
}

/// How models are opened, whichever and wherever they are.
#[derive(Debug, Args)]
pub(crate) struct OpenArguments {
    /// Threads of one run. Default: one for each physical core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Compare every file's SHA-256 with the manifest first.
    #[arg(long)]
    verify_hashes: bool,
    /// Where `nvembed prepare` keeps what it makes. Default: the folder cache in the model folder.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Open faster on the CPU, with all threads; resident memory then shows up to twice the model meanwhile.
    #[arg(long)]
    parallel_prepacking: bool,
    /// Keep no memory for the next node of the graph on the CPU: less for texts of many thousand tokens, and slower.
    #[arg(long)]
    low_memory: bool,
    #[command(flatten)]
    library: LibraryArguments,
    #[command(flatten)]
    gpu: gpu::GpuArguments,
}

impl ModelArguments {
    pub(crate) fn open(self) -> nvembed::Result<Embedder> {
        let (folder, options) = self.resolve();
        Embedder::open(folder, &options)
    }

    /// The model folder, and how to open it.
    pub(crate) fn resolve(self) -> (PathBuf, LoadOptions) {
        (self.model, self.open.options(self.provider))
    }
}

impl OpenArguments {
    pub(crate) fn threads(&self) -> Option<usize> {
        self.threads
    }

    pub(crate) fn options(&self, provider: Provider) -> LoadOptions {
        let (cuda, tensorrt) = self.gpu.options();
        LoadOptions {
            provider,
            cuda,
            tensorrt,
            library: self.library.library.clone(),
            intra_threads: self.threads,
            verify_hashes: self.verify_hashes,
            cache: self.cache.clone(),
            parallel_prepacking: self.parallel_prepacking,
            low_memory: self.low_memory,
        }
    }
}

/// How texts become rows.
#[derive(Debug, Args)]
pub(crate) struct EncodeArguments {
    /// Longest row in token ids, <s> and </s> included. Default: the model's limit.
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// What to do with longer texts.
    #[arg(long, value_enum, default_value = "reference")]
    truncation: TruncationArgument,
    /// Read <s>, </s> and <unk> in the texts as plain text, not as special tokens.
    #[arg(long)]
    literal_special_tokens: bool,
    /// Padded tokens of one batch. Default: 1024 on the CPU, 4096 on a GPU.
    #[arg(long, value_name = "N")]
    batch_tokens: Option<usize>,
    /// Rows of one batch.
    #[arg(long, value_name = "N", default_value_t = EncodeOptions::default().max_batch_size)]
    batch_size: usize,
    /// Texts taken at a time: more fill batches better, fewer give results sooner.
    #[arg(long, value_name = "N", default_value_t = EncodeOptions::default().window)]
    window: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TruncationArgument {
    /// Cut on the right, losing </s>, as NVIDIA's code does.
    Reference,
    /// Cut on the right, but end with </s>.
    KeepEos,
    /// Fail.
    Error,
}

impl EncodeArguments {
    pub(crate) fn options(&self) -> EncodeOptions {
        EncodeOptions {
            max_length: self.max_length,
            truncation: match self.truncation {
                TruncationArgument::Reference => Truncation::Reference,
                TruncationArgument::KeepEos => Truncation::KeepEos,
                TruncationArgument::Error => Truncation::Error,
            },
            special_tokens: if self.literal_special_tokens { SpecialTokens::Literal } else { SpecialTokens::Parse },
            max_batch_tokens: self.batch_tokens,
            max_batch_size: self.batch_size,
            window: self.window,
            ..EncodeOptions::default()
        }
    }
}
