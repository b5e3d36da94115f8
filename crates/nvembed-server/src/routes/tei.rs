//! The routes of text-embeddings-inference's clients.
//!
//! One thing differs on purpose: a text that is too long is an error unless the request, or the operator, wants it cut.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use nvembed::{EmbedOptions, Truncation};
use serde_json::json;

use super::openai::only_true;
use super::{account, class, counted, json as answer, json_answer};
use crate::app::App;
use crate::fields::Fields;
use crate::problem::{Problem, What};
use crate::prompts::Said;
use crate::{answer as write, body, deadline};

/// `POST /embed` and `POST /`.
pub(super) async fn embed(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let start = Instant::now();
    let model = app.model()?;
    let (headers, mut fields) = body::fields(&app, request).await?;
    let texts = fields.texts("inputs", app.options.max_texts)?;
    let said = Said { prompt_name: fields.string("prompt_name")?, ..Said::read(&mut fields)? };
    let mut options = options(&app, &mut fields, &headers, start)?;
    only_true(&mut fields, "normalize")?;
    options.dimensions = super::dimensions(model, "dimensions", fields.integer("dimensions")?)?;
    let class = class(&headers, &mut fields)?;
    fields.finish(app.options.ignore_unknown_fields)?;
    let characters = texts.iter().map(|text| text.chars().count()).sum();
    let prompts = counted(&app, said.prompts(texts, &app.options)?);
    let embeddings = app.embed(model, prompts, class, options).await?;
    let work = account(&app, &embeddings, characters);
    Ok(json_answer(write::tei(&embeddings), work))
}

/// `POST /similarity`: of a query to each passage.
pub(super) async fn similarity(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let start = Instant::now();
    let model = app.model()?;
    let (headers, mut fields) = body::fields(&app, request).await?;
    let Some(mut inputs) = fields.object("inputs")? else {
        return Err(Problem::invalid("inputs", "`inputs` is missing: {\"source_sentence\", \"sentences\"}"));
    };
    let mut parameters = fields.object("parameters")?;
    let class = class(&headers, &mut fields)?;
    fields.finish(app.options.ignore_unknown_fields)?;
    let source = inputs.string("source_sentence")?.filter(|text| !text.is_empty());
    let source = source.ok_or_else(|| Problem::invalid("source_sentence", "`source_sentence` is missing or empty"))?;
    let sentences = inputs.texts("sentences", app.options.max_texts.saturating_sub(1))?;
    inputs.finish(app.options.ignore_unknown_fields)?;
    let mut none = Fields::parse(b"{}")?;
    let given = parameters.as_mut().unwrap_or(&mut none);
    let options = options(&app, given, &headers, start)?;
    let prompt_name = given.string("prompt_name")?;
    if let Some(parameters) = parameters {
        parameters.finish(app.options.ignore_unknown_fields)?;
    }
    let characters = sentences.iter().chain([&source]).map(|text| text.chars().count()).sum();
    let name = prompt_name.or_else(|| Some("query".to_owned()));
    let query = Said { prompt_name: name, ..Said::default() }.prompts(vec![source], &app.options)?;
    let passage = Said { prompt_name: Some("passage".to_owned()), ..Said::default() };
    let mut prompts = counted(&app, query);
    prompts.extend(counted(&app, passage.prompts(sentences, &app.options)?));
    let embeddings = app.embed(model, prompts, class, options).await?;
    let rows = embeddings.to_f32();
    let query = rows.row(0);
    let similarities: Vec<f32> = rows.rows().into_iter().skip(1).map(|row| row.dot(&query)).collect();
    let mut body = Vec::new();
    write::push(&mut body, &similarities);
    Ok(json_answer(body, account(&app, &embeddings, characters)))
}

/// `POST /tokenize`: the token ids that the same fields in `/embed` would run, instruction and special tokens among them.
pub(super) async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let start = Instant::now();
    let model = app.model()?;
    let (headers, mut fields) = body::fields(&app, request).await?;
    let texts = fields.texts("inputs", app.options.max_texts)?;
    let said = Said { prompt_name: fields.string("prompt_name")?, ..Said::read(&mut fields)? };
    let options = options(&app, &mut fields, &headers, start)?;
    only_true(&mut fields, "add_special_tokens")?;
    fields.finish(app.options.ignore_unknown_fields)?;
    let prompts = counted(&app, said.prompts(texts, &app.options)?);
    let embedder = Arc::clone(&model.embedder);
    let work = move || -> nvembed::Result<Vec<Vec<serde_json::Value>>> {
        let describe = |id: &u32| {
            let text = embedder.piece(*id);
            let special = matches!(text.as_deref(), Some("<s>" | "</s>" | "<unk>"));
            json!({"id": id, "text": text, "special": special, "start": null, "stop": null})
        };
        let tokens = embedder.tokenize(&prompts, &options)?;
        Ok(tokens.iter().map(|tokens| tokens.ids.iter().map(describe).collect()).collect())
    };
    let tokens = tokio::task::spawn_blocking(work).await;
    Ok(answer(&json!(tokens.map_err(|_| Problem::new(What::Internal, "the request was lost"))??)))
}

/// Truncation and deadline of a request.
fn options(app: &App, fields: &mut Fields, headers: &HeaderMap, start: Instant) -> Result<EmbedOptions, Problem> {
    let mut options = app.options.embed.clone();
    let directions = [("Right", options.truncation), ("Left", Truncation::Start)];
    let direction = fields.choice("truncation_direction", &directions)?;
    options.truncation = match fields.boolean("truncate")? {
        Some(false) => Truncation::Error,
        None if !app.options.auto_truncate => Truncation::Error,
        _ => direction.unwrap_or(options.truncation),
    };
    options.deadline = start.checked_add(deadline::of(headers, app.options.max_deadline));
    Ok(options)
}

/// `GET /info`.
pub(super) async fn info(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let model = app.model()?;
    let manifest = model.embedder.manifest();
    let options = &app.options;
    Ok(answer(&json!({
        "model_id": manifest.source(),
        "model_sha": manifest.digest(),
        "model_dtype": manifest.precision().to_string(),
        "served_model_name": model.name(),
        "model_type": {"embedding": {"pooling": "latent_attention"}},
        "max_concurrent_requests": options.max_connections,
        "max_input_length": options.embed.max_length.unwrap_or(manifest.max_length()),
        "max_batch_tokens": options.queue.max_batch_tokens,
        "max_batch_requests": options.queue.max_batch_size,
        "max_client_batch_size": options.max_texts,
        "auto_truncate": options.auto_truncate,
        "tokenization_workers": nvembed::machine::cores(),
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    })))
}
