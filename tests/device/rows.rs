//! Rows are right whatever ran before, beside and after.
#![expect(unsafe_code, reason = "rows are read back from the device")]

use cudarc::driver::{CudaContext, result, sys};
use ndarray::Array2;
use nvembed::gpu::DeviceEmbeddings;
use nvembed::half::f16;
use nvembed::{Dtype, Prompt};

use crate::{batches, call_options, compare, on_each_model, passage};

/// A copy of rows on the device, as raw bytes.
fn read(rows: &DeviceEmbeddings) -> Vec<u8> {
    CudaContext::new(rows.device_id()).unwrap().bind_to_thread().unwrap();
    let (count, dim) = rows.shape();
    let mut bytes = vec![0; count * dim * if rows.dtype() == Dtype::F16 { 2 } else { 4 }];
    // SAFETY: the event is alive as long as `rows`, and so is the memory, of that many bytes.
    unsafe {
        sys::cuEventSynchronize(rows.event() as sys::CUevent).result().unwrap();
        result::memcpy_dtoh_sync(&mut bytes, rows.device_pointer()).unwrap();
    }
    bytes
}

fn to_f32(rows: &DeviceEmbeddings, bytes: &[u8]) -> Array2<f32> {
    let values = match rows.dtype() {
        Dtype::F16 => bytes.chunks_exact(2).map(|two| f16::from_le_bytes([two[0], two[1]]).to_f32()).collect(),
        _ => bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect(),
    };
    Array2::from_shape_vec(rows.shape(), values).unwrap()
}

#[test]
fn rows_held_on_the_device_survive_the_graphs_of_later_calls() {
    on_each_model("rows_held_on_the_device_survive_the_graphs_of_later_calls", |model| {
        let embedder = model.open_with(|gpu| gpu.buffer_sets = 48);
        let options = call_options();
        let shapes = embedder.warm_up(&options).unwrap();
        let plain = model.open_with(|gpu| gpu.cuda_graphs = false);
        let held: Vec<_> = batches().iter().map(|batch| embedder.embed_on_device(batch, &options).unwrap()).collect();
        let before: Vec<_> = held.iter().map(read).collect();
        for _ in 0..4 {
            for batch in batches() {
                embedder.embed(&batch, &options).unwrap();
            }
        }
        let changed = held.iter().zip(&before).filter(|(rows, before)| read(rows) != **before).count();
        let mut largest = 0.0_f64;
        for ((rows, bytes), batch) in held.iter().zip(&before).zip(batches()) {
            let wanted = plain.embed(&batch, &options).unwrap().to_f32();
            largest = largest.max(compare(embedder.manifest().precision(), &to_f32(rows, bytes), &wanted));
        }
        model.report(&format!(
            "{changed} of {} outputs changed over 160 later calls; {shapes} shapes warmed up; largest difference from a \
             model without CUDA graphs {largest:.1e}",
            held.len()
        ));
        assert_eq!(changed, 0);
    });
}

#[test]
fn a_row_is_the_same_alone_and_in_a_batch() {
    on_each_model("a_row_is_the_same_alone_and_in_a_batch", |model| {
        let (embedder, options) = (model.open(), call_options());
        let prompts: Vec<Prompt<'_>> = (0..64).map(|row| passage(row, 1 + row * 5)).collect();
        let together = embedder.embed(&prompts, &options).unwrap().to_f32();
        let mut alone = Array2::zeros(together.dim());
        for (row, prompt) in prompts.iter().enumerate() {
            let one = embedder.embed(std::slice::from_ref(prompt), &options).unwrap().to_f32();
            alone.row_mut(row).assign(&one.row(0));
        }
        let largest = compare(embedder.manifest().precision(), &alone, &together);
        model.report(&format!("largest difference {largest:.1e}"));
    });
}

#[test]
fn the_same_call_gives_the_same_bits_again_and_again() {
    on_each_model("the_same_call_gives_the_same_bits_again_and_again", |model| {
        let (embedder, options) = (model.open(), call_options());
        let mut different = 0;
        for batch in batches() {
            // The second run is recorded, and the later ones replay it.
            let runs: Vec<_> = (0..6).map(|_| embedder.embed(&batch, &options).unwrap().to_f32()).collect();
            different += runs.iter().filter(|run| **run != runs[0]).count();
        }
        model.report(&format!("{different} of 240 runs of 40 shapes differ from the first of their shape"));
        assert_eq!(different, 0);
    });
}
