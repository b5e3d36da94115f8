//! What is measured: prompts of a shape, or those of a file; how many operations they take.

use nvembed::{Architecture, Embedder, EncodeOptions, Prompt, Truncation};

use crate::cli::exit::CliError;

/// A set of prompts that is embedded by one call, over and over.
pub(crate) struct Workload {
    /// "8x128", or "texts".
    pub(crate) name: String,
    pub(crate) prompts: Vec<Prompt<'static>>,
    pub(crate) options: EncodeOptions,
}

impl Workload {
    /// `batch` passages that are exactly `length` token ids long each, all different, run as one batch.
    pub(crate) fn shape(batch: usize, length: usize) -> Self {
        // More words than ids are needed; the rest is cut off.
        let text = |row: usize| format!("passage {row} {}", "about rivers and the towns beside them ".repeat(length));
        let options = EncodeOptions {
            max_length: Some(length),
            truncation: Truncation::Reference,
            max_batch_tokens: Some(batch * length),
            max_batch_size: batch,
            ..EncodeOptions::default()
        };
        let prompts = (0..batch).map(|row| Prompt::passage(text(row))).collect();
        Self { name: format!("{batch}x{length}"), prompts, options }
    }

    /// The prompts of a file, batched as usual.
    pub(crate) fn texts(prompts: Vec<Prompt<'static>>) -> Self {
        Self { name: "texts".to_owned(), prompts, options: EncodeOptions::default() }
    }

    /// The token ids of each prompt.
    ///
    /// # Errors
    /// As [`Embedder::tokenize`]; [`CliError::Usage`] for a length that the model's tokenizer cannot fill.
    pub(crate) fn lengths(&self, embedder: &Embedder) -> anyhow::Result<Vec<usize>> {
        let encodings = embedder.tokenize(&self.prompts, &self.options)?;
        let lengths: Vec<usize> = encodings.into_iter().map(|(ids, _)| ids.len()).collect();
        if let (Some(wanted), Some(found)) = (self.options.max_length, lengths.iter().min())
            && *found != wanted
        {
            return Err(CliError::Usage(format!("no text of {wanted} tokens can be made, only {found}")).into());
        }
        Ok(lengths)
    }
}

/// Floating-point operations that rows of these many tokens take, padding left out; a multiplication and an addition are
/// two. The products of the layers, of attention and of the pooler; norms and the like are a thousandth of it.
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
    use nvembed::Manifest;

    use super::*;

    #[test]
    fn operations_of_one_token_are_twice_the_weights_it_meets() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/build/models/nv-embed-mini-fp32");
        let manifest = Manifest::open(folder).unwrap();
        // nv-embed-mini: width 256, 4 layers, 8 heads of 32 on 2, inner width 512, 64 latents, 4 cross heads.
        let layer = 256 * 256 * 2 + 2 * 256 * 64 + 3 * 256 * 512;
        let attention = 2 * 8 * 32;
        let pooler = 2 * 256 * 4 * 64 + 256 * 2048;
        let per_row = 1024 * 256;
        let wanted = 2 * (4 * (layer + attention) + pooler + per_row);
        assert_eq!(operations(manifest.architecture(), "fused", &[1]), f64::from(wanted));
        let (one, two) =
            (operations(manifest.architecture(), "fused", &[9]), operations(manifest.architecture(), "fused", &[9, 9]));
        assert_eq!(2.0 * one, two);
    }
}
