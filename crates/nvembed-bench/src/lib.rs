//! Benchmarks of NV-Embed models across execution providers. An embedding is verified before anything is timed.
//!
//! A [`Sweep`] measures models × providers × workloads and yields a [`Row`] each; [`compare`] takes ratios of two sets of
//! rows; a [`Summary`] puts the rounds of rows together, for a page of plots ([`page`]) or a Markdown table ([`markdown`]).

mod compare;
mod markdown;
mod measure;
mod report;
mod row;
mod summary;
mod sweep;
mod workload;

pub use compare::compare;
pub use markdown::markdown;
pub use report::page;
pub use row::{Facts, Latency, Row, SCHEMA_VERSION, Status, read};
pub use summary::Summary;
pub use sweep::{Limits, Sweep};
pub use workload::{Kind, Workload};

/// What keeps a benchmark from starting or its results from being read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of results cannot be read, or holds something else.
    #[error("{0}")]
    Results(String),
    /// The models and the reference do not go together.
    #[error("{0}")]
    Reference(String),
    /// A model folder cannot be read, or an option is wrong.
    #[error(transparent)]
    Nvembed(#[from] nvembed::Error),
    /// The receiver of rows ended the sweep.
    #[error(transparent)]
    Receiver(Box<dyn std::error::Error + Send + Sync>),
}
