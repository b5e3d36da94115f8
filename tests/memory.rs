//! What stays in memory after a call on the CPU. One test, since it looks at the whole process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod common;

use common::{embed_options, mini, model_options};
use nvembed::{Embedder, Prompt};

/// Resident memory of this process in bytes.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1024
}

fn embed(embedder: &Embedder, rows: usize, words: usize) {
    let options = embed_options(|options| options.max_batch_tokens = Some(1 << 20));
    let stats = *embedder.embed(&vec![Prompt::passage("rain ".repeat(words)); rows], &options).unwrap().stats();
    assert_eq!(stats.batches, 1);
}

/// glibc's own limit between memory that it hands back when it is freed and memory that it may keep for later.
const THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");

/// Runs a test in a process of its own in which glibc keeps no large block that was freed. It raises its limit to 32 MiB by
/// itself otherwise, and then what it keeps changes from run to run and hides what ONNX Runtime keeps.
fn with_every_large_block_handed_back(name: &str, test: impl FnOnce()) {
    if std::env::var_os(THRESHOLD.0).is_some() {
        return test();
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture"]).env(THRESHOLD.0, THRESHOLD.1);
    assert!(child.status().unwrap().success());
}

#[test]
fn large_batches_keep_memory_until_a_long_text_gives_it_back_and_none_with_low_memory() {
    let name = "large_batches_keep_memory_until_a_long_text_gives_it_back_and_none_with_low_memory";
    with_every_large_block_handed_back(name, compare_what_is_kept);
}

fn compare_what_is_kept() {
    let kept = |low_memory| {
        let options = model_options(|options| options.low_memory = low_memory);
        let embedder = Embedder::open(mini("cpu-fp32"), &options).unwrap();
        embed(&embedder, 1, 8);
        let start = resident();
        embed(&embedder, 32, 1000);
        let after_batch = resident() - start;
        embed(&embedder, 1, 2000);
        [after_batch, resident() - start]
    };
    // Two tensors of 32,000 tokens by 512 floats; the arena keeps several times as much.
    let some = 2 * 32_000 * 512 * 4;
    let [after_batch, after_long_text] = kept(false);
    assert!(after_batch > 2 * some, "the arena keeps what a batch took: {after_batch}");
    assert!(after_long_text < some, "a long text gives it back: {after_long_text} of {after_batch}");
    let [after_batch, _] = kept(true);
    assert!(after_batch < some, "no arena keeps nothing: {after_batch}");
}
