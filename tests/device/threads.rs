//! Other threads, other models and other GPUs beside a run.
#![expect(unsafe_code, reason = "another user of the device calls its driver")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cudarc::driver::{CudaContext, result};
use nvembed::gpu::devices;
use nvembed::queue::{Queue, QueueOptions, SubmitOptions};
use nvembed::{ErrorKind, Prompt};

use crate::common::embed_options;
use crate::{batches, call_options, compare, on_each_model, passage};

#[test]
fn a_thread_that_allocates_without_pause_spoils_no_row() {
    on_each_model("a_thread_that_allocates_without_pause_spoils_no_row", |model| {
        let (embedder, options) = (model.open_with(|gpu| gpu.cuda_graphs = false), call_options());
        let wanted: Vec<_> = batches().iter().map(|batch| embedder.embed(batch, &options).unwrap().to_f32()).collect();
        let (recording, over) = (model.open(), AtomicBool::new(false));
        let (calls, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                CudaContext::new(0).unwrap().bind_to_thread().unwrap();
                while !over.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(60) {
                    // SAFETY: the memory is freed at once, and read by nobody.
                    let done = unsafe { result::malloc_sync(1 << 16).and_then(|memory| result::free_sync(memory)) };
                    calls.fetch_add(1, Ordering::Relaxed);
                    refused.fetch_add(usize::from(done.is_err()), Ordering::Relaxed);
                }
            });
            for _ in 0..3 {
                for (batch, wanted) in batches().iter().zip(&wanted) {
                    let found = recording.embed(batch, &options).unwrap().to_f32();
                    compare(recording.manifest().precision(), &found, wanted);
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        model.report(&format!(
            "120 calls were right; CUDA refused {} of the other thread's {} calls",
            refused.into_inner(),
            calls.into_inner()
        ));
    });
}

#[test]
fn callers_of_a_queue_get_their_own_rows() {
    on_each_model("callers_of_a_queue_get_their_own_rows", |model| {
        let (embedder, options) = (Arc::new(model.open()), call_options());
        let precision = embedder.manifest().precision();
        let requests: Vec<Vec<Prompt<'_>>> =
            (0..160).map(|id| (0..=id % 5).map(|row| passage(id * 8 + row, 1 + (id * 37) % 200)).collect()).collect();
        let wanted: Vec<_> = requests.iter().map(|one| embedder.embed(one, &options).unwrap().to_f32()).collect();
        let queue = Queue::start(Arc::clone(&embedder), QueueOptions::default()).unwrap();
        let mut submit = SubmitOptions::default();
        submit.embed = options;
        std::thread::scope(|scope| {
            for caller in 0..8 {
                let (queue, submit, requests, wanted) = (&queue, &submit, &requests, &wanted);
                scope.spawn(move || {
                    for (request, wanted) in requests.iter().zip(wanted).skip(caller).step_by(8) {
                        let found = queue.submit(request, submit).unwrap().wait().unwrap().to_f32();
                        compare(precision, &found, wanted);
                    }
                });
            }
        });
        // Requests of which nobody waits for the answer leave nothing behind.
        for request in &requests {
            drop(queue.submit(request, &submit).unwrap());
        }
        assert_eq!(queue.drain(Duration::from_secs(60)), 0);
        let stats = queue.stats();
        model.report(&format!("160 requests of 8 threads were right, in {} runs", stats.runs));
        assert_eq!(stats.failed_runs, 0);
    });
}

#[test]
fn a_deadline_ends_a_call_and_spoils_no_later_one() {
    on_each_model("a_deadline_ends_a_call_and_spoils_no_later_one", |model| {
        let (embedder, options) = (model.open(), call_options());
        let (small, large) = ([passage(1, 12)], (0..512).map(|row| passage(row, 300)).collect::<Vec<_>>());
        let wanted = embedder.embed(&small, &options).unwrap().to_f32();
        let mut ended = 0;
        for millis in 1..=20 {
            let options = embed_options(|options| {
                options.max_length = call_options().max_length;
                options.deadline = Some(Instant::now() + Duration::from_millis(millis));
            });
            match embedder.embed(&large, &options) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
                    ended += 1;
                }
            }
            let found = embedder.embed(&small, &call_options()).unwrap().to_f32();
            compare(embedder.manifest().precision(), &found, &wanted);
        }
        model.report(&format!("{ended} of 20 calls were ended by their deadline, and 20 rows after them were right"));
        assert!(ended > 0);
    });
}

#[test]
fn two_models_that_record_at_once_give_their_own_rows() {
    on_each_model("two_models_that_record_at_once_give_their_own_rows", |model| {
        let options = call_options();
        let plain = model.open_with(|gpu| gpu.cuda_graphs = false);
        let wanted: Vec<_> = batches().iter().map(|batch| plain.embed(batch, &options).unwrap().to_f32()).collect();
        drop(plain);
        let (one, other) = (model.open(), model.open());
        std::thread::scope(|scope| {
            for embedder in [&one, &other] {
                let (wanted, options) = (&wanted, &options);
                scope.spawn(move || {
                    for _ in 0..4 {
                        for (batch, wanted) in batches().iter().zip(wanted) {
                            let found = embedder.embed(batch, options).unwrap().to_f32();
                            compare(embedder.manifest().precision(), &found, wanted);
                        }
                    }
                });
            }
        });
        model.report("320 calls of two models on one GPU were right");
    });
}

#[test]
fn two_gpus_give_the_same_rows() {
    on_each_model("two_gpus_give_the_same_rows", |model| {
        let found = devices().unwrap().len();
        if found < 2 {
            return model.report("SKIPPED: one GPU");
        }
        let options = call_options();
        let prompts: Vec<Prompt<'_>> = (0..512).map(|row| passage(row, 1 + row % 200)).collect();
        let wanted = model.open().embed(&prompts, &options).unwrap().to_f32();
        // Without a warm-up, so that both record at once.
        let both = model.open_with(|gpu| gpu.device_ids = vec![0, 1]);
        for _ in 0..4 {
            let rows = both.embed(&prompts, &options).unwrap().to_f32();
            compare(both.manifest().precision(), &rows, &wanted);
        }
        model.report("512 rows on both of two GPUs were right, four times");
    });
}
