//! What is copied, allocated, recorded and freed in a run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nvembed::gpu::UserStream;
use nvembed::half::f16;
use nvembed::{Dtype, EmbedOptions, Embedder, ErrorKind, ModelOptions, Prompt};

use crate::common::shim::{
    self, Copied, Counts, FINITE, TO_DEVICE, TO_HOST, counts, embed, open, options, passages, since,
};
use crate::common::{embed_options, mini};

fn on_shim(name: &str, environment: &[(&str, &str)], test: impl FnOnce()) {
    shim::on_shim(&format!("runs::{name}"), environment, test);
}

/// Which counters a test looks at, by name.
fn copies_and_allocations(counts: Counts) -> (i64, i64, i64, i64) {
    (counts.to_device, counts.to_host, counts.on_device, counts.allocations)
}

#[test]
fn a_run_copies_three_inputs_in_and_one_output_back_and_allocates_nothing() {
    on_shim("a_run_copies_three_inputs_in_and_one_output_back_and_allocates_nothing", &[FINITE], || {
        for precision in ["fp16", "fp32", "bf16"] {
            let embedder = open(precision);
            // A plain run, and the one that is recorded.
            for _ in 0..2 {
                embed(&embedder, &["one text", "another"]).unwrap();
            }
            for run in 0..5 {
                let before = counts();
                embed(&embedder, &["a third text", "a fourth"]).unwrap();
                let counted = since(before);
                assert_eq!(copies_and_allocations(counted), (3, 1, 0, 0), "{precision}, run {run}");
                // One for the output; three of events that have passed, so that no pinned memory is used too early.
                assert_eq!(counted.synchronizations, 4, "{precision}, run {run}");
            }
        }
    });
}

#[test]
fn ids_and_masks_arrive_padded_and_the_rows_come_back_in_order() {
    on_shim("ids_and_masks_arrive_padded_and_the_rows_come_back_in_order", &[FINITE], || {
        let embedder = open("fp16");
        let prompts = [
            Prompt::query("find it", "who wrote the odyssey?"),
            Prompt::passage("Homer."),
            Prompt::passage("a text of a few more words than the others have"),
        ];
        let encode = embed_options(|options| options.dtype = Dtype::F16);
        embedder.embed(&prompts, &encode).unwrap();
        shim::copies();
        // In the place of the kernels: row i of the batch is all i + 1. The output's address is where the copy back reads.
        embedder.embed(&prompts, &encode).unwrap();
        let copied = shim::copies();
        let (into, back): (Vec<_>, Vec<_>) = copied.iter().copied().partition(|copy: &Copied| copy.kind == TO_DEVICE);
        assert!(back.len() == 1 && back[0].kind == TO_HOST, "{copied:?}");
        let dim = embedder.dim();
        // Three of four rows: the padding row is not copied.
        assert_eq!(back[0].bytes, 3 * dim * 2);
        let rows: Vec<f16> = (0..4 * dim).map(|index| f16::from_f32((index / dim + 1) as f32)).collect();
        // SAFETY: the output has [4, D] float16, and no run is on.
        unsafe { shim::write(back[0].from, &rows) };
        let embeddings = embedder.embed(&prompts, &encode).unwrap().to_f32();

        let tokens = embedder.tokenize(&prompts, &encode).unwrap();
        let longest = tokens.iter().map(|tokens| tokens.ids.len()).max().unwrap();
        let length = if longest <= 16 { 16 } else { 32 };
        assert!(into.iter().all(|copy| copy.bytes == 4 * length * 8), "{into:?}");
        // SAFETY: three inputs of [4, S] int64.
        let [ids, attention, pool] =
            [0, 1, 2].map(|index: usize| unsafe { shim::read::<i64>(into[index].to, 4 * length) });
        let mut order: Vec<usize> = (0..3).collect();
        order.sort_by_key(|row| tokens[*row].ids.len());
        for (row, prompt) in order.iter().enumerate() {
            let (wanted, skipped) = (&tokens[*prompt].ids, tokens[*prompt].instruction_tokens);
            for position in 0..length {
                let at = row * length + position;
                let real = position < wanted.len();
                assert_eq!(ids[at], if real { i64::from(wanted[position]) } else { 2 }, "row {row}, {position}");
                assert_eq!(attention[at], i64::from(real), "row {row}, {position}");
                assert_eq!(pool[at], i64::from(real && position >= skipped), "row {row}, {position}");
            }
            assert!(embeddings.row(*prompt).iter().all(|value| *value == (row + 1) as f32), "prompt {prompt}");
        }
        let padding = 3 * length..4 * length;
        assert_eq!(attention[padding.clone()].iter().sum::<i64>(), 1, "a padding row has one token");
        assert_eq!(pool[padding].iter().sum::<i64>(), 1, "and pools it");
    });
}

#[test]
fn memory_that_no_kernel_wrote_is_never_returned() {
    on_shim("memory_that_no_kernel_wrote_is_never_returned", &[], || {
        let error = embed(&open("fp16"), &["a text"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Inference);
        assert!(error.to_string().contains("not finite"), "{error}");
    });
}

#[test]
fn each_shape_has_a_graph_of_its_own_which_is_replayed_on_no_other() {
    on_shim("each_shape_has_a_graph_of_its_own_which_is_replayed_on_no_other", &[FINITE], || {
        let embedder = open("fp16");
        let long = "a text of many words ".repeat(20);
        let shapes: [&[&str]; 4] = [&["short"], &["two", "texts"], &[&long], &["five"; 5]];
        for texts in shapes {
            let before = counts();
            for _ in 0..2 {
                embed(&embedder, texts).unwrap();
            }
            let recorded = since(before);
            assert!(recorded.captures == 1 && recorded.launches > 0, "a new shape is recorded: {recorded:?}");
        }
        for texts in shapes.iter().chain(shapes.iter().rev()) {
            let before = counts();
            embed(&embedder, texts).unwrap();
            let replayed = since(before);
            assert_eq!((replayed.captures, replayed.graph_launches, replayed.launches), (0, 1, 0), "{texts:?}");
        }
    });
}

#[test]
fn graphs_are_off_by_a_switch_and_bounded_in_number() {
    on_shim("graphs_are_off_by_a_switch_and_bounded_in_number", &[FINITE], || {
        let off = options(|gpu| gpu.cuda_graphs = false);
        let bounded = options(|gpu| gpu.max_cuda_graphs = 1);
        for (options, graphs) in [(off, 0), (bounded, 1)] {
            let embedder = Embedder::open(mini("fp16"), &options).unwrap();
            let before = counts();
            for _ in 0..3 {
                embed(&embedder, &["short"]).unwrap();
                embed(&embedder, &["two", "texts"]).unwrap();
            }
            assert_eq!(since(before).captures, graphs);
        }
    });
}

#[test]
fn warm_up_leaves_nothing_to_record_or_allocate() {
    on_shim("warm_up_leaves_nothing_to_record_or_allocate", &[FINITE], || {
        let buckets = options(|gpu| {
            gpu.sequence_buckets = vec![16, 64];
            gpu.batch_buckets = vec![1, 4];
        });
        let embedder = Embedder::open(mini("fp16"), &buckets).unwrap();
        assert_eq!(embedder.warm_up(&EmbedOptions::default()).unwrap(), 4);
        let before = counts();
        let long = "word ".repeat(40);
        for texts in [&["short"][..], &["two", "texts"], &[&long], &[&long, &long, "x"]] {
            embed(&embedder, texts).unwrap();
        }
        let after = since(before);
        assert_eq!((after.captures, after.allocations, after.graph_launches), (0, 0, 4), "{after:?}");
        // And nothing longer than the longest bucket is run.
        let error = embed(&embedder, &[&"word ".repeat(100)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLong);
        assert!(error.to_string().contains("longest of `sequence_buckets`, 64"), "{error}");
    });
}

#[test]
fn all_memory_is_free_when_the_model_is_closed() {
    on_shim("all_memory_is_free_when_the_model_is_closed", &[FINITE], || {
        // What the libraries keep for the process is there after the first time.
        drop(open("fp16"));
        let before = counts();
        for precision in ["fp16", "fp32"] {
            let embedder = open(precision);
            embed(&embedder, &["a text", "another"]).unwrap();
            let held = embedder.embed_on_device(&passages(&["a text"]), &EmbedOptions::default()).unwrap();
            drop(embedder);
            // Whoever holds an output keeps the device.
            assert!(since(before).live_allocations > 0);
            drop(held);
            let after = since(before);
            assert_eq!((after.live_allocations, after.live_handles), (0, 0), "{precision}: {after:?}");
        }
    });
}

#[test]
fn rows_stay_on_the_device_until_they_are_dropped() {
    on_shim("rows_stay_on_the_device_until_they_are_dropped", &[FINITE], || {
        let embedder = open("fp16");
        let encode = EmbedOptions::default();
        let hold = |texts: &[&str]| embedder.embed_on_device(&passages(texts), &encode);
        drop(hold(&["x", "y"]).unwrap());
        let before = counts();
        let first = hold(&["a text", "another"]).unwrap();
        let after = since(before);
        assert_eq!(copies_and_allocations(after), (3, 0, 0, 0), "no row is copied to the host");
        assert_eq!((first.shape(), first.dtype(), first.device_id()), ((2, embedder.dim()), Dtype::F16, 0));
        assert!(first.stream() != 0 && first.event() != 0);
        assert_eq!(first.token_counts().len(), 2);
        // A second one of that shape is elsewhere, a third is refused, and neither blocks other calls.
        let second = hold(&["a text", "another"]).unwrap();
        assert_ne!(first.device_pointer(), second.device_pointer());
        let error = hold(&["a text", "another"]).unwrap_err();
        assert!(error.kind() == ErrorKind::Device && error.to_string().contains("buffer_sets"), "{error}");
        for refused in [embed_options(|o| o.dimensions = Some(3)), embed_options(|o| o.dtype = Dtype::Int8)] {
            assert_eq!(embedder.embed_on_device(&passages(&["x"]), &refused).unwrap_err().kind(), ErrorKind::Option);
        }
        embed(&embedder, &["one"]).unwrap();
        let address = first.device_pointer();
        drop(first);
        assert_eq!(hold(&["a text", "another"]).unwrap().device_pointer(), address);
    });
}

#[test]
fn copies_kernels_and_graphs_are_all_on_one_stream() {
    on_shim("copies_kernels_and_graphs_are_all_on_one_stream", &[FINITE], || {
        for cuda_graphs in [true, false] {
            let graphs = options(|gpu| gpu.cuda_graphs = cuda_graphs);
            let embedder = Embedder::open(mini("fp16"), &graphs).unwrap();
            let stream = embedder.embed_on_device(&passages(&["x"]), &EmbedOptions::default()).unwrap().stream();
            shim::watch(stream);
            let before = counts();
            for _ in 0..3 {
                // A new shape, which is recorded, and one that is replayed.
                embed(&embedder, &["two", "texts"]).unwrap();
                embed(&embedder, &["x"]).unwrap();
            }
            let used = since(before);
            assert!(used.launches > 0 && used.to_device == 18, "{used:?}");
            assert_eq!(used.elsewhere, 0, "CUDA graphs {cuda_graphs}: {used:?}");
            shim::watch(1);
            embed(&embedder, &["x"]).unwrap();
            assert!(since(before).elsewhere > 0, "the count can fail");
            shim::watch(0);
        }
    });
}

#[test]
fn a_callers_own_stream_is_used_and_stays_the_callers() {
    on_shim("a_callers_own_stream_is_used_and_stays_the_callers", &[FINITE], || {
        drop(open("fp16"));
        let before = counts();
        let stream = shim::Stream::new();
        // SAFETY: it outlives the model, and captures nothing.
        let user = unsafe { UserStream::new(stream.0 as usize) };
        let own = options(|gpu| gpu.stream = Some(user));
        let embedder = Embedder::open(mini("fp16"), &own).unwrap();
        let held = embedder.embed_on_device(&passages(&["x"]), &EmbedOptions::default()).unwrap();
        assert_eq!(held.stream(), stream.0 as usize);
        let event = held.event();
        // SAFETY: the shim counts in the first word of an event and of a stream, which both exist.
        let count = |handle: usize| unsafe { shim::read::<i64>(handle as *const _, 1) }[0];
        let (recorded, waited) = (count(event), count(stream.0 as usize));
        assert_eq!(recorded, 1, "the event is behind the run");
        // SAFETY: the output's own event exists as long as the model.
        unsafe { held.release_after(event) };
        embed(&embedder, &["x"]).unwrap();
        assert_eq!((count(event), count(stream.0 as usize)), (recorded + 1, waited + 1));
        drop(embedder.embed_on_device(&passages(&["x"]), &EmbedOptions::default()).unwrap());
        embed(&embedder, &["x"]).unwrap();
        assert_eq!(count(stream.0 as usize), waited + 1, "nothing is waited for without an event");
        drop(embedder);
        assert_eq!(since(before).live_handles, 1);
        drop(stream);
        assert_eq!(since(before).live_handles, 0);

        let two = options(|gpu| {
            gpu.stream = Some(user);
            gpu.device_ids = vec![0, 1];
        });
        let error = Embedder::open(mini("fp16"), &two).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Option
                && error.to_string().contains("`stream` is a stream of one device, `device_ids` names 2"),
            "{error}"
        );
    });
}

#[test]
fn what_cannot_be_held_on_a_device_is_refused() {
    on_shim("what_cannot_be_held_on_a_device_is_refused", &[FINITE], || {
        let embedder = open("fp16");
        let encode = embed_options(|options| options.max_batch_size = 2);
        for (prompts, wanted) in [(vec![], "got 0"), (passages(&["a", "b", "c"]), "got 3")] {
            let error = embedder.embed_on_device(&prompts, &encode).unwrap_err();
            assert!(error.kind() == ErrorKind::Option && error.to_string().contains(wanted), "{error}");
        }
        let host = Embedder::open(mini("fp32"), &ModelOptions::default()).unwrap();
        let error = host.embed_on_device(&passages(&["a"]), &encode).unwrap_err();
        assert!(error.kind() == ErrorKind::Option && error.to_string().contains("open on cpu"), "{error}");
    });
}

#[test]
fn two_threads_share_a_device_and_get_their_own_rows() {
    on_shim("two_threads_share_a_device_and_get_their_own_rows", &[FINITE], || {
        let embedder = open("fp16");
        embed(&embedder, &["x"]).unwrap();
        let before = counts();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(embed(&embedder, &["x"]).unwrap().len(), 1);
                    }
                });
            }
        });
        assert_eq!(copies_and_allocations(since(before)), (120, 40, 0, 0));
    });
}

#[test]
fn each_of_two_devices_gets_its_share() {
    on_shim("each_of_two_devices_gets_its_share", &[FINITE, ("CUDA_SHIM_DEVICES", "2")], || {
        let two = options(|gpu| gpu.device_ids = vec![0, 1]);
        let embedder = Embedder::open(mini("fp16"), &two).unwrap();
        let encode = EmbedOptions::default();
        let first = embedder.embed_on_device(&passages(&["x"]), &encode).unwrap();
        // The device that works is the one that was least busy; while several threads call, both are.
        let seen = [AtomicBool::new(false), AtomicBool::new(false)];
        seen[first.device_id()].store(true, Ordering::Relaxed);
        drop(first);
        let end = Instant::now() + Duration::from_secs(30);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while Instant::now() < end && !seen.iter().all(|seen| seen.load(Ordering::Relaxed)) {
                        let held = embedder.embed_on_device(&passages(&["x"]), &encode);
                        // With four callers on two buffers a refusal is right.
                        if let Ok(held) = held {
                            seen[held.device_id()].store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed)), "{seen:?}");
    });
}

#[test]
fn options_of_the_provider_reach_onnx_runtime() {
    on_shim("options_of_the_provider_reach_onnx_runtime", &[FINITE], || {
        let with = |name: &str, value: &str| {
            let mut options = options(|_| {});
            options.provider_options = vec![(name.to_owned(), value.to_owned())];
            Embedder::open(mini("fp16"), &options)
        };
        with("sdpa_kernel", "1").unwrap();
        let error = with("no_such_option", "1").unwrap_err();
        assert!(
            error.kind() == ErrorKind::Provider && error.report(str::to_owned).contains("no_such_option"),
            "{error}"
        );
        // What the runtime itself relies on cannot be replaced, least of all unnoticed.
        for name in ["device_id", "user_compute_stream", "enable_cuda_graph"] {
            let error = with(name, "1").unwrap_err();
            assert!(error.kind() == ErrorKind::Option && error.to_string().contains(name), "{error}");
        }
        // A limit below the weights.
        let small = options(|gpu| gpu.memory_limit = Some(1 << 20));
        let error = Embedder::open(mini("fp16"), &small).unwrap_err();
        assert!(error.to_string().contains("too little free memory"), "{error}");
    });
}

#[test]
fn a_stream_of_texts_keeps_their_order_across_windows() {
    on_shim("a_stream_of_texts_keeps_their_order_across_windows", &[FINITE], || {
        let embedder = open("fp16");
        let texts: Vec<String> = (0..50).map(|index| "word ".repeat(1 + index % 17)).collect();
        let encode = embed_options(|options| options.window = 8);
        let prompts = texts.iter().map(|text| Prompt::passage(text.as_str())).enumerate();
        let tokens: Vec<usize> =
            embedder.embed_iter(prompts, &encode).unwrap().map(|(_, row)| row.unwrap().tokens).collect();
        let wanted: Vec<usize> = texts
            .iter()
            .map(|text| embedder.tokenize(&[Prompt::passage(text.as_str())], &encode).unwrap()[0].ids.len())
            .collect();
        assert_eq!(tokens, wanted);
    });
}
