//! What a caller can choose: [`ModelOptions`] when a model opens, [`EmbedOptions`] for each call.

mod cancel;
mod embed;
mod model;

pub use cancel::CancelToken;
pub use embed::{EmbedOptions, SpecialTokens, Truncation};
pub use model::ModelOptions;

pub(crate) use cancel::{Stop, Watch, cancelled, deadline_passed};
