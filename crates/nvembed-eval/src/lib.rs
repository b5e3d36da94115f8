//! How well embeddings retrieve, and what smaller ones cost: exact search over a stream of passages, measures as trec_eval
//! computes them, and bootstrap intervals.

mod data;
mod interval;
mod measures;
mod search;

pub use data::{Document, Error, Qrels, documents};
pub use interval::{Interval, mean_interval, ratio_interval};
pub use measures::{Measures, measure};
pub use search::{Form, Hit, Rescore, Search};
