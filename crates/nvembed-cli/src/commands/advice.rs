//! Which export suits this machine, for `nvembed doctor`.

use nvembed::gpu::DeviceInfo;

/// A gibibyte in bytes.
const GIB: usize = 1 << 30;

/// From how much GPU memory on the 7B model fits in a precision: its weights (14.7, 8.4 and 4.8 GB), the arena of the default
/// batches (1.2 GB, counted on stand-ins) and room for what could not be counted, the driver's context and CUDA graphs.
const BY_MEMORY: [(usize, &str); 3] = [(18 * GIB, "fp16"), (12 * GIB, "int8"), (8 * GIB, "int4")];

/// Compute capabilities that TensorRT for RTX compiles for.
const RTX: [(i32, i32); 4] = [(8, 6), (8, 9), (12, 0), (12, 1)];

/// What to export for a CPU.
pub(super) fn for_cpu(has_exact_int8_products: bool) -> &'static str {
    if has_exact_int8_products {
        "--target cpu --precision w8a8 (fastest), int8 (nearer to fp32, and slower) or fp32 (exact)"
    } else {
        "--target cpu --precision int8 (least memory) or fp32 (exact); w8a8 needs VNNI instructions"
    }
}

/// What to export of the 7B model for a GPU. `has_kernels`: whether ONNX Runtime's CUDA kernels run on it.
pub(super) fn for_gpu(device: &DeviceInfo, has_kernels: bool) -> String {
    let Some((_, precision)) = BY_MEMORY.iter().find(|(least, _)| device.total_memory + GIB / 2 >= *least) else {
        return "too little memory for the 7B model in any precision; smaller models: --target cuda".to_owned();
    };
    let cuda = has_kernels.then(|| format!("--target cuda --precision {precision}"));
    let is_rtx = RTX.contains(&device.compute_capability) && *precision == "fp16";
    let rtx = is_rtx.then(|| "--target tensorrt --precision fp16 for nv-tensorrt-rtx".to_owned());
    let all: Vec<_> = cuda.into_iter().chain(rtx).collect();
    if all.is_empty() { "no provider has code for it".to_owned() } else { all.join("; or ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_advised_by_its_integer_products() {
        assert!(for_cpu(true).starts_with("--target cpu --precision w8a8"));
        assert!(for_cpu(false).starts_with("--target cpu --precision int8"));
    }

    #[test]
    fn every_advised_precision_is_one() {
        for (_, name) in BY_MEMORY {
            assert!(nvembed::model::Precision::ALL.iter().any(|precision| precision.to_string() == name), "{name}");
        }
    }
}
