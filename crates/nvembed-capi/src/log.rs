//! Logging to the caller's callback. Users' texts are never logged.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::codes::{NVEMBED_INVALID_ARGUMENT, nvembed_code};
use crate::error::{Failure, nvembed_error};
use crate::guard;

/// Failures only.
pub const NVEMBED_LOG_ERROR: i32 = 1;
/// Also what looks wrong.
pub const NVEMBED_LOG_WARN: i32 = 2;
/// Also rare events, such as the loading of ONNX Runtime.
pub const NVEMBED_LOG_INFO: i32 = 3;
/// Also what helps to find a problem, and what ONNX Runtime calls INFO.
pub const NVEMBED_LOG_DEBUG: i32 = 4;
/// Everything.
pub const NVEMBED_LOG_TRACE: i32 = 5;

/// Receives a log message: its NVEMBED_LOG_... level, its target ("nvembed...", or "ort..." for ONNX Runtime) and its text.
/// Both strings are UTF-8, are not NUL-terminated, and are valid until the callback returns.
///
/// It is called from any thread, including ONNX Runtime's, and from several at the same time. It must not throw, must not call
/// functions of nvembed (they return NVEMBED_IN_CALLBACK), and should return quickly.
pub type nvembed_log_callback = Option<
    unsafe extern "C" fn(
        level: i32,
        target: *const c_char,
        target_length: usize,
        message: *const c_char,
        message_length: usize,
        user_data: *mut c_void,
    ),
>;

/// The current callback.
static SINK: RwLock<Option<Sink>> = RwLock::new(None);
/// Its level, 0 if there is no callback; read for every message, before any lock.
static LEVEL: AtomicI32 = AtomicI32::new(0);
/// Whether our subscriber is installed; locked while the callback is changed.
static INSTALLED: Mutex<bool> = Mutex::new(false);

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

struct Sink {
    callback: unsafe extern "C" fn(i32, *const c_char, usize, *const c_char, usize, *mut c_void),
    user_data: *mut c_void,
}

// SAFETY: the caller promises that the callback, with its data, may be called from any thread.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

/// Whether this thread is inside the callback.
pub(crate) fn in_callback() -> bool {
    IN_CALLBACK.get()
}

/// Sets the process's callback for log messages up to `level`, instead of the previous one; NULL removes it. When this
/// function returns, the previous callback is not running and will not be called again, so its user data may be freed.
///
/// Thread-safe. It waits for callbacks that are running, so do not hold a lock that the callback takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_set_log_callback(
    callback: nvembed_log_callback,
    user_data: *mut c_void,
    level: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let invalid = |message: String| Failure::new(NVEMBED_INVALID_ARGUMENT, message);
            if callback.is_some() && !(NVEMBED_LOG_ERROR..=NVEMBED_LOG_TRACE).contains(&level) {
                return Err(invalid(format!("level must be 1 (error) to 5 (trace), got {level}")));
            }
            let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
            if callback.is_some() && !*installed {
                // Only other Rust code in the same library can have set one: each Rust library of a C program has its own.
                tracing::subscriber::set_global_default(ToCallback)
                    .map_err(|_| invalid("this process already sends its tracing events elsewhere".to_owned()))?;
                *installed = true;
            }
            *SINK.write().unwrap_or_else(PoisonError::into_inner) =
                callback.map(|callback| Sink { callback, user_data });
            LEVEL.store(if callback.is_some() { level } else { 0 }, Ordering::Relaxed);
            tracing::callsite::rebuild_interest_cache();
            Ok(())
        })
    }
}

/// Sends events to the callback; spans are ignored.
struct ToCallback;

/// ONNX Runtime's INFO is about its own workings, several lines for each model that opens: what we call debugging.
fn number(metadata: &Metadata<'_>) -> i32 {
    match *metadata.level() {
        Level::INFO if metadata.target().split("::").next() == Some("ort") => NVEMBED_LOG_DEBUG,
        Level::ERROR => NVEMBED_LOG_ERROR,
        Level::WARN => NVEMBED_LOG_WARN,
        Level::INFO => NVEMBED_LOG_INFO,
        Level::DEBUG => NVEMBED_LOG_DEBUG,
        Level::TRACE => NVEMBED_LOG_TRACE,
    }
}

impl Subscriber for ToCallback {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && number(metadata) <= LEVEL.load(Ordering::Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match LEVEL.load(Ordering::Relaxed) {
            NVEMBED_LOG_ERROR => LevelFilter::ERROR,
            NVEMBED_LOG_WARN => LevelFilter::WARN,
            NVEMBED_LOG_INFO => LevelFilter::INFO,
            NVEMBED_LOG_DEBUG => LevelFilter::DEBUG,
            NVEMBED_LOG_TRACE => LevelFilter::TRACE,
            _ => LevelFilter::OFF,
        })
    }

    fn event(&self, event: &Event<'_>) {
        // A message from inside the callback would come back here. A thread that is ending no longer has the flag.
        if IN_CALLBACK.try_with(Cell::get).unwrap_or(true) {
            return;
        }
        // ONNX Runtime calls this from C++, which no panic may reach.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let mut message = String::new();
            event.record(&mut Text(&mut message));
            let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
            let Some(Sink { callback, user_data }) = &*sink else { return };
            let (level, target) = (number(event.metadata()), event.metadata().target());
            IN_CALLBACK.set(true);
            // SAFETY: the strings outlive the call; the rest is the promise of the caller who set the callback.
            unsafe {
                let (text, target_text) = (message.as_ptr().cast(), target.as_ptr().cast());
                callback(level, target_text, target.len(), text, message.len(), *user_data);
            }
            IN_CALLBACK.set(false);
        }));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Writes an event as one line: the message, then its fields.
struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{space}{value:?}"),
            name => write!(self.0, "{space}{name}={value:?}"),
        };
    }
}
