//! The OpenVINO provider, with the library of PyPI's onnxruntime-openvino, on this machine's processor.
//!
//! `make test-openvino` sets the library up; where it is missing the tests say so. What bf16 needs of a processor is
//! asked here too: on others the refusal is tested instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "skipped tests and figures are printed")]

mod common;

use std::path::Path;
use std::time::Instant;

use common::reference::{cases, largest, name, unit};
use common::{
    BATCH_INVARIANCE, change_manifest, difference, embed_options, mini, mini_copy_of, model_options, openvino, skipped,
};
use ndarray::{Array2, Zip};
use nvembed::model::{Deviation, Golden};
use nvembed::{CancelToken, EmbedOptions, Embedder, ErrorKind, ModelOptions, Prompt, Provider};

/// Largest 1 - cosine of a bf16 row to another computation of it, in fp32 or in a batch of another shape: what the
/// precision tables allow on average. Both were 2e-5 at most.
const BF16_COSINE: f64 = 1e-4;

fn options(library: &Path) -> ModelOptions {
    model_options(|options| {
        options.provider = Provider::OpenVino;
        options.library = Some(library.to_owned());
    })
}

/// Whether this processor has bf16 products.
fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    has
}

/// The mini model in each precision that this processor has.
fn models(library: &Path) -> Vec<(&'static str, Embedder)> {
    let precisions = if has_bf16() { &["openvino-fp32", "openvino-bf16"][..] } else { &["openvino-fp32"] };
    precisions
        .iter()
        .map(|precision| (*precision, Embedder::open(mini(precision), &options(library)).unwrap()))
        .collect()
}

/// Rows so like in length that some run together, padded.
fn prompts() -> Vec<Prompt<'static>> {
    let text = |index: usize| format!("the harbour lies {} of the old town", "east ".repeat(1 + index));
    (0..9)
        .map(|index| match index % 3 {
            0 => Prompt::query("Given a question, retrieve passages", text(index)),
            _ => Prompt::passage(text(index)),
        })
        .collect()
}

fn embed(embedder: &Embedder, prompts: &[Prompt<'_>], options: &EmbedOptions) -> Array2<f32> {
    embedder.embed(prompts, options).unwrap().to_f32()
}

/// The largest 1 - cosine of two rows in the same place.
fn distance(one: &Array2<f32>, other: &Array2<f32>) -> f64 {
    let [one, other] = [one, other].map(|rows| unit(&rows.mapv(f64::from)));
    Zip::from(one.rows()).and(other.rows()).map_collect(|one, other| 1.0 - one.dot(&other)).fold(0.0, |a, b| a.max(*b))
}

#[test]
fn fp32_embeddings_equal_pytorchs() {
    let Some(library) = openvino::library() else { return };
    for (folder, case) in cases() {
        let embedder = Embedder::open(folder.join("openvino"), &options(&library)).unwrap();
        let found = embed(&embedder, &case.prompts(), &EmbedOptions::default()).mapv(f64::from);
        let difference = largest(&unit(&found), &case.reference());
        println!("{:<20} largest difference {difference:.2e}, bound {:.1e}", name(&folder), case.fp32_bound);
        assert!(difference <= case.fp32_bound && case.fp32_bound <= 1e-5, "{}", name(&folder));
    }
}

#[test]
fn the_mini_models_agree_with_the_float64_reference_and_bf16_is_bf16() {
    let Some(library) = openvino::library() else { return };
    let models = models(&library);
    for (precision, embedder) in &models {
        let golden = Golden::open(embedder.manifest()).unwrap().unwrap();
        let prompts: Vec<_> = golden.rows().iter().map(|row| row.prompt()).collect();
        let found = embed(embedder, &prompts, &EmbedOptions::default());
        for (found, row) in found.rows().into_iter().zip(golden.rows()) {
            let deviation = Deviation::between(found, &row.embedding);
            assert!(embedder.manifest().precision().tolerance().allows(deviation), "{precision}: {deviation:?}");
        }
        assert_eq!(embedder.library().version(), "1.24");
    }
    if let [(_, fp32), (_, bf16)] = &models[..] {
        let [fp32, bf16] = [fp32, bf16].map(|one| embed(one, &prompts(), &EmbedOptions::default()));
        let distance = distance(&fp32, &bf16);
        println!("bf16 against fp32, largest 1 - cosine {distance:.2e}");
        // Eight bits of mantissa must show: less would mean that OpenVINO computed in fp32 after all.
        assert!((1e-7..=BF16_COSINE).contains(&distance), "{distance}");
    }
}

#[test]
fn a_bf16_model_is_refused_where_the_processor_has_no_bf16_products() {
    let Some(library) = openvino::library() else { return };
    if has_bf16() {
        return skipped("the refusal of bf16", "this processor has bf16 products");
    }
    let error = Embedder::open(mini("openvino-bf16"), &options(&library)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Provider);
    assert!(error.to_string().contains("AVX512_BF16"), "{error}");
}

#[test]
fn a_row_is_the_same_alone_and_in_a_batch() {
    let Some(library) = openvino::library() else { return };
    for (precision, embedder) in models(&library) {
        let together = embed(&embedder, &prompts(), &embed_options(|options| options.max_batch_tokens = Some(1 << 16)));
        let alone = embed(&embedder, &prompts(), &embed_options(|options| options.max_batch_size = 1));
        println!(
            "{precision}: difference {:.2e}, 1 - cosine {:.2e}",
            difference(&alone, &together),
            distance(&alone, &together)
        );
        if precision == "openvino-fp32" {
            assert!(difference(&alone, &together) <= BATCH_INVARIANCE);
        } else {
            assert!(distance(&alone, &together) <= BF16_COSINE);
        }
    }
}

#[test]
fn a_row_as_long_as_the_model_takes_is_the_same_in_both_precisions() {
    let Some(library) = openvino::library() else { return };
    let text = "The harbour lies east of the old town, and ships come. ".repeat(600);
    let rows: Vec<_> = models(&library)
        .into_iter()
        .map(|(_, embedder)| {
            let embeddings = embedder.embed(&[Prompt::passage(&*text)], &EmbedOptions::default()).unwrap();
            assert_eq!((embeddings.token_counts(), embeddings.truncated()), (&[4096][..], &[true][..]));
            embeddings.to_f32()
        })
        .collect();
    if let [fp32, bf16] = &rows[..] {
        assert!(distance(fp32, bf16) <= BF16_COSINE, "{}", distance(fp32, bf16));
    }
}

/// A graph that OpenVINO runs is one node, between nodes is where a call ends: so before a batch and never within one.
#[test]
fn calls_end_by_deadline_and_cancellation_before_a_batch() {
    let Some(library) = openvino::library() else { return };
    let embedder = Embedder::open(mini("openvino-fp32"), &options(&library)).unwrap();
    let cancel = CancelToken::new();
    cancel.cancel();
    let cancelled = embed_options(|options| options.cancel = Some(cancel));
    let late = embed_options(|options| options.deadline = Some(Instant::now()));
    for (options, kind) in [(cancelled, ErrorKind::Cancelled), (late, ErrorKind::DeadlineExceeded)] {
        assert_eq!(embedder.embed(&prompts(), &options).unwrap_err().kind(), kind);
    }
    embed(&embedder, &prompts(), &EmbedOptions::default());
}

#[test]
fn a_graph_for_another_provider_and_a_provider_this_library_is_too_old_for_are_refused() {
    let Some(library) = openvino::library() else { return };
    for (model, provider, wanted) in [
        ("fp32", Provider::OpenVino, "export it with --target openvino"),
        ("w8a8", Provider::OpenVino, "export it with --target openvino"),
        ("openvino-fp32", Provider::Cpu, "run it on openvino"),
        ("openvino-bf16", Provider::Cuda, "export it with --target cuda"),
        ("fp32", Provider::Cpu, "cpu needs ONNX Runtime 1.31"),
    ] {
        let mut options = options(&library);
        options.provider = provider;
        let error = Embedder::open(mini(model), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider);
        assert!(error.to_string().contains(wanted), "{model} on {provider}: {error}");
    }
}

#[test]
fn no_node_of_a_graph_falls_back_to_onnx_runtimes_own_kernels() {
    let Some(library) = openvino::library() else { return };
    // OpenVINO knows all but its product of integers.
    let liar = mini_copy_of("w8a8");
    change_manifest(liar.path(), "/graph/target", "openvino".into());
    let error = Embedder::open(liar.path(), &options(&library)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.report(str::to_owned).contains("fallback to CPU EP has been explicitly disabled"), "{error}");
}
