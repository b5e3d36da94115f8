//! CUDA graphs on the CUDA shim: what replaying one overwrites, what a failed recording leaves, and who can spoil one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nvembed::gpu::UserStream;
use nvembed::half::f16;
use nvembed::{EmbedOptions, Embedder, ErrorKind};

use crate::common::shim::{self, Counts, FINITE, Fault, LAUNCH_FAILED, counts, embed, open, options, passages, since};
use crate::common::{embed_options, mini};

fn on_shim(name: &str, environment: &[(&str, &str)], test: impl FnOnce()) {
    shim::on_shim(&format!("graphs::{name}"), environment, test);
}

/// Texts of many shapes: up to 16 rows of up to 200 words, each a shape of its own.
fn shapes() -> impl Iterator<Item = Vec<String>> {
    let words = [1, 20, 36, 50, 70, 110, 150, 200];
    words.into_iter().flat_map(|words| [1, 2, 4, 8, 16].map(|rows| vec!["rain ".repeat(words); rows]))
}

fn texts(rows: &[String]) -> Vec<&str> {
    rows.iter().map(String::as_str).collect()
}

/// What a call counts.
fn counted(call: impl FnOnce()) -> Counts {
    let before = counts();
    call();
    since(before)
}

#[test]
fn rows_held_on_the_device_survive_the_graphs_of_other_shapes() {
    on_shim("rows_held_on_the_device_survive_the_graphs_of_other_shapes", &[FINITE], || {
        let embedder = open("fp16");
        let all: Vec<_> = shapes().collect();
        // Largest first, as warm_up does it: smaller buffers are then cut from what larger runs gave back.
        for rows in all.iter().rev() {
            for _ in 0..2 {
                embed(&embedder, &texts(rows)).unwrap();
            }
        }
        let mut held = Vec::new();
        for rows in &all {
            let output = embedder.embed_on_device(&passages(&texts(rows)), &EmbedOptions::default()).unwrap();
            let (rows, dim) = output.shape();
            // SAFETY: the output has that many float16, and is held.
            unsafe { shim::write(output.device_pointer() as *mut _, &vec![f16::from_f32(0.5); rows * dim]) };
            held.push(output);
        }
        shim::poison(0x77);
        let replayed = counted(|| {
            for rows in &all {
                // Held outputs are not used: these are the second buffers of each shape, which get a graph of their own.
                for _ in 0..3 {
                    drop(embedder.embed_on_device(&passages(&texts(rows)), &EmbedOptions::default()));
                }
            }
        });
        assert!(replayed.graph_launches > 0, "{replayed:?}");
        for output in &held {
            let (rows, dim) = output.shape();
            // SAFETY: as above.
            let now = unsafe { shim::read::<f16>(output.device_pointer() as *const _, rows * dim) };
            assert!(now.iter().all(|value| *value == f16::from_f32(0.5)), "{rows} rows were overwritten");
        }
    });
}

#[test]
fn poison_reaches_what_a_graph_writes() {
    // Without this, the test above could not fail.
    on_shim("poison_reaches_what_a_graph_writes", &[FINITE], || {
        let embedder = open("fp16");
        for _ in 0..2 {
            embed(&embedder, &["x"]).unwrap();
        }
        shim::poison(0x77);
        let output = embedder.embed_on_device(&passages(&["x"]), &EmbedOptions::default()).unwrap();
        // SAFETY: the output has D float16.
        let row = unsafe { shim::read::<f16>(output.device_pointer() as *const _, embedder.dim()) };
        assert!(row.iter().all(|value| value.to_bits() == 0x7777), "the graph's own output: {:?}", &row[..4]);
    });
}

#[test]
fn a_shape_is_recorded_in_its_second_run_and_replayed_afterwards() {
    on_shim("a_shape_is_recorded_in_its_second_run_and_replayed_afterwards", &[FINITE], || {
        let embedder = open("fp16");
        for rows in shapes() {
            let run = || counted(|| drop(embed(&embedder, &texts(&rows)).unwrap()));
            let [first, second, third] = [run(), run(), run()];
            assert_eq!((first.captures, first.graph_launches), (0, 0), "{first:?}");
            assert_eq!(second.captures, 1, "{second:?}");
            assert_eq!((third.captures, third.graph_launches, third.launches), (0, 1, 0), "{third:?}");
        }
    });
}

#[test]
fn a_recording_that_fails_is_never_replayed() {
    on_shim("a_recording_that_fails_is_never_replayed", &[FINITE], || {
        let embedder = open("fp16");
        let all: Vec<_> = shapes().collect();
        for (number, rows) in all.iter().enumerate() {
            let whole = counted(|| drop(embed(&embedder, &texts(rows)).unwrap())).launches;
            assert!(whole > 50, "{whole}");
            // ONNX Runtime runs a graph twice before it records it. Faults hit all three runs.
            let recording = 3 * whole;
            let after = 1 + number as i64 * recording / all.len() as i64;
            shim::fail(Fault::Launch, after, LAUNCH_FAILED, false);
            for run in 0..6 {
                let mut result = Err(None);
                let run_counted = counted(|| result = embed(&embedder, &texts(rows)).map_err(Some));
                if let Err(Some(error)) = &result {
                    assert!(matches!(error.kind(), ErrorKind::Device | ErrorKind::Inference), "{error}");
                    continue;
                }
                // Every kernel of a whole run was started one by one; the partial graph at most in the run that failed, before
                // that was repeated.
                assert!(
                    run_counted.launches >= whole && (run == 0 || run_counted.graph_launches == 0),
                    "fault at launch {after} of {recording}, run {run}: {run_counted:?} of {whole}"
                );
            }
        }
    });
}

#[test]
fn a_batch_over_the_memory_limit_fails_every_time() {
    on_shim("a_batch_over_the_memory_limit_fails_every_time", &[FINITE], || {
        let limited = options(|gpu| gpu.memory_limit = Some(40_000_000));
        let embedder = Embedder::open(mini("fp16"), &limited).unwrap();
        embed(&embedder, &["short"]).unwrap();
        let large = vec!["rain ".repeat(100); 32];
        for run in 0..6 {
            let error = embed(&embedder, &texts(&large)).expect_err(&format!("run {run}"));
            assert!(matches!(error.kind(), ErrorKind::Device | ErrorKind::Inference), "{error}");
            embed(&embedder, &["short"]).unwrap();
        }
    });
}

#[test]
fn two_devices_record_at_the_same_time_without_warm_up() {
    let devices = [FINITE, ("CUDA_SHIM_DEVICES", "2")];
    on_shim("two_devices_record_at_the_same_time_without_warm_up", &devices, || {
        let embedder = [0, 1].map(|id| {
            let one = options(|gpu| gpu.device_ids = vec![id]);
            Embedder::open(mini("fp16"), &one).unwrap()
        });
        let recorded = counted(|| {
            std::thread::scope(|scope| {
                for embedder in &embedder {
                    scope.spawn(|| {
                        for rows in shapes() {
                            for _ in 0..3 {
                                embed(embedder, &texts(&rows)).unwrap();
                            }
                        }
                    });
                }
            });
        });
        // Nothing was spoilt: each shape of each device has a graph.
        let shapes = shapes().count() as i64;
        assert_eq!((recorded.captures, recorded.graph_launches), (2 * shapes, 2 * shapes * 2), "{recorded:?}");
    });
}

#[test]
fn a_recording_that_another_threads_cuda_calls_spoil_costs_the_graph_and_no_row() {
    on_shim("a_recording_that_another_threads_cuda_calls_spoil_costs_the_graph_and_no_row", &[FINITE], || {
        let (ended, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            // A library beside us that knows nothing of recordings, in CUDA's default mode.
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    refused.fetch_add(usize::from(shim::query_stream() == 900), Ordering::Relaxed);
                }
            });
            // Each model records again; on a busy machine the thread beside us may miss the first recordings.
            let mut failed = None;
            for _ in 0..50 {
                let embedder = open("fp16");
                let mut runs = shapes().flat_map(|rows| std::iter::repeat_n(rows, 4));
                failed = runs.find_map(|rows| embed(&embedder, &texts(&rows)).err());
                if failed.is_some() || refused.load(Ordering::Relaxed) > 0 {
                    break;
                }
            }
            ended.store(true, Ordering::Relaxed);
            assert!(failed.is_none(), "{failed:?}");
        });
        assert!(refused.into_inner() > 0, "no recording was hit");
    });
}

#[test]
fn a_callers_stream_that_is_being_recorded_is_refused_and_left_alone() {
    on_shim("a_callers_stream_that_is_being_recorded_is_refused_and_left_alone", &[FINITE], || {
        let stream = shim::Stream::new();
        // SAFETY: it outlives the model. It is recorded, against the promise: that is what is tested.
        let user = unsafe { UserStream::new(stream.0 as usize) };
        let embedder = Embedder::open(mini("fp16"), &options(|gpu| gpu.stream = Some(user))).unwrap();
        embed(&embedder, &["before"]).unwrap();
        shim::begin_capture(&stream);
        let error = embed(&embedder, &["meanwhile"]).unwrap_err();
        assert!(error.to_string().contains("the stream given as `stream` is being recorded"), "{error}");
        assert_eq!(shim::end_capture(&stream), 0, "the recording is as the caller left it");
        embed(&embedder, &["after"]).unwrap();
        drop(embedder);
    });
}

#[test]
fn warm_up_runs_no_row_longer_than_the_calls_limit() {
    on_shim("warm_up_runs_no_row_longer_than_the_calls_limit", &[FINITE], || {
        let embedder = open("fp16");
        shim::copies();
        let short = embed_options(|options| options.max_length = Some(40));
        let shapes = embedder.warm_up(&short).unwrap();
        let longest = shim::copies().iter().filter(|copy| copy.kind == shim::TO_DEVICE).map(|copy| copy.bytes).max();
        // int64, [64, 48]: the largest bucket that rows of 40 tokens can need.
        assert_eq!(longest, Some(64 * 48 * 8));
        assert!(shapes < embedder.warm_up(&EmbedOptions::default()).unwrap());
    });
}
