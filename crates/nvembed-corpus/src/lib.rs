//! Corpora of any size: jobs that resume, in Parquet.
//!
//! A [`Job`] reads texts from files, embeds them, and writes Parquet files ("parts") into a folder. A manifest, written first,
//! fixes which rows make which part, with which model and options. So a job that was killed goes on where it was, several
//! processes can share a corpus without talking to each other, and embeddings of two models never end up in one corpus.

mod columns;
mod error;
mod estimate;
mod files;
mod hash;
mod input;
mod job;
mod manifest;
mod options;
mod part;
mod plan;
mod reader;
mod repeats;
mod run;
mod status;

pub use error::{Error, Result};
pub use estimate::Estimate;
pub use job::Job;
pub use manifest::Manifest;
pub use options::{Compression, CorpusOptions, Format, OnError, Shard};
pub use run::{Progress, Watch};
pub use status::{SkippedRow, Status, skipped_rows};
