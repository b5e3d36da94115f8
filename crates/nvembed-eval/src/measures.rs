//! Measures of one query's ranking, computed as trec_eval computes them, in the same order of operations.

use std::collections::HashMap;

/// The measures of one query.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Measures {
    /// trec_eval's `ndcg_cut_10`: linear gains, discount log2(rank + 1).
    pub ndcg_10: f64,
    /// `recall_10`.
    pub recall_10: f64,
    /// `recall_100`.
    pub recall_100: f64,
    /// `recip_rank` of the first ten.
    pub mrr_10: f64,
    /// `map`, over the depth of the ranking.
    pub map: f64,
}

impl Measures {
    /// The names of the measures, in the order of [`Measures::values`].
    pub const NAMES: [&'static str; 5] = ["ndcg@10", "recall@10", "recall@100", "mrr@10", "map"];

    /// All of them.
    pub fn values(&self) -> [f64; 5] {
        [self.ndcg_10, self.recall_10, self.recall_100, self.mrr_10, self.map]
    }
}

/// Measures a ranking, best first, against the judgements of its query. A passage without a judgement is not relevant.
pub fn measure<'r>(ranking: impl IntoIterator<Item = &'r str>, judged: &HashMap<String, i64>) -> Measures {
    let mut ideal: Vec<_> = judged.values().copied().filter(|relevance| *relevance > 0).collect();
    ideal.sort_unstable_by(|one, other| other.cmp(one));
    let relevant = ideal.len() as f64;
    if ideal.is_empty() {
        return Measures::default();
    }
    let discounted = |(index, gain): (usize, &i64)| *gain as f64 / ((index + 2) as f64).log2();
    let ideal_gain: f64 = ideal.iter().take(10).enumerate().map(discounted).sum();
    let (mut measures, mut gain, mut found, mut precisions) = (Measures::default(), 0.0, 0_u32, 0.0);
    for (index, document) in ranking.into_iter().enumerate() {
        let relevance = judged.get(document).copied().unwrap_or(0);
        if relevance > 0 {
            found += 1;
            precisions += f64::from(found) / (index + 1) as f64;
            if index < 10 {
                gain += discounted((index, &relevance));
            }
            if found == 1 && index < 10 {
                measures.mrr_10 = 1.0 / (index + 1) as f64;
            }
        }
        if index < 10 {
            measures.recall_10 = f64::from(found) / relevant;
        }
        if index < 100 {
            measures.recall_100 = f64::from(found) / relevant;
        }
    }
    measures.ndcg_10 = gain / ideal_gain;
    measures.map = precisions / relevant;
    measures
}
