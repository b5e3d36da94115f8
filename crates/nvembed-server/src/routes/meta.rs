//! What NVIDIA NIM tells about a model: metadata, versions, the licence. And what this server tells about its routes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::{json as answer, json_answer};
use crate::app::App;
use crate::observe::Work;
use crate::problem::Problem;

/// `GET /v1/metadata`.
pub(super) async fn metadata(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let model = app.model()?;
    let manifest = model.embedder.manifest();
    Ok(answer(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "modelInfo": [{"shortName": model.name(), "modelUrl": manifest.source()}],
        "assetInfo": [manifest.source()],
        "licenseInfo": {"name": manifest.license()},
        "repository_override": "",
    })))
}

/// `GET /v1/version`.
pub(super) async fn version(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let manifest = app.model()?.embedder.manifest();
    Ok(answer(&json!({"release": env!("CARGO_PKG_VERSION"), "api": "1.0", "exporter": manifest.exporter_version()})))
}

/// `GET /v1/license`: that of the weights, not of this program.
pub(super) async fn license(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let manifest = app.model()?.embedder.manifest();
    let content = format!(
        "The weights of {} ({}) are licensed as {}; this server is licensed as Apache-2.0 OR MIT.",
        manifest.name(),
        manifest.source(),
        manifest.license()
    );
    Ok(answer(&json!({"name": manifest.license(), "content": content})))
}

/// `GET /v1/manifest`: what the model folder says of itself, without its paths.
pub(super) async fn manifest(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let manifest = app.model()?.embedder.manifest();
    Ok(answer(&json!({
        "name": manifest.name(),
        "source": manifest.source(),
        "license": manifest.license(),
        "precision": manifest.precision().to_string(),
        "target": manifest.target().to_string(),
        "pooler": manifest.pooler(),
        "dimensions": manifest.dim(),
        "max_length": manifest.max_length(),
        "opset": manifest.opset(),
        "exporter_version": manifest.exporter_version(),
        "digest": manifest.digest(),
    })))
}

/// `GET /openapi.json`: a file, which the tests compare with the routes and their fields.
pub(super) async fn openapi() -> Response {
    json_answer(include_bytes!("../openapi.json").to_vec(), Work::default())
}
