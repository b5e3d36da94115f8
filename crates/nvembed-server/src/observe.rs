//! Around every request: its id, its key, its error's form, its line in the log and its place in the metrics.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::app::{App, Phase};
use crate::metrics::{ReasonLabels, RequestLabels, RouteLabels};
use crate::problem::{Problem, Unwritten, What};
use crate::routes::{dialect_of, is_open_to_all, is_probe};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The route of a path that is not ours, so that no client can make up labels.
const OTHER: &str = "other";

/// What a request was about, for its line in the log; a handler puts it into its answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    pub(crate) texts: usize,
    pub(crate) characters: usize,
    pub(crate) tokens: usize,
    pub(crate) truncated: usize,
    /// Until its first row ran.
    pub(crate) queue: Duration,
    pub(crate) run: Duration,
}

/// Who may use an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Those with a key, if there are keys.
    ByKey,
    /// All who reach it.
    Open,
}

/// The layer around all routes.
pub(crate) async fn observe(
    State((app, access)): State<(Arc<App>, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let dialect = dialect_of(path.as_deref().unwrap_or(request.uri().path()));
    let mut record = Record::new(&app, path.unwrap_or_else(|| OTHER.to_owned()), id_of(request.headers()));
    // For handlers whose answers have it in the body.
    request.headers_mut().insert(REQUEST_ID, record.id.clone());
    let key = match access {
        Access::ByKey => authorize(&app, &record.route, request.headers()),
        Access::Open => Ok(None),
    };
    let mut response = match key {
        Ok(key) => {
            record.key = key;
            next.run(request).await
        }
        Err(problem) => problem.response(dialect),
    };
    if let Some(Unwritten(problem)) = response.extensions_mut().remove::<Unwritten>() {
        let headers = std::mem::take(response.headers_mut());
        response = problem.response(dialect);
        response.headers_mut().extend(headers.into_iter().filter_map(|(name, value)| Some((name?, value))));
    }
    // A proxy that keeps connections would go on using one to a server that is about to leave.
    if app.phase() == Phase::Draining {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    record.finish(&mut response);
    response
}

/// The name of the key that a request showed; `None` where no key is needed.
fn authorize(app: &App, route: &str, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(keys) = app.keys().filter(|_| !is_open_to_all(route)) else { return Ok(None) };
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let name = key.and_then(|(_, key)| keys.name_of(key.trim()));
    let message = "this server requires a key that it knows, as `Authorization: Bearer KEY`";
    name.map(|name| Some(name.to_owned())).ok_or_else(|| Problem::new(What::Unauthorized, message))
}

/// The client's own id, if it is short and visible; otherwise a new one.
fn id_of(headers: &HeaderMap) -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let is_good =
        |value: &&HeaderValue| (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    if let Some(theirs) = headers.get(&REQUEST_ID).filter(is_good) {
        return theirs.clone();
    }
    // Each state has keys of its own, from the system's random numbers.
    let number = RandomState::new().hash_one(NEXT.fetch_add(1, Ordering::Relaxed));
    HeaderValue::from_str(&format!("{number:016x}")).unwrap_or(HeaderValue::from_static("0"))
}

/// A request on its way. Dropped before it is finished, it is one whose client left.
struct Record<'a> {
    app: &'a App,
    route: String,
    id: HeaderValue,
    key: Option<String>,
    start: Instant,
    is_finished: bool,
}

impl<'a> Record<'a> {
    fn new(app: &'a App, route: String, id: HeaderValue) -> Self {
        app.metrics.in_flight.inc();
        Self { app, route, id, key: None, start: Instant::now(), is_finished: false }
    }

    fn finish(&mut self, response: &mut Response) {
        self.is_finished = true;
        let work = response.extensions().get::<Work>().copied().unwrap_or_default();
        let problem = response.extensions_mut().remove::<Problem>();
        response.headers_mut().insert(REQUEST_ID, self.id.clone());
        if work.texts > 0 {
            self.tell_times(work, response.headers_mut());
        }
        let metrics = &self.app.metrics;
        if let Some(reason) = problem.as_ref().and_then(|problem| reason(problem.what)) {
            metrics.rejected.get_or_create(&ReasonLabels { reason }).inc();
        }
        self.count(response.status().as_u16());
        self.log(response.status().as_u16(), work, problem.as_ref());
    }

    /// The headers of text-embeddings-inference, and the one that browsers show.
    fn tell_times(&self, work: Work, headers: &mut HeaderMap) {
        let numbers = [
            ("x-compute-characters", work.characters),
            ("x-compute-tokens", work.tokens),
            ("x-total-time", self.start.elapsed().as_millis() as usize),
            ("x-queue-time", work.queue.as_millis() as usize),
            ("x-inference-time", work.run.as_millis() as usize),
        ];
        for (name, number) in numbers {
            headers.insert(name, HeaderValue::from(number));
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let timing = format!("queue;dur={:.1}, run;dur={:.1}", ms(work.queue), ms(work.run));
        if let Ok(timing) = HeaderValue::from_str(&timing) {
            headers.insert("server-timing", timing);
        }
    }

    fn count(&self, code: u16) {
        let metrics = &self.app.metrics;
        metrics.in_flight.dec();
        metrics.requests.get_or_create(&RequestLabels { route: self.route.clone(), code }).inc();
        if !is_probe(&self.route) {
            let route = RouteLabels { route: self.route.clone() };
            metrics.duration.get_or_create(&route).observe(self.start.elapsed().as_secs_f64());
        }
    }

    /// One line, which has no text of the client's but the id.
    fn log(&self, status: u16, work: Work, problem: Option<&Problem>) {
        let (route, id) = (&*self.route, self.id.to_str().unwrap_or_default());
        let ms = self.start.elapsed().as_secs_f64() * 1e3;
        if is_probe(route) {
            tracing::trace!(target: "nvembed::request", id, route, status, ms, "probe");
            return;
        }
        let Work { texts, tokens, truncated, queue, run, .. } = work;
        let (key, queue_ms, run_ms) = (self.key.as_deref(), queue.as_secs_f64() * 1e3, run.as_secs_f64() * 1e3);
        let problem = problem.map(|problem| tracing::field::debug(problem.what));
        tracing::info!(
            target: "nvembed::request", id, route, status, texts, tokens, truncated, ms, queue_ms, run_ms, key, problem, "request"
        );
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.app.metrics.left.inc();
            self.count(499);
            self.log(499, Work::default(), None);
        }
    }
}

/// The reason's label; `None` for what is nobody's refusal.
fn reason(what: What) -> Option<&'static str> {
    Some(match what {
        What::Invalid | What::UnknownField | What::TooLong | What::UnknownModel | What::NotJson => "invalid",
        What::Unauthorized => "unauthorized",
        What::TooLarge | What::SlowBody => "too_large",
        What::Overloaded => "overloaded",
        What::Deadline => "deadline",
        What::Unavailable => "unavailable",
        What::NoSuchRoute | What::WrongMethod | What::Cancelled | What::NotImplemented | What::Internal => return None,
    })
}
