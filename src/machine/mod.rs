//! The machine this process runs on and what it may use of it, as far as the system says.

mod limits;

use std::path::Path;

use crate::hash::sha256;

/// The processor's name, for example "AMD EPYC 9454 48-Core Processor"; `None` where the system does not say.
pub fn processor() -> Option<String> {
    field(Path::new("/proc/cpuinfo"), &["model name", "CPU part"])
}

/// The processor's name and its instruction sets, shortened to a hash: what ONNX Runtime chooses its CPU kernels by.
pub(crate) fn processor_and_instructions() -> Option<String> {
    // The second name of each is the one of ARM's kernels.
    let flags = field(Path::new("/proc/cpuinfo"), &["flags", "Features"])?;
    let name = processor().unwrap_or_else(|| "unknown".to_owned());
    Some(format!("{name}, instruction sets {}", &sha256(flags)[..16]))
}

/// Whether this processor sums 8-bit products in 32 bits, which w8a8 needs. x86 before VNNI adds two of them in 16 bits first, and saturates
/// ([ONNX Runtime, Quantize ONNX models](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html)).
pub fn has_exact_int8_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        true
    }
}

/// The number of processors this process may use: those of its affinity, or fewer if its cgroup has a quota.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The number of threads that keep what this process may use busy with matrix products: the physical cores of its affinity, or
/// fewer if its cgroup has a quota. The default of [`ModelOptions::intra_threads`](crate::ModelOptions::intra_threads).
pub fn threads() -> usize {
    limits::physical_cores(Path::new("/")).unwrap_or(usize::MAX).min(cores())
}

/// The machine's memory in bytes; `None` where the system does not say.
pub fn memory() -> Option<u64> {
    kibibytes("/proc/meminfo", "MemTotal")
}

/// The memory that this process may use, in bytes: the machine's, or less if its cgroup has a limit; `None` where the system does
/// not say.
pub fn memory_limit() -> Option<u64> {
    [memory(), limits::cgroup_memory(Path::new("/"))].into_iter().flatten().min()
}

/// The resident memory of this process now, in bytes; `None` where the system does not say.
pub(crate) fn resident_memory() -> Option<u64> {
    kibibytes("/proc/self/status", "VmRSS")
}

/// The largest resident memory of this process so far, in bytes; `None` where the system does not say.
pub fn peak_memory() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM")
}

fn kibibytes(file: &str, name: &str) -> Option<u64> {
    let value = field(Path::new(file), &[name])?;
    Some(value.strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The value of the first line `name : value` in a file of Linux's /proc, for the first of the names that is there.
fn field(file: &Path, names: &[&str]) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = |wanted: &str| {
        text.lines()
            .find_map(|line| line.split_once(':').filter(|(name, _)| name.trim() == wanted).map(|(_, value)| value))
    };
    names.iter().find_map(|name| value(name)).map(|value| value.trim().to_owned())
}
