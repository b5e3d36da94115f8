//! The server as its clients see it: over real sockets, with the mini model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod client;
#[path = "../../../../tests/common/mod.rs"]
mod common;
mod life;
mod limits;
mod openai;
mod openapi;
mod queue;
mod tei;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use client::Client;
use nvembed::Embedder;
use nvembed_server::{Control, Error, Server, ServerOptions};

/// A server of this test's own, with the mini model.
struct Running {
    client: Client,
    admin: Option<Client>,
    control: Control,
    thread: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let running = Self::start_with(change, || Ok(common::open("fp32")));
        running.client.wait_until_ready();
        running
    }

    fn start_with(
        change: impl FnOnce(&mut ServerOptions),
        open: impl FnOnce() -> nvembed::Result<Embedder> + Send + 'static,
    ) -> Self {
        let mut options = ServerOptions::default();
        options.listen = vec!["127.0.0.1:0".parse().unwrap()];
        options.drain_delay = Duration::ZERO;
        // Enough for requests that keep a server busy.
        options.queue.max_tokens = 1 << 22;
        change(&mut options);
        let server = Server::bind(options).unwrap();
        let mut clients = server.addresses().iter().map(|address| Client::new(&address.to_string()));
        let (client, admin, control) = (clients.next().unwrap(), clients.next(), server.control());
        let thread = std::thread::spawn(move || server.run(open));
        Self { client, admin, control, thread }
    }

    /// Ends the server and returns what it returned.
    fn end(self) -> Result<(), Error> {
        self.control.drain();
        self.thread.join().unwrap()
    }
}

/// The server that most tests share, with default options.
fn shared() -> &'static Client {
    static SHARED: OnceLock<Running> = OnceLock::new();
    &SHARED.get_or_init(|| Running::start(|_| {})).client
}

/// A server with one client at a time: what runs together differs in the last bits.
fn alone() -> MutexGuard<'static, Client> {
    static ALONE: OnceLock<Mutex<Client>> = OnceLock::new();
    let client = ALONE.get_or_init(|| {
        let Running { client, .. } = Running::start(|_| {});
        Mutex::new(client)
    });
    client.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The library's embeddings, which the server's must be, bit by bit.
fn embed(prompts: &[nvembed::Prompt<'_>]) -> Vec<Vec<f32>> {
    static EMBEDDER: OnceLock<Embedder> = OnceLock::new();
    let embedder = EMBEDDER.get_or_init(|| common::open("fp32"));
    let rows = embedder.embed(prompts, &nvembed::EmbedOptions::default()).unwrap().to_f32();
    rows.rows().into_iter().map(|row| row.to_vec()).collect()
}
