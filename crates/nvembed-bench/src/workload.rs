//! What is measured: prompts of a shape, or those of a file; and how many operations they take.

use std::fmt;

use nvembed::model::Architecture;
use nvembed::{EmbedOptions, Embedder, Prompt};
use serde::{Deserialize, Serialize};

/// The kind of a workload, as a row of results holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// `batch` rows of exactly `length` tokens, run as one batch.
    Shape {
        /// Rows.
        batch: usize,
        /// Tokens per row.
        length: usize,
    },
    /// The texts of a file.
    Texts,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { batch, length } => write!(f, "{batch}x{length}"),
            Self::Texts => f.write_str("texts"),
        }
    }
}

/// A set of prompts that one call embeds, over and over.
pub struct Workload {
    pub(crate) kind: Kind,
    pub(crate) prompts: Vec<Prompt<'static>>,
    pub(crate) options: EmbedOptions,
}

impl Workload {
    /// `batch` passages of exactly `length` token ids each, all different, run as one batch.
    pub fn shape(batch: usize, length: usize) -> Self {
        // More words than ids are needed; the rest is cut off.
        let text = |row: usize| format!("passage {row} {}", "about rivers and the towns beside them ".repeat(length));
        let mut options = EmbedOptions::default();
        options.max_length = Some(length);
        options.max_batch_tokens = Some(batch.saturating_mul(length));
        options.max_batch_size = batch;
        let prompts = (0..batch).map(|row| Prompt::passage(text(row))).collect();
        Self { kind: Kind::Shape { batch, length }, prompts, options }
    }

    /// Prompts as they are, batched as usual.
    pub fn texts(prompts: Vec<Prompt<'static>>) -> Self {
        Self { kind: Kind::Texts, prompts, options: EmbedOptions::default() }
    }

    /// The kind of this workload.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of token ids of each prompt; or why the workload cannot be run.
    pub(crate) fn lengths(&self, embedder: &Embedder, name: fn(&str) -> String) -> Result<Vec<usize>, String> {
        let tokens = embedder.tokenize(&self.prompts, &self.options).map_err(|error| error.report(name))?;
        let lengths: Vec<usize> = tokens.into_iter().map(|tokens| tokens.ids.len()).collect();
        if let (Some(wanted), Some(found)) = (self.options.max_length, lengths.iter().min())
            && *found != wanted
        {
            return Err(format!("no text of {wanted} tokens can be made, only of {found}"));
        }
        Ok(lengths)
    }
}

/// Floating-point operations that rows of these many tokens take, without padding; a multiplication and an addition are two.
/// The products of the layers, of attention and of the pooler; norms and the like are a thousandth of it.
pub(crate) fn operations(shape: &Architecture, pooler: &str, lengths: &[usize]) -> f64 {
    let [hidden, heads, kv_heads, head, inner, latents, cross_heads, cross] = [
        shape.hidden_size,
        shape.num_attention_heads,
        shape.num_key_value_heads,
        shape.head_dim,
        shape.intermediate_size,
        shape.num_latents_value,
        shape.num_cross_heads,
        shape.cross_dim_head,
    ]
    .map(|size| size as f64);
    let (tokens, rows) = (lengths.iter().sum::<usize>() as f64, lengths.len() as f64);
    let squares: f64 = lengths.iter().map(|length| (*length as f64).powi(2)).sum();
    let layer = 2.0 * hidden * (2.0 * heads * head + 2.0 * kv_heads * head + 3.0 * inner);
    let layers = shape.num_hidden_layers as f64 * (tokens * layer + squares * 4.0 * heads * head);
    let pooler = if pooler == "fused" {
        tokens * 2.0 * hidden * (2.0 * cross_heads * latents + 8.0 * hidden) + rows * 8.0 * hidden * hidden
    } else {
        tokens * (4.0 * hidden * cross_heads * cross + 4.0 * cross_heads * cross * latents + 24.0 * hidden * hidden)
    };
    layers + pooler
}

#[cfg(test)]
mod tests {
    use super::*;

    /// nv-embed-mini's: width 256, 4 layers, 8 heads of 32 on 2, inner width 512, 64 latents, 4 cross heads.
    const MINI: &str = r#"{"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 32, "intermediate_size": 512, "vocab_size": 32000, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "num_latents_value": 64, "num_cross_heads": 4, "cross_dim_head": 256, "output_normalize": true}"#;

    #[test]
    fn operations_of_one_token_are_twice_the_weights_it_meets() {
        let shape: Architecture = serde_json::from_str(MINI).unwrap();
        let layer = 256 * 256 * 2 + 2 * 256 * 64 + 3 * 256 * 512;
        let attention = 2 * 8 * 32;
        let pooler = 2 * 256 * 4 * 64 + 256 * 2048;
        let per_row = 1024 * 256;
        let wanted = 2 * (4 * (layer + attention) + pooler + per_row);
        assert_eq!(operations(&shape, "fused", &[1]), f64::from(wanted));
        assert_eq!(2.0 * operations(&shape, "fused", &[9]), operations(&shape, "fused", &[9, 9]));
    }

    #[test]
    fn a_kind_is_stored_in_fields() {
        let stored = serde_json::to_string(&Kind::Shape { batch: 8, length: 128 }).unwrap();
        assert_eq!(stored, r#"{"kind":"shape","batch":8,"length":128}"#);
        assert_eq!(serde_json::from_str::<Kind>(r#"{"kind":"texts"}"#).unwrap(), Kind::Texts);
        assert_eq!(Kind::Shape { batch: 8, length: 128 }.to_string(), "8x128");
    }
}
