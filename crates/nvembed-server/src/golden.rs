//! The model's golden texts, run before the server is ready: it never serves wrong embeddings.

use nvembed::model::{Deviation, Golden};
use nvembed::{EmbedOptions, Embedder};

use crate::Error;

/// # Errors
/// When embeddings or token ids differ from the golden ones. A model without a golden file is served, with a warning.
pub(crate) fn verify(embedder: &Embedder) -> Result<(), Error> {
    let manifest = embedder.manifest();
    let Some(golden) = Golden::open(manifest)? else {
        tracing::warn!("the model has no golden file: its embeddings were not checked");
        return Ok(());
    };
    let rows = golden.rows();
    let (prompts, options): (Vec<_>, _) = (rows.iter().map(|row| row.prompt()).collect(), EmbedOptions::default());
    let tokens = embedder.tokenize(&prompts, &options)?;
    let wrong_ids = rows.iter().zip(&tokens).filter(|(row, tokens)| row.input_ids != tokens.ids).count();
    let embeddings = embedder.embed(&prompts, &options)?.to_f32();
    let tolerance = manifest.precision().tolerance();
    let is_wrong = |(index, row): &(usize, &nvembed::model::GoldenRow)| {
        !tolerance.allows(Deviation::between(embeddings.row(*index), &row.embedding))
    };
    let wrong = rows.iter().enumerate().filter(is_wrong).count();
    if wrong + wrong_ids == 0 {
        tracing::info!(rows = rows.len(), "the golden embeddings agree");
        return Ok(());
    }
    Err(Error::Golden(format!(
        "of {} golden texts, {wrong} have other embeddings than the tolerance of {tolerance} allows and {wrong_ids} other token \
         ids; run nvembed verify on {}",
        rows.len(),
        manifest.folder().display()
    )))
}
