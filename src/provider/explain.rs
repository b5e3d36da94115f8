//! What to do about a GPU provider that does not start: from the loader's and ONNX Runtime's words to a remedy.

/// How the library that is missing is got, by the beginning of its name. The first that fits counts.
const REMEDIES: [(&str, &str); 10] = [
    ("libcuda.so", "install the NVIDIA driver: this library comes with it and only with it"),
    ("libcudnn", "install cuDNN of that version, for example with `pip install onnxruntime-gpu[cuda,cudnn]`"),
    ("libnvinfer", TENSORRT),
    ("libnvonnxparser", TENSORRT),
    ("libtensorrt_rtx", "install TensorRT for RTX of the version that this ONNX Runtime was built with"),
    ("libcublas", CUDA),
    ("libcu", CUDA),
    ("libnvrtc", CUDA),
    ("libopenvino", "keep OpenVINO's libraries in the folder of ONNX Runtime's, as onnxruntime-openvino has them"),
    ("libonnxruntime_providers", "keep ONNX Runtime's provider libraries in the folder of its main library"),
];
const CUDA: &str = "install the CUDA runtime libraries of that version, for example with \
                    `pip install onnxruntime-gpu[cuda,cudnn]` in the virtual environment of the ONNX Runtime library";
const TENSORRT: &str = "install TensorRT of that version (10 for ONNX Runtime 1.31), for example with \
                        `pip install tensorrt-cu13==10.*`, and put its folder on LD_LIBRARY_PATH";

/// What CUDA, ONNX Runtime and its arena say when memory is short.
const NO_MEMORY: [&str; 3] = ["out of memory", "failed to allocate memory", "is smaller than requested bytes"];

/// The cause and remedy in one sentence, if the message is of a known kind.
///
/// ONNX Runtime passes on what the system's loader says: the name of the first shared library that is missing, or the
/// version that one lacks.
pub(crate) fn explain(message: &str) -> Option<String> {
    if let Some(library) = missing_library(message) {
        let remedy = remedy(library).unwrap_or("install it, or put its folder on LD_LIBRARY_PATH");
        return Some(format!("{library} is not on this machine; {remedy}"));
    }
    if let Some(library) = wrong_version(message) {
        let remedy = remedy(library).unwrap_or("install the version that ONNX Runtime was built with");
        return Some(format!("{library} is of another version than ONNX Runtime was built with; {remedy}"));
    }
    let lower = message.to_lowercase();
    if lower.contains("driver version is insufficient") {
        return Some("the NVIDIA driver is older than the CUDA runtime; install a newer driver".to_owned());
    }
    if lower.contains("no kernel image is available") {
        return Some("this ONNX Runtime has no kernels for the GPU's compute capability".to_owned());
    }
    if NO_MEMORY.iter().any(|words| lower.contains(words)) {
        return Some(
            "the device has too little free memory; free it, raise memory_limit, lower max_batch_tokens, or take a model \
             of smaller precision"
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
            (missing("libcudnn.so.9"), ["libcudnn.so.9 is not", "install cuDNN"]),
            (missing("libnvinfer.so.10"), ["libnvinfer.so.10 is not", "install TensorRT"]),
            (missing("/a b/libodd.so.1"), ["libodd.so.1 is not", "LD_LIBRARY_PATH"]),
            (
                format!("{loader}/usr/lib/libcudart.so.13: version `libcudart.so.13' not found (required by x)"),
                ["libcudart.so.13 is of another version", "CUDA runtime libraries"],
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
