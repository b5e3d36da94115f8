//! Exact search of all queries over a stream of passages, in every form of the embeddings at once. Only the best passages of
//! each query are kept, so memory does not grow with the corpus.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, Axis, s};
use nvembed::{Dtype, Rows};

/// How the embeddings of queries and passages are kept and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Form {
    /// The element type.
    pub dtype: Dtype,
    /// How many numbers are kept, from the first on.
    pub dimensions: usize,
    /// How the best passages are ranked again; `None`: not at all.
    pub rescore: Option<Rescore>,
}

/// A second ranking of the best passages of a first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rescore {
    /// How many of the first ranking are ranked again; those are all that is found.
    pub candidates: usize,
    /// The element type of the second one.
    pub dtype: Dtype,
}

impl Form {
    /// Embeddings of an element type and a width.
    pub fn new(dtype: Dtype, dimensions: usize) -> Self {
        Self { dtype, dimensions, rescore: None }
    }

    /// The same, with the best `candidates` ranked again by embeddings of another element type.
    pub fn rescored(self, candidates: usize, dtype: Dtype) -> Self {
        Self { rescore: Some(Rescore { candidates, dtype }), ..self }
    }

    /// Bytes of a passage's embedding; with rescoring, of both.
    pub fn bytes(&self) -> usize {
        let bytes = |dtype: Dtype| match dtype {
            Dtype::F16 => 2 * self.dimensions,
            Dtype::Int8 => self.dimensions + 4,
            Dtype::Binary => self.dimensions.div_ceil(8),
            _ => 4 * self.dimensions,
        };
        bytes(self.dtype) + self.rescore.map_or(0, |rescore| bytes(rescore.dtype))
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.dtype, self.dimensions)?;
        match self.rescore {
            Some(Rescore { candidates, dtype }) => write!(f, "-top{candidates}-{dtype}"),
            None => Ok(()),
        }
    }
}

/// A passage that was found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The passage's identifier.
    pub id: Arc<str>,
    /// Cosine similarity; of binary embeddings D minus twice the Hamming distance.
    pub score: f32,
    /// The score of the second ranking.
    second: f32,
}

/// As trec_eval ranks: by score, and by the larger identifier where scores are equal.
fn better(one: (f32, &str), other: (f32, &str)) -> Ordering {
    one.0.total_cmp(&other.0).then_with(|| one.1.cmp(other.1))
}

/// A hit, of which the worst one is on the top of a heap.
struct Worst(Hit);

impl Worst {
    fn key(&self) -> (f32, &str) {
        (self.0.score, &self.0.id)
    }
}

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        better(other.key(), self.key())
    }
}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Worst {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Worst {}

/// A search in several forms.
pub struct Search {
    forms: Vec<OneForm>,
    threads: usize,
}

struct OneForm {
    form: Form,
    depth: usize,
    queries: Vectors,
    /// Those for the second ranking.
    second: Option<Vectors>,
    best: Vec<BinaryHeap<Worst>>,
}

/// Embeddings as they are compared.
enum Vectors {
    /// Of unit length, so that a product is a cosine.
    Float(Array2<f32>),
    /// Bits in words, and D.
    Bits(Array2<u64>, usize),
}

impl Search {
    /// A search for queries' embeddings `[Q, D]` in f32, keeping `depth` passages for each.
    ///
    /// # Errors
    /// [`ErrorKind::Inference`](nvembed::ErrorKind::Inference) for a row that cannot be made shorter.
    pub fn new(queries: &Rows, forms: &[Form], depth: usize) -> nvembed::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let one = |form: &Form| {
            let depth = form.rescore.map_or(depth, |rescore| rescore.candidates);
            let vectors = |dtype| Vectors::of(queries, dtype, form.dimensions);
            let second = form.rescore.map(|rescore| vectors(rescore.dtype)).transpose()?;
            let best = (0..queries.shape().0).map(|_| BinaryHeap::with_capacity(depth + 1)).collect();
            Ok(OneForm { form: *form, depth, queries: vectors(form.dtype)?, second, best })
        };
        Ok(Self { forms: forms.iter().map(one).collect::<nvembed::Result<_>>()?, threads })
    }

    /// Searches more passages: their identifiers, and their embeddings `[N, D]` in f32.
    ///
    /// # Errors
    /// As [`Search::new`].
    ///
    /// # Panics
    /// When there are fewer identifiers than rows.
    pub fn add(&mut self, ids: &[Arc<str>], passages: &Rows) -> nvembed::Result<()> {
        for form in &mut self.forms {
            let vectors = |dtype| Vectors::of(passages, dtype, form.form.dimensions);
            let first = vectors(form.form.dtype)?;
            let second = form.form.rescore.map(|rescore| vectors(rescore.dtype)).transpose()?;
            let pairs = form.second.as_ref().zip(second.as_ref());
            let share = form.best.len().div_ceil(self.threads).max(1);
            std::thread::scope(|scope| {
                for (index, best) in form.best.chunks_mut(share).enumerate() {
                    let (queries, first, depth) = (&form.queries, &first, form.depth);
                    scope.spawn(move || {
                        let start = index * share;
                        let scores = queries.scores(start..start + best.len(), first);
                        for (row, best) in best.iter_mut().enumerate() {
                            keep_best(best, depth, ids, scores.row(row).as_slice().unwrap_or_default(), |passage| {
                                pairs.map_or(0.0, |(queries, passages)| queries.score(start + row, passages, passage))
                            });
                        }
                    });
                }
            });
        }
        Ok(())
    }

    /// For each form, for each query, the best passages, best first.
    pub fn finish(self) -> Vec<(Form, Vec<Vec<Hit>>)> {
        let ranked = |form: OneForm| {
            let rankings = form.best.into_iter().map(|best| {
                let mut hits: Vec<_> = best.into_iter().map(|Worst(hit)| hit).collect();
                if form.form.rescore.is_some() {
                    hits.iter_mut().for_each(|hit| hit.score = hit.second);
                }
                hits.sort_unstable_by(|one, other| better((other.score, &other.id), (one.score, &one.id)));
                hits
            });
            (form.form, rankings.collect())
        };
        self.forms.into_iter().map(ranked).collect()
    }
}

fn keep_best(
    best: &mut BinaryHeap<Worst>,
    depth: usize,
    ids: &[Arc<str>],
    scores: &[f32],
    second: impl Fn(usize) -> f32,
) {
    for (passage, score) in scores.iter().enumerate() {
        if best.len() == depth {
            let Some(worst) = best.peek() else { return };
            // Without a look at the identifier for nearly all of them.
            if *score < worst.0.score || better((*score, &ids[passage]), worst.key()) != Ordering::Greater {
                continue;
            }
        }
        best.push(Worst(Hit { id: ids[passage].clone(), score: *score, second: second(passage) }));
        if best.len() > depth {
            best.pop();
        }
    }
}

impl Vectors {
    fn of(rows: &Rows, dtype: Dtype, dimensions: usize) -> nvembed::Result<Self> {
        let rows = rows.converted(dtype, dimensions)?;
        if let Rows::Binary { bytes, dim, .. } = &rows {
            let mut words = Array2::zeros((bytes.dim().0, bytes.dim().1.div_ceil(8)));
            for ((row, byte), value) in bytes.indexed_iter() {
                words[(row, byte / 8)] |= u64::from(*value) << (8 * (byte % 8));
            }
            return Ok(Self::Bits(words, *dim));
        }
        let mut rows = rows.to_f32();
        if dtype == Dtype::Int8 {
            for mut row in rows.axis_iter_mut(Axis(0)) {
                let length = row.dot(&row).sqrt();
                row /= if length > 0.0 { length } else { 1.0 };
            }
        }
        Ok(Self::Float(rows))
    }

    /// The scores of some of these with all of others, of the same kind.
    fn scores(&self, range: std::ops::Range<usize>, others: &Self) -> Array2<f32> {
        match (self, others) {
            (Self::Float(queries), Self::Float(passages)) => {
                queries.slice(s![range, ..]).dot(&passages.t()).as_standard_layout().into_owned()
            }
            (Self::Bits(queries, dim), Self::Bits(passages, _)) => {
                hamming(queries.slice(s![range, ..]), passages.view(), *dim)
            }
            // Both are made by the same form.
            _ => Array2::zeros((range.len(), 0)),
        }
    }

    fn score(&self, query: usize, others: &Self, passage: usize) -> f32 {
        match (self, others) {
            (Self::Float(queries), Self::Float(passages)) => queries.row(query).dot(&passages.row(passage)),
            _ => self.scores(query..query + 1, others)[(0, passage)],
        }
    }
}

/// D minus twice the Hamming distance, which is the product of ±1.
fn hamming(queries: ArrayView2<'_, u64>, passages: ArrayView2<'_, u64>, dim: usize) -> Array2<f32> {
    let mut scores = Array2::zeros((queries.nrows(), passages.nrows()));
    for (mut scores, query) in scores.axis_iter_mut(Axis(0)).zip(queries.rows()) {
        for (score, passage) in scores.iter_mut().zip(passages.rows()) {
            let words = query.iter().zip(passage);
            let distance: u32 = words.map(|(one, other)| (one ^ other).count_ones()).sum();
            *score = dim as f32 - 2.0 * distance as f32;
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of numbers that look random.
    fn rows(count: usize, dim: usize, seed: u32) -> Array2<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut rows = Array2::from_shape_fn((count, dim), |_| next());
        for mut row in rows.axis_iter_mut(Axis(0)) {
            let length = row.dot(&row).sqrt();
            row /= length;
        }
        rows
    }

    #[test]
    fn the_best_passages_are_those_of_a_sort_of_all() {
        let (queries, passages) = (rows(5, 70, 1), rows(300, 70, 2));
        let ids: Vec<Arc<str>> = (0..300).map(|index| format!("p{index}").into()).collect();
        let forms = [
            Form::new(Dtype::F32, 70),
            Form::new(Dtype::F16, 33),
            Form::new(Dtype::Int8, 70),
            Form::new(Dtype::Binary, 70),
            Form::new(Dtype::Binary, 70).rescored(40, Dtype::F32),
        ];
        let mut search = Search::new(&Rows::F32(queries.clone()), &forms, 20).unwrap();
        for start in (0..300).step_by(70) {
            let end = 300.min(start + 70);
            search.add(&ids[start..end], &Rows::F32(passages.slice(s![start..end, ..]).to_owned())).unwrap();
        }
        for (form, rankings) in search.finish() {
            let wide = |rows: &Array2<f32>, dtype| {
                let mut rows = Rows::F32(rows.clone()).converted(dtype, form.dimensions).unwrap().to_f32();
                for mut row in rows.axis_iter_mut(Axis(0)) {
                    let length = row.dot(&row).sqrt();
                    row /= length;
                }
                rows
            };
            let all = |dtype| wide(&queries, dtype).dot(&wide(&passages, dtype).t());
            let first = all(form.dtype);
            for (query, found) in rankings.iter().enumerate() {
                // Equal cosines of bits may differ in their last bit here, so they are compared as whole numbers.
                let key = |passage: usize| match form.dtype {
                    Dtype::Binary => (first[(query, passage)] * 70.0).round(),
                    _ => first[(query, passage)],
                };
                let mut order: Vec<_> = (0..300).collect();
                order.sort_by(|one, other| better((key(*other), &ids[*other]), (key(*one), &ids[*one])));
                if let Some(Rescore { candidates, dtype, .. }) = form.rescore {
                    let second = all(dtype);
                    order.truncate(candidates);
                    order.sort_by(|one, other| second[(query, *other)].total_cmp(&second[(query, *one)]));
                } else {
                    order.truncate(20);
                }
                let found: Vec<_> = found.iter().map(|hit| &*hit.id).collect();
                let wanted: Vec<_> = order.iter().map(|passage| &*ids[*passage]).collect();
                assert_eq!(found, wanted, "{form}");
            }
        }
    }

    #[test]
    fn a_form_says_what_it_is_and_takes() {
        let form = Form::new(Dtype::Binary, 4096).rescored(40, Dtype::Int8);
        assert_eq!((form.to_string().as_str(), form.bytes()), ("binary-4096-top40-int8", 512 + 4100));
    }
}
