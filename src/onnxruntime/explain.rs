//! Why a provider does not start, and what to do: from the messages of the loader and of ONNX Runtime to a remedy.

/// How to get a missing library, by the start of its name. The first match counts.
const REMEDIES: [(&str, &str); 10] = [
    ("libcuda.so", "install the NVIDIA driver, the only source of this library"),
    ("libcudnn", "install that version of cuDNN, for example with `pip install 'onnxruntime-gpu[cuda,cudnn]'`"),
    ("libnvinfer", TENSORRT),
    ("libnvonnxparser", TENSORRT),
    ("libtensorrt_rtx", "install the version of TensorRT for RTX that this ONNX Runtime was built with"),
    ("libcublas", CUDA),
    ("libcu", CUDA),
    ("libnvrtc", CUDA),
    ("libopenvino", "keep OpenVINO's libraries beside ONNX Runtime's, as in the package onnxruntime-openvino"),
    ("libonnxruntime_providers", "keep ONNX Runtime's provider libraries beside its main library"),
];
const CUDA: &str = "install that version of the CUDA runtime libraries, for example with \
                    `pip install 'onnxruntime-gpu[cuda,cudnn]'` in the virtual environment of the ONNX Runtime library";
const TENSORRT: &str = "install that version of TensorRT (10 for ONNX Runtime 1.31), for example with \
                        `pip install 'tensorrt-cu13>=10.15,<11'`, and put its folder on LD_LIBRARY_PATH";

/// What CUDA, ONNX Runtime and its arena say when memory runs out.
const NO_MEMORY: [&str; 3] = ["out of memory", "failed to allocate memory", "is smaller than requested bytes"];

/// The cause and the remedy in one sentence, if the message is of a known kind.
///
/// ONNX Runtime passes on what the system's loader says: the first shared library that is missing, or that lacks a version.
pub(crate) fn explain(message: &str) -> Option<String> {
    if let Some(library) = missing_library(message) {
        let remedy = remedy(library).unwrap_or("install it, or put its folder on LD_LIBRARY_PATH");
        return Some(format!("{library} is not on this machine; {remedy}"));
    }
    if let Some(library) = wrong_version(message) {
        let remedy = remedy(library).unwrap_or("install the version that ONNX Runtime was built with");
        return Some(format!("{library} is not the version that ONNX Runtime was built with; {remedy}"));
    }
    let lower = message.to_lowercase();
    if lower.contains("driver version is insufficient") {
        return Some("the NVIDIA driver is older than the CUDA runtime; install a newer driver".to_owned());
    }
    if lower.contains("no kernel image is available") {
        return Some(
            "this ONNX Runtime has no kernels for the GPU's compute capability; use a build that has them".to_owned(),
        );
    }
    if lower.contains("escapes model directory") {
        return Some(
            "the weights are a link that leads out of the model folder, which ONNX Runtime refuses; put the file itself into \
             the folder, or link the whole folder"
                .to_owned(),
        );
    }
    if NO_MEMORY.iter().any(|words| lower.contains(words)) {
        return Some(
            "the device has too little free memory; free some, raise `memory_limit` if it is set, lower \
             `max_batch_tokens`, or use a model of a smaller precision"
                .to_owned(),
        );
    }
    None
}

fn remedy(library: &str) -> Option<&'static str> {
    REMEDIES.iter().find(|(start, _)| library.starts_with(start)).map(|(_, remedy)| *remedy)
}

/// `libcublas.so.13: cannot open shared object file`.
fn missing_library(message: &str) -> Option<&str> {
    let (before, _) = message.split_once(": cannot open shared object file")?;
    let start = before.rfind(|letter: char| letter.is_whitespace() || letter == ':').map_or(0, |index| index + 1);
    before[start..].rsplit('/').next().filter(|name| !name.is_empty())
}

/// ``/usr/lib/libcudart.so.13: version `libcudart.so.13' not found``.
fn wrong_version(message: &str) -> Option<&str> {
    let (before, _) = message.split_once(": version `")?;
    let start = before.rfind(char::is_whitespace).map_or(0, |index| index + 1);
    before[start..].rsplit('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What glibc's loader and ONNX Runtime 1.31.1 print, shortened to a line.
    #[test]
    fn each_kind_of_failure_gets_its_own_remedy() {
        let loader =
            "[ONNXRuntimeError] : 1 : FAIL : Failed to load library libonnxruntime_providers_cuda.so with error: ";
        let missing = |name: &str| format!("{loader}{name}: cannot open shared object file: No such file or directory");
        for (message, wanted) in [
            (missing("libcuda.so.1"), ["libcuda.so.1 is not on this machine", "NVIDIA driver"]),
            (missing("libcublasLt.so.13"), ["libcublasLt.so.13 is not", "onnxruntime-gpu[cuda,cudnn]"]),
            (missing("libcudart.so.13"), ["libcudart.so.13 is not", "CUDA runtime libraries"]),
            (missing("libcudnn.so.9"), ["libcudnn.so.9 is not", "version of cuDNN"]),
            (missing("libnvinfer.so.10"), ["libnvinfer.so.10 is not", "version of TensorRT"]),
            (missing("/a b/libodd.so.1"), ["libodd.so.1 is not", "LD_LIBRARY_PATH"]),
            (
                format!("{loader}/usr/lib/libcudart.so.13: version `libcudart.so.13' not found (required by x)"),
                ["libcudart.so.13 is not the version", "CUDA runtime libraries"],
            ),
            (
                "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version".to_owned(),
                ["driver is older", "newer driver"],
            ),
            (
                "CUDA failure 209: no kernel image is available for execution on the device".to_owned(),
                ["no kernels", "compute capability"],
            ),
            (
                "bfc_arena.cc:360 Available memory of 97024 is smaller than requested bytes of 262144".to_owned(),
                ["too little free memory", "memory_limit"],
            ),
            ("Error: External data path escapes model directory".to_owned(), ["are a link", "link the whole folder"]),
            ("CUDA failure 2: out of memory ; GPU=0".to_owned(), ["too little free memory", "max_batch_tokens"]),
        ] {
            let said = explain(&message).unwrap_or_default();
            for part in wanted {
                assert!(said.contains(part), "{message}: {said}");
            }
        }
    }

    #[test]
    fn what_is_not_known_is_not_explained() {
        for message in ["", "something else", "cannot open shared object file", ": version `"] {
            assert_eq!(explain(message), None, "{message}");
        }
    }
}
