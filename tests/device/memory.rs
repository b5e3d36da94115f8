//! Memory of the device: that it runs out, and that it does not grow.

use nvembed::gpu::free_memory;
use nvembed::{EmbedOptions, ErrorKind, Prompt};

use crate::common::embed_options;
use crate::{batches, call_options, compare, on_each_model, passage};

/// What the weights take on the device, and a little.
fn limit(folder: &std::path::Path) -> usize {
    let weights = std::fs::metadata(folder.join("model.onnx.data")).unwrap().len() as usize;
    weights + weights / 4 + (96 << 20)
}

#[test]
fn a_batch_over_the_memory_limit_fails_each_time_and_later_rows_are_right() {
    on_each_model("a_batch_over_the_memory_limit_fails_each_time_and_later_rows_are_right", |model| {
        let embedder = model.open_with(|gpu| gpu.memory_limit = Some(limit(&model.folder)));
        let small = [passage(1, 12)];
        let wanted = embedder.embed(&small, &EmbedOptions::default()).unwrap().to_f32();
        let large: Vec<Prompt<'_>> = (0..64).map(|row| passage(row, 1800)).collect();
        let options = embed_options(|options| {
            options.max_batch_tokens = Some(1 << 18);
            options.max_length = Some(4096);
        });
        for round in 0..6 {
            let error = embedder.embed(&large, &options).expect_err("more tokens than fit the limit");
            assert!(matches!(error.kind(), ErrorKind::Device | ErrorKind::Inference), "{error:?}");
            if round == 0 {
                model.report(&format!("kind {:?}: {}", error.kind(), error.to_string().replace('\n', " ")));
            }
            let found = embedder.embed(&small, &EmbedOptions::default()).unwrap().to_f32();
            compare(embedder.manifest().precision(), &found, &wanted);
        }
        model.report("6 batches over the limit failed, and 6 rows after them were right");
    });
}

#[test]
fn memory_does_not_grow_after_the_warm_up() {
    on_each_model("memory_does_not_grow_after_the_warm_up", |model| {
        let before = free_memory(0).unwrap();
        let (embedder, options) = (model.open(), call_options());
        let opened = free_memory(0).unwrap();
        embedder.warm_up(&options).unwrap();
        let warm = free_memory(0).unwrap();
        for _ in 0..8 {
            for batch in batches() {
                embedder.embed(&batch, &options).unwrap();
            }
        }
        let after = free_memory(0).unwrap();
        let mib = |more: usize, less: usize| (more as f64 - less as f64) / f64::from(1 << 20);
        model.report(&format!(
            "{:.0} MiB to open, {:.0} MiB to warm up, {:.0} MiB in 320 calls after that",
            mib(before, opened),
            mib(opened, warm),
            mib(warm, after)
        ));
        assert!(mib(warm, after) <= 64.0);
    });
}
