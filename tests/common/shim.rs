//! Tests on the CUDA shim. Each runs in a process of its own, because ONNX Runtime, the shim's libraries and its faults belong to
//! a whole process. What the shim is, and what it cannot show: tests/gpu/shim/README.md.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]
#![expect(unsafe_code, reason = "the shim's counters are C")]

use std::ffi::{c_int, c_long, c_void};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use libloading::Library;
use nvembed::gpu::GpuOptions;
use nvembed::{EmbedOptions, Embedder, ModelOptions, Prompt, Provider};

use super::{mini, model_options, root, skipped};

/// Names the test that a process was started for.
const VARIABLE: &str = "NVEMBED_TEST_ON_SHIM";

/// The folder with ONNX Runtime's GPU library, and that of the shim; `None` says why there are none.
pub fn places() -> Result<(PathBuf, PathBuf), String> {
    let shim = root().join("build/cuda-shim");
    if !shim.join("libcudnn.so.9").is_file() {
        return Err(format!("{} is not built (make cuda-shim, on x86-64 Linux)", shim.display()));
    }
    let pythons = std::fs::read_dir(root().join(".venv-gpu/lib")).map_err(|error| format!(".venv-gpu: {error}"))?;
    let library = pythons
        .flatten()
        .flat_map(|python| std::fs::read_dir(python.path().join("site-packages/onnxruntime/capi")))
        .flat_map(|files| files.flatten().map(|file| file.path()))
        .find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so")));
    Ok((library.ok_or(".venv-gpu has no onnxruntime-gpu")?, shim))
}

/// Fresh memory that reads as 1.06 in float16, for tests that want a run to end well.
pub const FINITE: (&str, &str) = ("CUDA_SHIM_FRESH", "60");

/// Options of the CUDA provider, with changes.
pub fn options(change: impl FnOnce(&mut GpuOptions)) -> ModelOptions {
    model_options(|options| {
        options.provider = Provider::Cuda;
        // Nothing is computed on the shim.
        options.self_check = false;
        change(&mut options.gpu);
    })
}

/// The mini model on the shim.
pub fn open(precision: &str) -> Embedder {
    Embedder::open(mini(precision), &options(|_| {})).unwrap()
}

/// Texts as passages.
pub fn passages(texts: &[&str]) -> Vec<Prompt<'static>> {
    texts.iter().map(|text| Prompt::passage((*text).to_owned())).collect()
}

/// Embeds texts as passages.
pub fn embed(embedder: &Embedder, texts: &[&str]) -> nvembed::Result<nvembed::Embeddings> {
    embedder.embed(&passages(texts), &EmbedOptions::default())
}

/// Runs `test` in a process whose CUDA is the shim, with these environment variables. Where there is no shim it says that the
/// test was skipped. `name` is the path of the test function, as `module_path!()` and its name.
pub fn on_shim(name: &str, environment: &[(&str, &str)], test: impl FnOnce()) {
    if std::env::var(VARIABLE).is_ok_and(|started| started == name) {
        return test();
    }
    let (library, shim) = match places() {
        Ok(places) => places,
        Err(reason) => {
            assert!(std::env::var_os("NVEMBED_REQUIRE_SHIM").is_none(), "{reason}");
            return skipped(name, &reason);
        }
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(VARIABLE, name).env("ORT_DYLIB_PATH", library).env("LD_LIBRARY_PATH", shim);
    command.envs(environment.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(status.success(), "in its own process, {status}:\n{text}");
    assert!(text.contains("1 passed"), "the test did not run:\n{text}");
}

/// The shim's folder without one library, as on a machine that lacks it.
pub fn without(name: &str) -> Option<tempfile::TempDir> {
    let (_, shim) = places().ok()?;
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(shim).unwrap().flatten() {
        if !file.file_name().to_string_lossy().starts_with(name) {
            std::os::unix::fs::symlink(file.path(), folder.path().join(file.file_name())).unwrap();
        }
    }
    Some(folder)
}

/// ONNX Runtime's library and its providers in a folder of their own, with nothing of pip's around.
pub fn library_alone() -> Option<tempfile::TempDir> {
    let (library, _) = places().ok()?;
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(library.parent()?).unwrap().flatten() {
        if file.file_name().to_string_lossy().starts_with("libonnxruntime") {
            std::os::unix::fs::symlink(file.path(), folder.path().join(file.file_name())).unwrap();
        }
    }
    Some(folder)
}

/// `struct shim_counts` of tests/gpu/shim/state.c.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub to_device: c_long,
    pub to_host: c_long,
    pub on_device: c_long,
    pub launches: c_long,
    pub live_allocations: c_long,
    pub allocations: c_long,
    pub live_handles: c_long,
    pub captures: c_long,
    pub graph_launches: c_long,
    pub synchronizations: c_long,
    pub elsewhere: c_long,
}

/// `struct shim_copied`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Copied {
    pub to: *mut c_void,
    pub from: *mut c_void,
    pub bytes: usize,
    pub kind: c_long,
}

/// Directions of copies.
pub const TO_DEVICE: c_long = 0;
pub const TO_HOST: c_long = 1;

/// What can be made to fail.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Allocation,
    Copy,
    Launch,
    Graph,
    Synchronization,
}

/// CUDA's numbers of errors.
pub const OUT_OF_MEMORY: c_int = 2;
pub const ILLEGAL_ADDRESS: c_int = 700;
pub const LAUNCH_FAILED: c_int = 719;

fn shim() -> &'static Library {
    static SHIM: OnceLock<Library> = OnceLock::new();
    // SAFETY: the shim's initializers do nothing.
    SHIM.get_or_init(|| unsafe { Library::new("libcuda.so.1") }.unwrap())
}

pub fn counts() -> Counts {
    let mut counts = Counts::default();
    // SAFETY: the function writes one struct of this layout.
    unsafe { shim().get::<unsafe extern "C" fn(*mut Counts)>(b"cuda_shim_counts\0").unwrap()(&raw mut counts) };
    counts
}

/// What changed since `before`.
pub fn since(before: Counts) -> Counts {
    let after = counts();
    Counts {
        to_device: after.to_device - before.to_device,
        to_host: after.to_host - before.to_host,
        on_device: after.on_device - before.on_device,
        launches: after.launches - before.launches,
        live_allocations: after.live_allocations - before.live_allocations,
        allocations: after.allocations - before.allocations,
        live_handles: after.live_handles - before.live_handles,
        captures: after.captures - before.captures,
        graph_launches: after.graph_launches - before.graph_launches,
        synchronizations: after.synchronizations - before.synchronizations,
        elsewhere: after.elsewhere - before.elsewhere,
    }
}

/// The copies since the last call.
pub fn copies() -> Vec<Copied> {
    let mut copied = Copied { to: std::ptr::null_mut(), from: std::ptr::null_mut(), bytes: 0, kind: 0 };
    // SAFETY: the function writes one struct of this layout, when it returns other than 0.
    let next = unsafe { shim().get::<unsafe extern "C" fn(*mut Copied) -> c_int>(b"cuda_shim_next_copy\0") }.unwrap();
    // SAFETY: as above.
    std::iter::from_fn(|| (unsafe { next(&raw mut copied) } != 0).then_some(copied)).collect()
}

/// The names of the kernels that were launched since the last call.
pub fn launched() -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = std::ffi::CString::new(file.path().to_str().unwrap()).unwrap();
    type Launches = unsafe extern "C" fn(*const std::ffi::c_char) -> c_int;
    // SAFETY: the function reads a path.
    let failed = unsafe { shim().get::<Launches>(b"cuda_shim_launches\0").unwrap()(path.as_ptr()) };
    assert_eq!(failed, 0);
    std::fs::read_to_string(file.path()).unwrap().lines().map(str::to_owned).collect()
}

/// The `after`th call of that kind from now fails; every later call of any kind too if `sticky`.
pub fn fail(fault: Fault, after: c_long, error: c_int, sticky: bool) {
    type Fail = unsafe extern "C" fn(c_int, c_long, c_int, c_int);
    // SAFETY: the function takes four numbers.
    unsafe { shim().get::<Fail>(b"cuda_shim_fail\0").unwrap()(fault as c_int, after, error, c_int::from(sticky)) };
}

/// While held, whoever waits for the device goes on waiting.
pub fn hold(hold: bool) {
    // SAFETY: the function takes a number.
    unsafe { shim().get::<unsafe extern "C" fn(c_int)>(b"cuda_shim_hold\0").unwrap()(c_int::from(hold)) };
}

/// From now on, replaying a graph fills the memory that it would write with this byte; 0 leaves it as it is.
pub fn poison(byte: u8) {
    // SAFETY: the function takes a number.
    unsafe { shim().get::<unsafe extern "C" fn(c_int)>(b"cuda_shim_poison\0").unwrap()(c_int::from(byte)) };
}

/// Counts, from now on, what is put on other streams.
pub fn watch(stream: usize) {
    // SAFETY: the function takes an address and compares it.
    unsafe { shim().get::<unsafe extern "C" fn(usize)>(b"cuda_shim_watch\0").unwrap()(stream) };
}

/// Asks whether a stream is done, as a library does that shares the process; returns CUDA's code.
pub fn query_stream() -> c_int {
    // SAFETY: the shim takes any stream.
    unsafe { shim().get::<unsafe extern "C" fn(usize) -> c_int>(b"cuStreamQuery\0").unwrap()(1) }
}

/// Begins to record a stream, in thread-local mode.
pub fn begin_capture(stream: &Stream) {
    type Begin = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
    // SAFETY: the stream exists.
    assert_eq!(unsafe { shim().get::<Begin>(b"cuStreamBeginCapture_v2\0").unwrap()(stream.0, 1) }, 0);
}

/// Ends the recording of a stream; returns CUDA's code.
pub fn end_capture(stream: &Stream) -> c_int {
    let mut graph = std::ptr::null_mut::<c_void>();
    type End = unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int;
    // SAFETY: the stream exists; one handle is written.
    unsafe { shim().get::<End>(b"cuStreamEndCapture\0").unwrap()(stream.0, &raw mut graph) }
}

/// A stream that this test makes and destroys itself.
pub struct Stream(pub *mut c_void);

impl Stream {
    pub fn new() -> Self {
        let mut stream = std::ptr::null_mut();
        type Create = unsafe extern "C" fn(*mut *mut c_void, std::ffi::c_uint) -> c_int;
        // SAFETY: writes one handle to the address of one.
        unsafe { shim().get::<Create>(b"cuStreamCreate\0").unwrap()(&raw mut stream, 0) };
        Self(stream)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made by cuStreamCreate, and destroyed once.
        unsafe { shim().get::<unsafe extern "C" fn(*mut c_void) -> c_int>(b"cuStreamDestroy_v2\0").unwrap()(self.0) };
    }
}

/// Numbers in "device" memory, which on the shim is the host's.
///
/// # Safety
/// There are `len` of them at `address`, written, and none else changes them.
pub unsafe fn read<T: Copy>(address: *const c_void, len: usize) -> Vec<T> {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(address.cast::<T>(), len) }.to_vec()
}

/// Writes numbers into "device" memory, in the place of the kernels that do not run.
///
/// # Safety
/// There is room for them at `address`, and none else uses it.
pub unsafe fn write<T: Copy>(address: *mut c_void, values: &[T]) {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(address.cast::<T>(), values.len()) }.copy_from_slice(values);
}
