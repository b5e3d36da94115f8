//! What the command line can say of GPUs.

use clap::Args;
use nvembed::{Buckets, CudaOptions, TensorRtOptions};

/// How a model runs on GPUs; the CPU ignores all of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "GPU options")]
pub(crate) struct GpuArguments {
    /// GPUs to use, as CUDA numbers them; each gets the whole model.
    #[arg(long = "device", value_name = "N", value_delimiter = ',', default_value = "0")]
    devices: Vec<usize>,
    /// The most memory of a GPU that ONNX Runtime takes, in MiB. Default: all there is.
    #[arg(long, value_name = "MIB")]
    gpu_memory: Option<usize>,
    /// Run each kernel by itself, without CUDA graphs.
    #[arg(long)]
    no_cuda_graphs: bool,
    /// Compute fp32 products in TF32, which is faster and no longer fp32.
    #[arg(long)]
    tf32: bool,
    /// Row lengths that batches are padded to. Default: 16,32,48,64,96,128,192 and so on to the model's limit.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    sequence_buckets: Vec<usize>,
    /// Row counts that batches are padded to. Default: 1,2,4,8,16,32,64.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    batch_buckets: Vec<usize>,
    /// How hard TensorRT looks for fast kernels, 0 to 5.
    #[arg(long, value_name = "N", default_value_t = TensorRtOptions::default().builder_optimization_level)]
    builder_optimization_level: u8,
    /// The most scratch memory of TensorRT's kernels, in MiB.
    #[arg(long, value_name = "MIB")]
    workspace: Option<usize>,
    /// Any other option of the execution provider, by ONNX Runtime's name. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    provider_option: Vec<(String, String)>,
}

impl GpuArguments {
    pub(crate) fn options(&self) -> (CudaOptions, TensorRtOptions) {
        let cuda = CudaOptions {
            device_ids: self.devices.clone(),
            memory_limit: self.gpu_memory.map(bytes),
            tf32: self.tf32,
            cuda_graphs: !self.no_cuda_graphs,
            buckets: Buckets { sequence: self.sequence_buckets.clone(), batch: self.batch_buckets.clone() },
            provider_options: self.provider_option.clone(),
            ..CudaOptions::default()
        };
        let tensorrt = TensorRtOptions {
            builder_optimization_level: self.builder_optimization_level,
            workspace: self.workspace.map(bytes),
            provider_options: self.provider_option.clone(),
            ..TensorRtOptions::default()
        };
        (cuda, tensorrt)
    }
}

fn bytes(mebibytes: usize) -> usize {
    mebibytes.saturating_mul(1 << 20)
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is needed")?;
    Ok((name.to_owned(), value.to_owned()))
}
