//! What a queue is opened with, and what a request says of itself.

use std::time::Duration;

use crate::error::{Result, in_range};
use crate::options::EmbedOptions;

/// The most tokens that may wait, by choice: 2²⁸, a gigabyte of ids.
const MOST_TOKENS: usize = 1 << 28;

/// Options of a [`Queue`](super::Queue), fixed while it is open.
///
/// New options may be added: start from the defaults.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QueueOptions {
    /// The most tokens that wait or run. A request beyond it is refused with [`ErrorKind::Overloaded`](crate::ErrorKind); a
    /// tenth is kept for interactive requests. Default: 524,288.
    pub max_tokens: usize,
    /// How much slower bulk requests go while interactive ones wait: with 10, the default, they get a tenth of the time. When
    /// nothing interactive waits, they get all of it.
    pub bulk_weight: usize,
    /// How long a run may take while interactive requests are seen, as predicted from earlier runs; one row always runs.
    /// `None`: 250 ms on the CPU, 25 ms on a GPU.
    pub max_run: Option<Duration>,
    /// The most padded tokens per run, as [`EmbedOptions::max_batch_tokens`].
    pub max_batch_tokens: Option<usize>,
    /// The most rows per run, as [`EmbedOptions::max_batch_size`].
    pub max_batch_size: usize,
    /// Which rows run first.
    pub order: Order,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            max_tokens: 1 << 19,
            bulk_weight: 10,
            max_run: None,
            max_batch_tokens: None,
            max_batch_size: EmbedOptions::default().max_batch_size,
            order: Order::Fair,
        }
    }
}

impl QueueOptions {
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) naming the value and its limits.
    pub(super) fn check(&self) -> Result<()> {
        in_range("`max_tokens`", self.max_tokens, 16, MOST_TOKENS)?;
        in_range("`bulk_weight`", self.bulk_weight, 1, 1000)
    }

    /// The limits of a run, as options of a call.
    pub(super) fn limits(&self) -> EmbedOptions {
        let mut options = EmbedOptions::default();
        (options.max_batch_tokens, options.max_batch_size) = (self.max_batch_tokens, self.max_batch_size);
        options
    }
}

/// Which rows run first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Order {
    /// Interactive requests before bulk ones, which still get their share; the rows of one request between those of others.
    #[default]
    Fair,
    /// First come, first served, whatever the class, and without [`QueueOptions::max_run`]. All that waits counts as interactive
    /// in [`QueueStats`](super::QueueStats).
    Arrival,
}

/// How a request is treated while others wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Somebody waits for the answer: it runs as soon as possible.
    Interactive,
    /// Throughput counts: it yields to interactive requests, and always gets its share.
    Bulk,
}

/// What a request asks for.
///
/// New options may be added: start from the defaults.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SubmitOptions {
    /// How the prompts become rows. `cancel` ends the request wherever it is, and so does `deadline` in
    /// [`Ticket::wait`](super::Ticket::wait). Past the deadline no row begins to run; but a ticket that is awaited, or calls back,
    /// ends with a run that is under way: give your runtime's timeout the same deadline. `max_batch_tokens`, `max_batch_size`
    /// and `window` belong to the queue, and must have their defaults here.
    pub embed: EmbedOptions,
    /// `None`: bulk if the prompts do not fit one run, otherwise interactive.
    pub class: Option<Class>,
}
