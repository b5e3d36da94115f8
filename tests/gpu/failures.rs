//! The GPU path on the CUDA shim when something fails: memory, copies, kernels, the device; and deadlines when it hangs.

use std::time::{Duration, Instant};

use nvembed::{CancelToken, EmbedOptions, Embedder, ErrorKind};

use crate::common::shim::{
    self, FINITE, Fault, ILLEGAL_ADDRESS, LAUNCH_FAILED, OUT_OF_MEMORY, counts, embed, open, options, passages, since,
};
use crate::common::{embed_options, mini};

fn on_shim(name: &str, environment: &[(&str, &str)], test: impl FnOnce()) {
    shim::on_shim(&format!("failures::{name}"), environment, test);
}

#[test]
fn a_device_too_small_for_the_model_says_so() {
    on_shim("a_device_too_small_for_the_model_says_so", &[("CUDA_SHIM_MEMORY", "1000000")], || {
        let error = Embedder::open(mini("fp16"), &options(|_| {})).unwrap_err();
        assert!(error.to_string().contains("too little free memory"), "{error}");
    });
}

#[test]
fn a_batch_too_large_for_the_device_fails_alone() {
    let memory = [FINITE, ("CUDA_SHIM_MEMORY", "40000000")];
    on_shim("a_batch_too_large_for_the_device_fails_alone", &memory, || {
        let embedder = open("fp16");
        embed(&embedder, &["short"]).unwrap();
        let long = "a text of many words ".repeat(800);
        for _ in 0..2 {
            let error = embed(&embedder, &[&long]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Device, "{error}");
            assert!(error.to_string().contains("too little free memory"), "{error}");
            embed(&embedder, &["short"]).unwrap();
        }
    });
}

#[test]
fn buffers_that_cannot_be_had_fail_one_batch() {
    on_shim("buffers_that_cannot_be_had_fail_one_batch", &[FINITE], || {
        let embedder = open("fp16");
        embed(&embedder, &["short"]).unwrap();
        let texts = ["a text of many words ".repeat(20), "another ".repeat(200)];
        for text in &texts {
            shim::fail(Fault::Allocation, 1, OUT_OF_MEMORY, false);
            let error = embed(&embedder, &[text]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Device, "{error}");
            assert!(error.report(str::to_owned).contains("out of memory"), "{error}");
            embed(&embedder, &[text]).unwrap();
            embed(&embedder, &["short"]).unwrap();
        }
    });
}

#[test]
fn a_failed_copy_or_launch_is_an_error_of_its_batch_alone() {
    on_shim("a_failed_copy_or_launch_is_an_error_of_its_batch_alone", &[FINITE], || {
        let no_graphs = options(|gpu| gpu.cuda_graphs = false);
        let embedder = Embedder::open(mini("fp16"), &no_graphs).unwrap();
        embed(&embedder, &["short"]).unwrap();
        // Each copy in turn, a launch, and the waiting for the output.
        for (fault, after) in [
            (Fault::Copy, 1),
            (Fault::Copy, 3),
            (Fault::Copy, 4),
            (Fault::Launch, 1),
            (Fault::Launch, 30),
            (Fault::Synchronization, 3),
        ] {
            shim::fail(fault, after, LAUNCH_FAILED, false);
            let result = embed(&embedder, &["short"]);
            let error = result.expect_err(&format!("{fault:?} {after}"));
            assert!(matches!(error.kind(), ErrorKind::Device | ErrorKind::Inference), "{fault:?} {after}: {error}");
            embed(&embedder, &["short"]).unwrap();
        }
    });
}

#[test]
fn a_poisoned_device_is_reported_to_every_call_and_hangs_none() {
    on_shim("a_poisoned_device_is_reported_to_every_call_and_hangs_none", &[FINITE], || {
        let embedder = open("fp16");
        embed(&embedder, &["short"]).unwrap();
        shim::fail(Fault::Copy, 2, ILLEGAL_ADDRESS, true);
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| embed(&embedder, &["short"]).unwrap_err())).collect();
            for call in calls {
                let error = call.join().unwrap();
                assert_eq!(error.kind(), ErrorKind::Device, "{error}");
                assert!(error.to_string().contains("GPU 0: a run or copy failed"), "{error}");
                assert!(error.to_string().contains("unusable until this process restarts"), "{error}");
                assert!(error.to_string().contains("700"), "{error}");
            }
        });
        assert_eq!(embedder.warm_up(&EmbedOptions::default()).unwrap_err().kind(), ErrorKind::Device);
        assert_eq!(embedder.check_devices().unwrap_err().kind(), ErrorKind::Device);
        let held = embedder.embed_on_device(&passages(&["x"]), &EmbedOptions::default());
        assert_eq!(held.unwrap_err().kind(), ErrorKind::Device);
    });
}

#[test]
fn a_device_that_is_not_there_is_refused_with_the_number_there_is() {
    on_shim("a_device_that_is_not_there_is_refused_with_the_number_there_is", &[], || {
        let third = options(|gpu| gpu.device_ids = vec![2]);
        let error = Embedder::open(mini("fp16"), &third).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider);
        assert!(error.to_string().contains("there is no GPU 2: the NVIDIA driver has 1"), "{error}");
    });
}

#[test]
fn a_busy_device_does_not_hide_the_others() {
    let devices = [FINITE, ("CUDA_SHIM_DEVICES", "2"), ("CUDA_SHIM_BUSY", "1")];
    on_shim("a_busy_device_does_not_hide_the_others", &devices, || {
        assert_eq!(nvembed::gpu::devices().unwrap().len(), 2);
        embed(&open("fp16"), &["on the first"]).unwrap();
        let second = options(|gpu| gpu.device_ids = vec![1]);
        let error = Embedder::open(mini("fp16"), &second).unwrap_err();
        assert!(error.kind() == ErrorKind::Provider && error.to_string().contains("opening GPU 1 failed"), "{error}");
    });
}

#[test]
fn a_default_stream_is_refused() {
    for address in 0..3 {
        // SAFETY: the stream is refused before anything uses it.
        let stream = unsafe { nvembed::gpu::UserStream::new(address) };
        let error = Embedder::open(mini("fp16"), &options(|gpu| gpu.stream = Some(stream))).unwrap_err();
        assert!(error.kind() == ErrorKind::Option && error.to_string().contains("default streams"), "{error}");
    }
}

#[test]
fn calls_end_by_deadline_and_by_cancellation() {
    on_shim("calls_end_by_deadline_and_by_cancellation", &[FINITE], || {
        let embedder = open("fp16");
        let call = |options: EmbedOptions| embedder.embed(&passages(&["short"]), &options);
        let late = embed_options(|options| options.deadline = Some(Instant::now()));
        let cancel = CancelToken::new();
        let cancellable = embed_options(|options| options.cancel = Some(cancel.clone()));
        call(cancellable.clone()).unwrap();
        let before = counts();
        assert_eq!(call(late).unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        cancel.cancel();
        assert_eq!(call(cancellable).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(since(before).to_device, 0, "neither reached the device");
        call(embed_options(|options| options.deadline = Some(Instant::now() + Duration::from_secs(600)))).unwrap();
    });
}

#[test]
fn a_device_that_does_not_end_holds_no_call_beyond_its_deadline() {
    on_shim("a_device_that_does_not_end_holds_no_call_beyond_its_deadline", &[FINITE], || {
        let embedder = open("fp16");
        embed(&embedder, &["short"]).unwrap();
        let soon = || {
            let deadline = Some(Instant::now() + Duration::from_millis(100));
            embed_options(|options| options.deadline = deadline)
        };
        let before = counts();
        shim::hold(true);
        for _ in 0..3 {
            assert_eq!(embedder.embed(&passages(&["short"]), &soon()).unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        }
        for _ in 0..3 {
            let held = embedder.embed_on_device(&passages(&["short"]), &soon());
            assert_eq!(held.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        }
        assert_eq!(embedder.warm_up(&soon()).unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        let cancel = CancelToken::new();
        let options = embed_options(|options| options.cancel = Some(cancel.clone()));
        std::thread::scope(|scope| {
            let call = scope.spawn(|| embedder.embed(&passages(&["short"]), &options).unwrap_err());
            cancel.cancel();
            assert_eq!(call.join().unwrap().kind(), ErrorKind::Cancelled);
        });
        shim::hold(false);
        embed(&embedder, &["short"]).unwrap();
        // The first call's batch, which had begun, and the last one's: nobody waited for those between.
        assert_eq!(since(before).to_device, 6);
        // Outputs that nobody waited for any more are not held: here the run has begun when the deadline passes.
        for _ in 0..3 {
            shim::hold(true);
            let held = embedder.embed_on_device(&passages(&["short"]), &soon());
            assert_eq!(held.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
            shim::hold(false);
            embed(&embedder, &["short"]).unwrap();
        }
        let hold = || embedder.embed_on_device(&passages(&["short"]), &EmbedOptions::default()).unwrap();
        let _both = [hold(), hold()];
    });
}

#[test]
fn a_shape_whose_recording_failed_is_recorded_again() {
    on_shim("a_shape_whose_recording_failed_is_recorded_again", &[FINITE], || {
        let embedder = open("fp16");
        let before = counts();
        embed(&embedder, &["one", "two"]).unwrap();
        let launches = since(before).launches;
        // In the runs before the recording, and in the recording itself, which is the last.
        for after in [1, launches / 2, launches - 1] {
            let embedder = open("fp16");
            shim::fail(Fault::Launch, after, LAUNCH_FAILED, false);
            let error = embed(&embedder, &["one", "two"]).expect_err(&format!("launch {after} of {launches}"));
            assert!(matches!(error.kind(), ErrorKind::Device | ErrorKind::Inference), "{error}");
            for _ in 0..2 {
                let result = embed(&embedder, &["one", "two"]);
                result.unwrap_or_else(|error| panic!("after launch {after} of {launches}: {error}"));
            }
        }
    });
}
