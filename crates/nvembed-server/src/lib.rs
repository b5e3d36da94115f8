//! An HTTP server for one NV-Embed model.
//!
//! It speaks the protocols of OpenAI's, NVIDIA NIM's and text-embeddings-inference's clients. [`Server::bind`] binds its
//! addresses, [`Server::run`] opens the model, serves, and returns once a
//! [`Control`] told it to drain and the last request is answered.
//!
//! ```no_run
//! use nvembed::{Embedder, ModelOptions};
//! use nvembed_server::{Server, ServerOptions};
//!
//! # fn main() -> Result<(), nvembed_server::Error> {
//! let server = Server::bind(ServerOptions::default())?;
//! let control = server.control(); // control.drain() from a signal's thread
//! server.run(|| Embedder::open("build/models/nv-embed-mini-fp32", &ModelOptions::default()))
//! # }
//! ```
//!
//! Texts and token ids never appear in logs, metrics or error messages.

mod answer;
mod app;
mod body;
mod deadline;
mod fields;
mod keys;
mod listen;
mod metrics;
mod notify;
mod observe;
mod options;
mod problem;
mod prompts;
mod routes;
mod server;

pub use listen::Address;
pub use options::ServerOptions;
pub use prompts::InputType;
pub use server::{Control, Server};

/// What keeps a server from starting, or ends it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is out of range. Options stand in backticks.
    #[error("{0}")]
    Option(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: Address,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file of keys cannot be used.
    #[error("the keys cannot be used: {0}")]
    Keys(String),
    /// The model cannot be opened, or its embeddings are wrong.
    #[error(transparent)]
    Model(#[from] nvembed::Error),
    /// The system gives no threads or no timers.
    #[error("the server cannot start: {0}")]
    System(std::io::Error),
}
