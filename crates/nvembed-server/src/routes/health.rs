//! Whether the server lives and is ready, and its metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::{App, Phase};
use crate::problem::{Problem, What};

/// A run that took so long, and ten times as long as predicted, will not end.
const HUNG: Duration = Duration::from_secs(60);

/// Whoever answers, lives, unless a run hangs or no GPU is left. Load never fails it: a restart would only add to it.
pub(super) async fn live(State(app): State<Arc<App>>) -> Response {
    let run = app.model().ok().and_then(|model| model.queue.stats().longest_run);
    if run.is_some_and(|run| is_hung(run.elapsed, run.expected)) {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "a run hangs", &json!({"live": false}));
    }
    if !app.devices_work() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "no device is left", &json!({"live": false}));
    }
    answer(StatusCode::OK, "live", &json!({"live": true}))
}

fn is_hung(elapsed: Duration, expected: Option<Duration>) -> bool {
    // Nothing is known about the first runs.
    elapsed > HUNG && expected.is_some_and(|expected| elapsed > expected * 10)
}

/// Not ready while the model is being opened, when no GPU is left, and while the server is about to end; never for load.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let (status, message) = match app.phase() {
        Phase::Ready if app.is_ready() => (StatusCode::OK, "ready"),
        Phase::Ready => (StatusCode::SERVICE_UNAVAILABLE, "no device is left"),
        Phase::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    answer(status, message, &json!({"ready": status == StatusCode::OK}))
}

/// In the form of NVIDIA NIM.
fn answer(status: StatusCode, message: &str, more: &serde_json::Value) -> Response {
    let mut body = json!({"object": "health.response", "message": message});
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response()
}

/// For Prometheus, in the format that it accepts.
pub(super) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    app.metrics.ready.set(i64::from(app.is_ready()));
    let open_metrics = accept.contains("application/openmetrics-text");
    let text = app.metrics.text(open_metrics).map_err(|_| Problem::new(What::Internal, "metrics cannot be written"))?;
    let kind = if open_metrics {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_takes_much_longer_than_predicted_hangs() {
        let seconds = Duration::from_secs;
        assert!(is_hung(seconds(61), Some(seconds(6))));
        assert!(!is_hung(seconds(61), Some(seconds(7))) && !is_hung(seconds(59), Some(seconds(1))));
        assert!(!is_hung(seconds(600), None));
    }
}
