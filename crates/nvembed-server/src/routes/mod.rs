//! The routes, each with the clients it is for.

mod cohere;
mod health;
mod meta;
mod openai;
mod tei;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use nvembed::Embeddings;
use nvembed::queue::Class;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::app::{App, Model};
use crate::fields::Fields;
use crate::observe::{Access, Work, observe};
use crate::problem::{Dialect, Problem, What};
use crate::prompts::Prompts;

/// The routes that metrics have series for from the start.
pub(crate) const WORK: [&str; 7] =
    ["/v1/embeddings", "/embeddings", "/v2/embed", "/embed", "/", "/invocations", "/similarity"];
/// Those that say whether the server lives, ready or not.
const PROBES: [&str; 6] = ["/v1/health/live", "/v1/health/ready", "/livez", "/readyz", "/health", "/ping"];
const METRICS: [&str; 2] = ["/metrics", "/v1/metrics"];

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let routes = Router::new()
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/embeddings", post(openai::embeddings))
        .route("/v2/embed", post(cohere::embed))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{model}", get(openai::model))
        .route("/embed", post(tei::embed))
        .route("/", post(tei::embed))
        .route("/invocations", post(tei::embed))
        .route("/tokenize", post(tei::tokenize))
        .route("/similarity", post(tei::similarity))
        .route("/info", get(tei::info))
        .route("/v1/metadata", get(meta::metadata))
        .route("/v1/version", get(meta::version))
        .route("/v1/license", get(meta::license))
        .route("/v1/manifest", get(meta::manifest))
        .route("/openapi.json", get(meta::openapi))
        .merge(not_implemented())
        .merge(health_and_metrics());
    let cors = cors(&app);
    let routes = finish(routes, app, Access::ByKey);
    match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

/// What text-embeddings-inference does with models of other kinds.
fn not_implemented() -> Router<Arc<App>> {
    let mut routes = Router::new();
    for (path, message) in [
        ("/rerank", "this model embeds; it does not rank: embed the query and the texts, or use /similarity"),
        ("/predict", "this model embeds; it does not classify"),
        ("/embed_all", "this model has one embedding per text, none per token; use /embed"),
        ("/embed_sparse", "this model's embeddings are dense; use /embed"),
    ] {
        routes = routes.route(path, post(move || async move { Problem::new(What::NotImplemented, message) }));
    }
    routes
}

/// The routes of the administrator's address.
pub(crate) fn admin_router(app: Arc<App>) -> Router {
    finish(health_and_metrics(), app, Access::Open)
}

fn health_and_metrics() -> Router<Arc<App>> {
    let mut routes = Router::new();
    for path in PROBES {
        routes = match path {
            "/v1/health/live" | "/livez" => routes.route(path, get(health::live)),
            _ => routes.route(path, get(health::ready)),
        };
    }
    for path in METRICS {
        routes = routes.route(path, get(health::metrics));
    }
    routes
}

fn finish(routes: Router<Arc<App>>, app: Arc<App>, access: Access) -> Router {
    routes
        .fallback(|| async { Problem::new(What::NoSuchRoute, "this server has no such route") })
        .method_not_allowed_fallback(|| async { Problem::new(What::WrongMethod, "this route has another method") })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state((Arc::clone(&app), access), observe))
        .with_state(app)
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    // The panic's own hook wrote what it says.
    Problem::new(What::Internal, "the server failed on this request; its log has the reason").into_response()
}

fn cors(app: &App) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> =
        app.options.cors_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let methods = [axum::http::Method::GET, axum::http::Method::POST];
    let layer = CorsLayer::new().allow_methods(methods).allow_headers(AllowHeaders::mirror_request());
    Some(layer.allow_origin(AllowOrigin::list(origins)))
}

/// Whose clients a path is for.
pub(crate) fn dialect_of(path: &str) -> Dialect {
    match path {
        "/v2/embed" => Dialect::Cohere,
        "/" | "/embed" | "/invocations" | "/embed_all" | "/embed_sparse" | "/similarity" | "/rerank" | "/predict"
        | "/tokenize" | "/info" => Dialect::Tei,
        _ => Dialect::OpenAi,
    }
}

/// Whether a route needs no key: it says no more than whether the server lives.
pub(crate) fn is_open_to_all(route: &str) -> bool {
    PROBES.contains(&route)
}

/// Whether a route is asked all the time, by machines.
pub(crate) fn is_probe(route: &str) -> bool {
    PROBES.contains(&route) || METRICS.contains(&route)
}

/// Prompts with what a handler has to count about them.
fn counted(app: &App, prompts: Prompts) -> Vec<nvembed::Prompt<'static>> {
    let Prompts { prompts, unsaid, with_instruction_inside } = prompts;
    if unsaid {
        app.metrics.without_input_type.inc();
    }
    if with_instruction_inside > 0 && app.metrics.instructions_in_text.inc_by(with_instruction_inside as u64) == 0 {
        tracing::warn!(
            "a text begins with an instruction of the model's template, which is read as part of the text; send it as \
             `instruction`, or start the server with --instructions-in-text"
        );
    }
    prompts
}

/// Whether a request is in a hurry: by `x-nvembed-class`, which a gateway sets, or by `priority`, in which vLLM's and Cohere's
/// clients say 0 for what comes first. The queue decides by its size when nothing says so.
fn class(headers: &HeaderMap, fields: &mut Fields) -> Result<Option<Class>, Problem> {
    let priority = fields.integer("priority")?;
    let Some(header) = headers.get("x-nvembed-class") else {
        return Ok(priority.map(|priority| if priority > 0 { Class::Bulk } else { Class::Interactive }));
    };
    match header.as_bytes() {
        b"interactive" => Ok(Some(Class::Interactive)),
        b"bulk" => Ok(Some(Class::Bulk)),
        _ => Err(Problem::invalid("x-nvembed-class", "the header x-nvembed-class must be interactive or bulk")),
    }
}

/// How many numbers of each embedding a request wants.
fn dimensions(model: &Model, field: &'static str, wanted: Option<i64>) -> Result<Option<usize>, Problem> {
    let Some(wanted) = wanted else { return Ok(None) };
    let dim = model.embedder.dim();
    match usize::try_from(wanted) {
        Ok(wanted) if (1..=dim).contains(&wanted) => Ok(Some(wanted)),
        _ => Err(Problem::invalid(field, format!("`{field}` must be 1 to {dim}, got {wanted}"))),
    }
}

/// Counts embeddings, for metrics and the line in the log.
fn account(app: &App, embeddings: &Embeddings, characters: usize) -> Work {
    let stats = embeddings.stats();
    let truncated = embeddings.truncated().iter().filter(|truncated| **truncated).count();
    let metrics = &app.metrics;
    metrics.texts.inc_by(embeddings.len() as u64);
    metrics.tokens.inc_by(stats.tokens as u64);
    metrics.truncated_texts.inc_by(truncated as u64);
    metrics.queue.observe(stats.queue_time.as_secs_f64());
    metrics.run.observe(stats.session_time.as_secs_f64());
    for tokens in embeddings.token_counts() {
        metrics.text_tokens.observe(*tokens as f64);
    }
    Work {
        texts: embeddings.len(),
        characters,
        tokens: stats.tokens,
        truncated,
        queue: stats.queue_time,
        run: stats.session_time,
    }
}

/// An answer of JSON, with what it was about.
fn json_answer(body: Vec<u8>, work: Work) -> Response {
    let kind = [(axum::http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let mut response = (kind, body).into_response();
    response.extensions_mut().insert(work);
    response
}

fn json(value: &serde_json::Value) -> Response {
    json_answer(value.to_string().into_bytes(), Work::default())
}

/// Seconds since 1970 when the model was opened, which clients want as a model's `created`.
fn created(model: &Model, app: &App) -> u64 {
    let since = app.started.elapsed().saturating_sub(model.opened);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(since).as_secs()
}
