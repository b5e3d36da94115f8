//! What the library's options are called in C, for error messages.

use nvembed::gpu::GpuOptions;
use nvembed::{EmbedOptions, ModelOptions};

/// Options of the library that have no setter in C. The element type and the token are arguments of the call.
pub(crate) const WITHOUT_A_SETTER: [&str; 9] = [
    "provider_options",
    "arena_strategy",
    "tf32",
    "fpa_intb_gemm",
    "max_cuda_graphs",
    "target_gpu",
    "window",
    "dtype",
    "cancel",
];

/// The setter of an option, given the name of its field in Rust.
pub(crate) fn in_c(name: &str) -> String {
    if name == "dtype" {
        return "the output's dtype".to_owned();
    }
    if WITHOUT_A_SETTER.contains(&name) {
        return name.to_owned();
    }
    if EmbedOptions::NAMES.contains(&name) {
        return format!("nvembed_embed_options_set_{name}()");
    }
    if ModelOptions::NAMES.contains(&name) || GpuOptions::NAMES.contains(&name) {
        return format!("nvembed_model_options_set_{name}()");
    }
    name.to_owned()
}
