//! Every refusal and failure that a client can get: its status, its names in each dialect, and whether to try again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use nvembed::{Error, ErrorKind};
use serde_json::json;

/// Whose clients a route is for; they read errors in different forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `{"error": {message, type, param, code}}`.
    OpenAi,
    /// `{error, error_type}`, of text-embeddings-inference.
    Tei,
    /// `{message}`.
    Cohere,
}

/// What kind of problem it is; each has one row in [`Problem::names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Invalid,
    UnknownField,
    TooLong,
    Unauthorized,
    UnknownModel,
    NoSuchRoute,
    WrongMethod,
    NotJson,
    TooLarge,
    SlowBody,
    Overloaded,
    Deadline,
    Cancelled,
    Unavailable,
    NotImplemented,
    Internal,
}

/// Why a request was not answered.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) what: What,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl Problem {
    pub(crate) fn new(what: What, message: impl Into<String>) -> Self {
        Self { what, message: message.into(), param: None, retry_after: None }
    }

    pub(crate) fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(What::Invalid, message) }
    }

    /// The status, OpenAI's type and code, and the type of text-embeddings-inference.
    fn names(what: What) -> (StatusCode, &'static str, Option<&'static str>, &'static str) {
        let (status, kind, code, tei) = match what {
            What::Invalid => (400, "invalid_request_error", None, "Validation"),
            What::UnknownField => (400, "invalid_request_error", Some("unknown_field"), "Validation"),
            What::TooLong => (400, "invalid_request_error", Some("context_length_exceeded"), "Validation"),
            What::Unauthorized => (401, "authentication_error", Some("invalid_api_key"), "Unauthorized"),
            What::UnknownModel => (404, "invalid_request_error", Some("model_not_found"), "Validation"),
            What::NoSuchRoute => (404, "invalid_request_error", Some("not_found"), "Validation"),
            What::WrongMethod => (405, "invalid_request_error", Some("method_not_allowed"), "Validation"),
            What::SlowBody => (408, "invalid_request_error", Some("request_timeout"), "Validation"),
            What::TooLarge => (413, "invalid_request_error", Some("request_too_large"), "Validation"),
            What::NotJson => (415, "invalid_request_error", Some("unsupported_media_type"), "Validation"),
            What::Overloaded => (429, "rate_limit_error", Some("overloaded"), "Overloaded"),
            What::Cancelled => (499, "server_error", Some("cancelled"), "Backend"),
            What::Internal => (500, "server_error", None, "Backend"),
            What::NotImplemented => (501, "invalid_request_error", Some("not_implemented"), "Validation"),
            What::Unavailable => (503, "server_error", Some("unavailable"), "Unhealthy"),
            What::Deadline => (504, "server_error", Some("timeout"), "Overloaded"),
        };
        (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), kind, code, tei)
    }

    pub(crate) fn status(&self, dialect: Dialect) -> StatusCode {
        match (Self::names(self.what).0, dialect) {
            (StatusCode::BAD_REQUEST, Dialect::Tei) => StatusCode::UNPROCESSABLE_ENTITY,
            (StatusCode::INTERNAL_SERVER_ERROR, Dialect::Tei) => StatusCode::FAILED_DEPENDENCY,
            (status, _) => status,
        }
    }

    /// The answer in a dialect.
    pub(crate) fn response(&self, dialect: Dialect) -> Response {
        let (_, kind, code, tei) = Self::names(self.what);
        let body = match dialect {
            Dialect::OpenAi => json!({
                "error": {"message": self.message, "type": kind, "param": self.param, "code": code}
            }),
            Dialect::Tei => json!({"error": self.message, "error_type": tei}),
            Dialect::Cohere => json!({"message": self.message}),
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
            headers.insert("retry-after-ms", HeaderValue::from(wait.as_millis().max(1) as u64));
        }
        // OpenAI's clients try 408, 409, 429 and all from 500 again unless this says that it is of no use.
        match self.what {
            What::Internal | What::Deadline | What::NotImplemented | What::SlowBody => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            What::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        let mut response = (self.status(dialect), headers, body.to_string()).into_response();
        response.extensions_mut().insert(self.clone());
        response
    }
}

/// A problem without a dialect: the layer around all routes writes the body for the route.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status(Dialect::OpenAi).into_response();
        response.extensions_mut().insert(Unwritten(self));
        response
    }
}

/// A problem whose body is still to be written.
#[derive(Debug, Clone)]
pub(crate) struct Unwritten(pub(crate) Problem);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let what = what(error.kind()).unwrap_or(What::Internal);
        let message = match what {
            // Paths, versions and devices are the operator's business; the log has them.
            What::Internal => "the model failed on this request; the server's log has the reason".to_owned(),
            _ => error.report(field),
        };
        if what == What::Internal || error.kind() == ErrorKind::Device {
            tracing::error!(error = error.report(|name| format!("`{name}`")), "a run failed");
        }
        let param = matches!(what, What::Invalid | What::TooLong).then(|| "input".to_owned());
        Self { param, retry_after: error.retry_after().map(jittered), ..Self::new(what, message) }
    }
}

/// A fifth more or less: clients that were refused together must not come back together.
fn jittered(wait: Duration) -> Duration {
    // Each state has keys of its own, from the system's random numbers.
    let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    wait.mul_f64(0.8 + 0.4 * random)
}

/// `None` for a kind that has no row here yet, which a test finds.
fn what(kind: ErrorKind) -> Option<What> {
    Some(match kind {
        ErrorKind::Input | ErrorKind::Option => What::Invalid,
        ErrorKind::TooLong => What::TooLong,
        ErrorKind::DeadlineExceeded => What::Deadline,
        ErrorKind::Cancelled => What::Cancelled,
        ErrorKind::Overloaded => What::Overloaded,
        ErrorKind::Device | ErrorKind::Closed | ErrorKind::System => What::Unavailable,
        ErrorKind::Library | ErrorKind::Provider | ErrorKind::Model | ErrorKind::Cache | ErrorKind::Inference => {
            What::Internal
        }
        _ => return None,
    })
}

/// What a client calls an option of the library.
fn field(option: &str) -> String {
    match option {
        "max_length" => "the server's --max-length".to_owned(),
        "max_tokens" => "the server's --max-queue-tokens".to_owned(),
        "truncation" => "`truncate`".to_owned(),
        _ => format!("`{option}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_a_status() {
        for &kind in ErrorKind::ALL {
            assert!(what(kind).is_some(), "{kind:?}");
        }
    }

    #[test]
    fn clients_that_were_refused_together_come_back_at_other_times() {
        let waits: Vec<_> = (0..100).map(|_| jittered(Duration::from_secs(10)).as_secs_f64()).collect();
        assert!(waits.iter().all(|wait| (8.0..=12.0).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < 9.5) && waits.iter().any(|wait| *wait > 10.5));
    }

    #[test]
    fn the_same_problem_has_the_status_of_each_dialect() {
        let problem = Problem::invalid("input", "no");
        assert_eq!(problem.response(Dialect::OpenAi).status(), 400);
        assert_eq!(problem.response(Dialect::Tei).status(), 422);
        let busy = Problem { retry_after: Some(Duration::from_millis(1500)), ..Problem::new(What::Overloaded, "busy") };
        let headers = busy.response(Dialect::OpenAi).headers().clone();
        assert_eq!(
            (&headers["retry-after"], &headers["retry-after-ms"]),
            (&"2".parse().unwrap(), &"1500".parse().unwrap())
        );
    }
}
