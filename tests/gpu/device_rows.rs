//! Rows that are copied on the device, out of the buffers of the run.

use nvembed::half::f16;
use nvembed::{Dtype, EmbedOptions, Embedder, ErrorKind};

use crate::common::shim::{self, FINITE, Fault, OUT_OF_MEMORY, counts, embed, open, passages, since};

fn on_shim(name: &str, test: impl FnOnce()) {
    shim::on_shim(&format!("device_rows::{name}"), &[FINITE], test);
}

fn rows(embedder: &Embedder) -> nvembed::gpu::DeviceRows {
    embedder.embed_on_device(&passages(&["x"]), &EmbedOptions::default()).unwrap().into_rows().unwrap()
}

/// The bits of the only row.
fn bits(embedder: &Embedder, rows: &nvembed::gpu::DeviceRows) -> Vec<u16> {
    // SAFETY: one row of D float16, in the shim's memory, which is the host's.
    let row = unsafe { shim::read::<f16>(rows.device_pointer() as *const _, embedder.dim()) };
    row.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn copied_rows_are_those_of_their_run_whatever_runs_later() {
    on_shim("copied_rows_are_those_of_their_run_whatever_runs_later", || {
        let embedder = open("fp16");
        for _ in 0..2 {
            embed(&embedder, &["x"]).unwrap();
        }
        // A replayed graph writes this byte, in the place of a result.
        let kept: Vec<_> = (0x70..0x78)
            .map(|byte| {
                shim::poison(byte);
                (u16::from_ne_bytes([byte; 2]), rows(&embedder))
            })
            .collect();
        assert!(kept.len() > 2, "more than there are buffers");
        for (byte, rows) in &kept {
            assert_eq!(bits(&embedder, rows), vec![*byte; embedder.dim()]);
            assert_eq!((rows.shape(), rows.dtype(), rows.device_id()), ((1, embedder.dim()), Dtype::F16, 0));
        }
    });
}

#[test]
fn copied_rows_outlive_the_model_and_free_their_memory() {
    on_shim("copied_rows_outlive_the_model_and_free_their_memory", || {
        drop(open("fp16"));
        let before = counts();
        let embedder = open("fp16");
        let (dim, rows) = (embedder.dim(), rows(&embedder));
        drop(embedder);
        assert_eq!(since(before).live_allocations, 1, "the rows alone");
        // SAFETY: as in `bits`; the memory belongs to the rows.
        let row = unsafe { shim::read::<f16>(rows.device_pointer() as *const _, dim) };
        assert_eq!(row.len(), dim);
        drop(rows);
        let after = since(before);
        assert_eq!((after.live_allocations, after.live_handles), (0, 0), "{after:?}");
    });
}

#[test]
fn rows_that_cannot_be_copied_are_an_error_and_free_their_buffers() {
    on_shim("rows_that_cannot_be_copied_are_an_error_and_free_their_buffers", || {
        let embedder = open("fp16");
        drop(rows(&embedder));
        for fault in [Fault::Allocation, Fault::Copy, Fault::Synchronization] {
            // More often than there are buffers: none is lost.
            for _ in 0..4 {
                let held = embedder.embed_on_device(&passages(&["x"]), &EmbedOptions::default()).unwrap();
                shim::fail(fault, 1, OUT_OF_MEMORY, false);
                let error = held.into_rows().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Device, "{fault:?}: {error}");
                assert!(error.to_string().starts_with("GPU 0: "), "{error}");
            }
        }
        let kept = rows(&embedder);
        assert!(bits(&embedder, &kept).iter().all(|bits| *bits == 0x3c3c), "the shim's fresh memory");
    });
}
