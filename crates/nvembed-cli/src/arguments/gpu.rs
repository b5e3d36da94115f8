//! Arguments of the GPU providers.

use clap::Args;
use nvembed::gpu::{ArenaStrategy, GpuOptions};

use super::parse;
use super::size::size;

/// How a model runs on GPUs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "GPU options")]
pub(crate) struct GpuArguments {
    /// GPUs to use, as CUDA numbers them; each gets the whole model.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "0")]
    device_ids: Vec<usize>,
    /// The most memory that ONNX Runtime takes on each GPU (cuda), for example 20GiB. Default: the GPU's memory.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_limit: Option<usize>,
    /// How that memory grows (cuda): same-as-requested or next-power-of-two.
    #[arg(long, value_name = "STRATEGY", default_value_t, value_parser = parse::<ArenaStrategy>)]
    arena_strategy: ArenaStrategy,
    /// Do not use CUDA graphs; launch each kernel separately (cuda).
    #[arg(long)]
    no_cuda_graphs: bool,
    /// How many shapes get a CUDA graph (cuda).
    #[arg(long, value_name = "N", default_value_t = GpuOptions::default().max_cuda_graphs)]
    max_cuda_graphs: usize,
    /// Compute fp32 products in TF32 (cuda), which is faster and no longer fp32.
    #[arg(long)]
    tf32: bool,
    /// Compute int8 and int4 products without unpacking the weights first (cuda).
    #[arg(long)]
    fpa_intb_gemm: bool,
    /// Row lengths that batches are padded to. Default: 16,32,48,64,96,128,192 and so on up to the model's limit.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    sequence_buckets: Vec<usize>,
    /// Row counts that batches are padded to. Default: 1,2,4 and so on up to 64 (--target cuda: 256, TensorRT: 16).
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    batch_buckets: Vec<usize>,
    /// How hard TensorRT looks for fast kernels, 0 to 5 (tensorrt).
    #[arg(long, value_name = "N", default_value_t = GpuOptions::default().builder_optimization_level)]
    builder_optimization_level: u8,
    /// The most scratch memory of TensorRT's kernels, for example 2GiB. Default: the GPU's memory.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    workspace: Option<usize>,
    /// Build TensorRT engines when a model opens without prepared ones: takes minutes, and nothing is kept.
    #[arg(long)]
    build_on_open: bool,
}

impl GpuArguments {
    pub(crate) fn options(&self) -> GpuOptions {
        let mut options = GpuOptions::default();
        options.device_ids = self.device_ids.clone();
        options.memory_limit = self.memory_limit;
        options.arena_strategy = self.arena_strategy;
        options.cuda_graphs = !self.no_cuda_graphs;
        options.max_cuda_graphs = self.max_cuda_graphs;
        options.tf32 = self.tf32;
        options.fpa_intb_gemm = self.fpa_intb_gemm;
        options.sequence_buckets = self.sequence_buckets.clone();
        options.batch_buckets = self.batch_buckets.clone();
        options.builder_optimization_level = self.builder_optimization_level;
        options.workspace = self.workspace;
        options.build_on_open = self.build_on_open;
        options
    }
}
