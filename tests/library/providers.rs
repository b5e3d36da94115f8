//! Which models, options and providers go together: what does not is refused before it runs.

use std::path::Path;

use nvembed::onnxruntime::Library;
use nvembed::{Embedder, ErrorKind, Provider};

use crate::common::{mini, mini_for_tensorrt, model_options};

#[test]
fn a_provider_the_library_lacks_is_an_error_and_not_a_cpu_run() {
    let for_tensorrt = mini_for_tensorrt("bf16");
    for provider in [Provider::Cuda, Provider::TensorRt, Provider::NvTensorRtRtx, Provider::OpenVino] {
        let options = model_options(|options| options.provider = provider);
        let model = match provider {
            Provider::OpenVino => mini("openvino-fp32"),
            Provider::Cuda => mini("fp16"),
            _ => for_tensorrt.path().to_owned(),
        };
        let error = Embedder::open(model, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider);
        let message = error.to_string();
        let has = if provider == Provider::NvTensorRtRtx { "comes as a plugin, and none was found" } else { "has cpu" };
        assert!(message.contains(provider.name()) && message.contains(has), "{message}");
    }
}

#[test]
fn a_provider_that_is_not_known_needs_its_plugin() {
    let model = mini("fp32");
    let refused = |name: &str, plugin: Option<&Path>| {
        let options = model_options(|options| {
            options.provider = name.parse().unwrap();
            options.provider_library = plugin.map(Path::to_owned);
        });
        Embedder::open(&model, &options).unwrap_err()
    };
    let error = refused("gpu", None);
    assert_eq!(error.kind(), ErrorKind::Option);
    assert!(
        error.to_string().contains("one of cpu, cuda, tensorrt, nv-tensorrt-rtx, openvino, got \"gpu\""),
        "{error}"
    );
    assert!(error.to_string().contains("`provider_library`"), "{error}");
    // A shared library that is no plugin, a file that is no library, a folder, and nothing at all.
    let library = Library::load(None).unwrap();
    let of_onnx_runtime = library.path().with_file_name("libonnxruntime_providers_shared.so");
    for (file, wanted) in [
        (&*of_onnx_runtime, "CreateEpFactories"),
        (&*model.join("nvembed.json"), "a library of another kind"),
        (&*model, "it is no file"),
        (Path::new("no/such/plugin.so"), "there is no such file"),
    ] {
        let error = refused("npu", Some(file));
        assert_eq!(error.kind(), ErrorKind::Provider);
        let message = error.to_string();
        assert!(message.contains("cannot be used as a plugin") && message.contains(wanted), "{message}");
    }
    let options = model_options(|options| options.provider_library = Some("plugin.so".into()));
    let error = Embedder::open(&model, &options).unwrap_err();
    assert_eq!(error.to_string().split(';').next(), Some("provider cpu ignores `provider_library`"));
}

#[test]
fn a_precision_that_tensorrt_cannot_build_is_refused_by_name() {
    for provider in [Provider::TensorRt, Provider::NvTensorRtRtx] {
        for (precision, wanted) in [("fp32", "no fp32 kernel"), ("int8", "MatMulNBits"), ("int4", "MatMulNBits")] {
            let options = model_options(|options| options.provider = provider);
            let error = Embedder::open(mini_for_tensorrt(precision).path(), &options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Provider);
            assert!(error.to_string().contains(wanted), "{error}");
            assert!(error.to_string().contains("--precision fp16"), "{error}");
        }
    }
}

#[test]
fn fp16_is_refused_where_tensorrt_may_compute_the_residual_stream_in_it() {
    let options = model_options(|options| options.provider = Provider::TensorRt);
    let error = Embedder::open(mini_for_tensorrt("fp16").path(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Provider);
    assert!(error.to_string().contains("export it with --precision bf16 and --target tensorrt"), "{error}");
}

#[test]
fn a_model_does_not_open_on_a_gpu_to_compile_for() {
    let options = model_options(|options| {
        options.provider = Provider::NvTensorRtRtx;
        options.gpu.target_gpu = Some(nvembed::gpu::TargetGpu::Sm89);
    });
    let error = Embedder::open(mini_for_tensorrt("fp16").path(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Option);
    assert!(error.to_string().starts_with("`target_gpu` is for nvembed prepare"), "{error}");
}

/// On 9 of 11 seeded checkpoints its embeddings were off by 0.09 to 0.31 in a number, without an error.
#[test]
fn the_direct_pooler_is_refused_on_openvino() {
    let copy = crate::common::mini_copy_of("openvino-fp32");
    crate::common::change_manifest(copy.path(), "/pooler", "direct".into());
    let options = model_options(|options| options.provider = Provider::OpenVino);
    let error = Embedder::open(copy.path(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Provider);
    assert!(error.to_string().contains("export it with --pooler fused"), "{error}");
}

/// Its parser would take the graph, drop the row lengths, and let padding change every shorter row.
#[test]
fn tensorrt_refuses_a_graph_whose_row_lengths_it_would_ignore() {
    for provider in [Provider::TensorRt, Provider::NvTensorRtRtx] {
        let options = model_options(|options| options.provider = provider);
        let opened = Embedder::open(mini("fp16"), &options).unwrap_err();
        let prepared = nvembed::prepare(mini("fp16"), &options, |_| panic!("nothing may be built")).unwrap_err();
        for error in [opened, prepared] {
            assert_eq!(error.kind(), ErrorKind::Provider);
            assert!(error.to_string().contains("TensorRT ignores the row lengths"), "{error}");
            assert!(error.to_string().contains("run it on cuda"), "{error}");
        }
    }
}

#[test]
fn a_graph_for_tensorrt_is_refused_on_other_providers() {
    for provider in [Provider::Cpu, Provider::Cuda] {
        let options = model_options(|options| options.provider = provider);
        let error = Embedder::open(mini_for_tensorrt("fp16").path(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider);
        assert!(error.to_string().contains("exported with --target tensorrt) cannot run"), "{error}");
    }
}

#[test]
fn a_graph_for_the_cpu_is_refused_on_other_providers() {
    let copy = crate::common::mini_copy();
    crate::common::change_manifest(copy.path(), "/graph/target", "cpu".into());
    let options = model_options(|options| options.provider = Provider::Cuda);
    let error = Embedder::open(copy.path(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Provider);
    assert!(error.to_string().contains("exported with --target cpu) cannot run on provider cuda"), "{error}");
    assert!(error.to_string().contains("export it with --target cuda"), "{error}");
}

#[test]
fn an_option_that_the_provider_ignores_is_refused_before_anything_is_loaded() {
    let tf32 = model_options(|options| options.gpu.tf32 = true);
    let error = Embedder::open(mini("fp32"), &tf32).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Option);
    assert!(error.to_string().starts_with("provider cpu ignores `tf32`"), "{error}");
}
