//! The route of Cohere's clients, `POST /v2/embed`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::Response;
use nvembed::{Embeddings, Rows};
use serde_json::Value;

use super::openai::truncation;
use super::{account, class, counted, dimensions, json_answer};
use crate::answer::{self as write, Encoding, Type};
use crate::app::App;
use crate::problem::Problem;
use crate::prompts::Said;
use crate::{body, deadline};

/// The types that a request can ask for, several at a time.
const TYPES: [(&str, Type, Encoding); 6] = [
    ("float", Type::Float, Encoding::Numbers),
    ("int8", Type::Int8, Encoding::Numbers),
    ("uint8", Type::Uint8, Encoding::Numbers),
    ("binary", Type::Binary, Encoding::Numbers),
    ("ubinary", Type::Ubinary, Encoding::Numbers),
    ("base64", Type::Float, Encoding::Base64),
];

/// `POST /v2/embed`.
pub(super) async fn embed(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let start = Instant::now();
    let model = app.model()?;
    let (headers, mut fields) = body::fields(&app, request).await?;
    let name = fields.string("model")?;
    let texts = fields.texts("texts", app.options.max_texts)?;
    let mut said = Said::read(&mut fields)?;
    let types = types(fields.take("embedding_types"))?;
    let mut options = app.options.embed.clone();
    options.truncation = truncation(&app, &mut fields)?;
    options.dimensions = dimensions(model, "output_dimension", fields.integer("output_dimension")?)?;
    let class = class(&headers, &mut fields)?;
    fields.finish(app.options.ignore_unknown_fields)?;
    said.suffix = model.suffix_of(name.as_deref())?;
    options.deadline = start.checked_add(deadline::of(&headers, app.options.max_deadline));
    let characters = texts.iter().map(|text| text.chars().count()).sum();
    let prompts = counted(&app, said.prompts(texts, &app.options)?);
    let embeddings = app.embed(model, prompts, class, options).await?;
    let work = account(&app, &embeddings, characters);
    let id = headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let lists =
        types.iter().map(|(name, kind, encoding)| Ok(((*name).to_owned(), rows(&embeddings, *kind, *encoding)?)));
    let lists = lists.collect::<Result<Vec<_>, Problem>>()?;
    Ok(json_answer(write::cohere(&lists, id, work.tokens), work))
}

/// The rows in one of the types; the library made floats.
fn rows(embeddings: &Embeddings, kind: Type, encoding: Encoding) -> Result<Vec<u8>, Problem> {
    let of = |rows: &Rows| {
        let cells = (0..embeddings.len()).map(|index| kind.cells(rows.row(index)));
        write::lists(cells, encoding)
    };
    match kind {
        Type::Float => Ok(of(embeddings.rows())),
        _ => Ok(of(&embeddings.rows().converted(kind.dtype(), embeddings.dim())?)),
    }
}

fn types(value: Option<Value>) -> Result<Vec<(&'static str, Type, Encoding)>, Problem> {
    let wrong = || {
        let names: Vec<_> = TYPES.iter().map(|(name, ..)| *name).collect();
        Problem::invalid("embedding_types", format!("`embedding_types` must be a list of {}", names.join(", ")))
    };
    let Some(value) = value else { return Ok(vec![TYPES[0]]) };
    let names: Vec<String> = serde_json::from_value(value).map_err(|_| wrong())?;
    let mut types = Vec::new();
    for name in &names {
        let found = TYPES.iter().find(|(known, ..)| known == name).ok_or_else(wrong)?;
        if !types.contains(found) {
            types.push(*found);
        }
    }
    if types.is_empty() { Err(wrong()) } else { Ok(types) }
}
