//! The routes of OpenAI's clients, with the fields of NVIDIA NIM and our own.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use nvembed::Truncation;
use serde_json::{Value, json};

use super::{account, class, counted, created, json as answer, json_answer};
use crate::answer::{self as write, Encoding, Type};
use crate::app::{App, Model};
use crate::fields::Fields;
use crate::problem::Problem;
use crate::prompts::Said;
use crate::{body, deadline};

/// `POST /v1/embeddings`.
pub(super) async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let start = Instant::now();
    let model = app.model()?;
    let (headers, mut fields) = body::fields(&app, request).await?;
    let name = fields.string("model")?;
    let texts = fields.texts("input", app.options.max_texts)?;
    let encoding = fields.choice("encoding_format", &[("float", Encoding::Numbers), ("base64", Encoding::Base64)])?;
    let dimensions = fields.integer("dimensions")?;
    let mut said = Said { prompt_name: fields.string("prompt_name")?, ..Said::read(&mut fields)? };
    let truncation = truncation(&app, &mut fields)?;
    let cut_at = fields.integer("truncate_prompt_tokens")?;
    let kind = fields.choice("embedding_type", &Type::NAMES)?.unwrap_or_default();
    only_true(&mut fields, "normalize")?;
    only_true(&mut fields, "add_special_tokens")?;
    // Who the end user is, is none of our business.
    let _ = fields.take("user");
    let class = class(&headers, &mut fields)?;
    fields.finish(app.options.ignore_unknown_fields)?;
    said.suffix = model.suffix_of(name.as_deref())?;
    let mut options = app.options.embed.clone();
    (options.truncation, options.dtype) = (truncation, kind.dtype());
    options.dimensions = super::dimensions(model, "dimensions", dimensions)?;
    if let Some(tokens) = cut_at {
        (options.max_length, options.truncation) = (Some(cut(&app, model, tokens)?), app.options.embed.truncation);
    }
    options.deadline = start.checked_add(deadline::of(&headers, app.options.max_deadline));
    let characters = texts.iter().map(|text| text.chars().count()).sum();
    let prompts = counted(&app, said.prompts(texts, &app.options)?);
    let embeddings = app.embed(model, prompts, class, options).await?;
    let work = account(&app, &embeddings, characters);
    let name = name.as_deref().unwrap_or(model.name());
    let body = write::openai(&embeddings, name, kind, encoding.unwrap_or_default());
    Ok(json_answer(body, work))
}

/// What happens to a text that is too long: an error, unless the request says otherwise.
pub(super) fn truncation(app: &App, fields: &mut Fields) -> Result<Truncation, Problem> {
    let choices = [("NONE", Truncation::Error), ("END", app.options.embed.truncation), ("START", Truncation::Start)];
    Ok(fields.choice("truncate", &choices)?.unwrap_or(Truncation::Error))
}

/// What other servers let a client turn off, and the graph does not.
pub(super) fn only_true(fields: &mut Fields, name: &'static str) -> Result<(), Problem> {
    if fields.boolean(name)? != Some(false) {
        return Ok(());
    }
    let why = match name {
        "normalize" => "the model's output has unit length",
        _ => "the model was trained with them",
    };
    Err(Problem::invalid(name, format!("`{name}` must be true: {why}")))
}

/// The limit that vLLM's clients ask for, in token ids; -1 is the model's own.
fn cut(app: &App, model: &Model, tokens: i64) -> Result<usize, Problem> {
    let most = app.options.embed.max_length.unwrap_or(model.embedder.manifest().max_length());
    match usize::try_from(tokens) {
        Ok(tokens) if (1..=most).contains(&tokens) => Ok(tokens),
        Err(_) if tokens == -1 => Ok(most),
        _ => {
            let message = format!("`truncate_prompt_tokens` must be -1 or 1 to {most}, got {tokens}");
            Err(Problem::invalid("truncate_prompt_tokens", message))
        }
    }
}

/// `GET /v1/models`.
pub(super) async fn models(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    Ok(answer(&json!({"object": "list", "data": [describe(&app, app.model()?)]})))
}

/// `GET /v1/models/{model}`.
pub(super) async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let model = app.model()?;
    let _ = model.suffix_of(Some(&name))?;
    Ok(answer(&describe(&app, model)))
}

fn describe(app: &App, model: &Model) -> Value {
    let manifest = model.embedder.manifest();
    json!({
        "id": model.name(),
        "object": "model",
        "created": created(model, app),
        "owned_by": "nvembed",
        "root": manifest.source(),
        "max_model_len": app.options.embed.max_length.unwrap_or(manifest.max_length()),
        "dimensions": manifest.dim(),
        "license": manifest.license(),
        "precision": manifest.precision().to_string(),
        "digest": manifest.digest(),
    })
}
