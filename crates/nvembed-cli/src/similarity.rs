//! Scores as on the model card: 100 × the dot product of two embeddings.

use ndarray::{Array2, Axis};
use nvembed::{EmbedOptions, Embedder, Prompt};

/// 100 × the dot products of queries and passages, `[queries, passages]`, and how many of the texts were truncated.
pub(crate) fn scores(
    embedder: &Embedder,
    queries: &[Prompt<'_>],
    passages: &[Prompt<'_>],
    options: &EmbedOptions,
) -> nvembed::Result<(Array2<f32>, usize)> {
    let all: Vec<_> = queries.iter().chain(passages).cloned().collect();
    let embeddings = embedder.embed(&all, options)?;
    let truncated = embeddings.truncated().iter().filter(|truncated| **truncated).count();
    let rows = embeddings.to_f32();
    let (queries, passages) = rows.view().split_at(Axis(0), queries.len());
    Ok((queries.dot(&passages.t()) * 100.0, truncated))
}
