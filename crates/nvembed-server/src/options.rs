//! What an operator can set.

use std::path::PathBuf;
use std::time::Duration;

use nvembed::queue::QueueOptions;
use nvembed::{EmbedOptions, Prompt, Truncation};

use crate::listen::Address;
use crate::prompts::InputType;

/// How a server listens, whom it serves and what it refuses.
///
/// New options may be added: start from the defaults.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Where requests arrive. Default: 127.0.0.1:8080, which only this machine reaches.
    pub listen: Vec<Address>,
    /// Another address, for health and metrics only, which never need a key. It has a thread of its own.
    pub admin_listen: Option<Address>,
    /// Names under which clients may ask for the model; the first is the one in answers. Empty: the model's own.
    pub names: Vec<String>,
    /// The task of a query whose request names no task.
    pub query_task: String,
    /// Tasks that requests can name, in `input_type` (`classification`, `clustering`) or `prompt_name`: name and sentence.
    pub tasks: Vec<(String, String)>,
    /// What a text is when its request does not say. `None`: a passage, and the request is counted.
    pub default_input_type: Option<InputType>,
    /// Refuse a request that does not say what its texts are.
    pub require_input_type: bool,
    /// Take an instruction that a client wrote at the start of the text (`Instruct: …\nQuery: `) as an instruction.
    pub instructions_in_text: bool,
    /// Cut long texts on routes of text-embeddings-inference when the request does not say what to do with them.
    pub auto_truncate: bool,
    /// Ignore fields that the server does not know, instead of refusing the request.
    pub ignore_unknown_fields: bool,
    /// Limits of rows. `truncation` is how a text is cut on the right when its request asks for that. Batches are `queue`'s.
    pub embed: EmbedOptions,
    /// The queue in which all requests wait, and the limits of its batches.
    pub queue: QueueOptions,
    /// The most texts of a request. Default: 2,048.
    pub max_texts: usize,
    /// The most bytes of a request's body. Default: 32 MiB.
    pub max_body: usize,
    /// The most connections; more wait in the system's queue. Default: 1,024.
    pub max_connections: usize,
    /// The longest wait for the header of a new connection's first request. Default: 10 s.
    pub header_timeout: Duration,
    /// The longest wait for a body. Default: 30 s.
    pub body_timeout: Duration,
    /// How long a connection may idle between two requests. Default: 75 s, more than the usual 60 s of a load balancer.
    pub idle_timeout: Duration,
    /// The deadline of requests that have none, and the most that one may ask for. Default: 600 s.
    pub max_deadline: Duration,
    /// How long requests are still accepted after the first signal, while load balancers notice that the server is no longer
    /// ready. Default: 5 s.
    pub drain_delay: Duration,
    /// How long requests may take to finish after that, before they are cancelled. Default: 25 s.
    pub drain_timeout: Duration,
    /// A file of keys, one per line, `key` or `name:key`. `None`: everybody who reaches the address may use the server.
    pub api_keys: Option<PathBuf>,
    /// Origins whose web pages may call the server. Default: none.
    pub cors_origins: Vec<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: vec![Address::default()],
            admin_listen: None,
            names: Vec::new(),
            query_task: Prompt::DEFAULT_TASK.to_owned(),
            tasks: Vec::new(),
            default_input_type: None,
            require_input_type: false,
            instructions_in_text: false,
            auto_truncate: false,
            ignore_unknown_fields: false,
            embed: EmbedOptions::default(),
            queue: QueueOptions::default(),
            max_texts: 2048,
            max_body: 32 << 20,
            max_connections: 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            max_deadline: Duration::from_secs(600),
            drain_delay: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(25),
            api_keys: None,
            cors_origins: Vec::new(),
        }
    }
}

impl ServerOptions {
    /// # Errors
    /// A sentence that names the option and its limits.
    pub(crate) fn check(&self) -> Result<(), String> {
        let positive = [
            ("`max_texts`", self.max_texts),
            ("`max_body`", self.max_body),
            ("`max_connections`", self.max_connections),
        ];
        if let Some((name, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} must be at least 1, got 0"));
        }
        let times = [
            ("`header_timeout`", self.header_timeout),
            ("`body_timeout`", self.body_timeout),
            ("`idle_timeout`", self.idle_timeout),
            ("`max_deadline`", self.max_deadline),
        ];
        if let Some((name, _)) = times.into_iter().find(|(_, value)| value.is_zero()) {
            return Err(format!("{name} must be more than 0 s"));
        }
        if self.listen.is_empty() {
            return Err("`listen` must name at least one address".to_owned());
        }
        if self.embed.truncation == Truncation::Error {
            return Err(
                "`truncation` is how a text is cut when a request asks for it: reference or keep-eos".to_owned()
            );
        }
        let default = EmbedOptions::default();
        let batches = |options: &EmbedOptions| (options.max_batch_tokens, options.max_batch_size, options.window);
        if batches(&self.embed) != batches(&default) {
            return Err("the limits of batches are options of `queue`, not of `embed`".to_owned());
        }
        if self.query_task.trim().is_empty() {
            return Err("`query_task` must be a sentence, got an empty one".to_owned());
        }
        for (name, task) in &self.tasks {
            if InputType::of(name).is_some_and(|kind| !matches!(kind, InputType::Named(_))) {
                return Err(format!(
                    "`task` {name}: this name has a fixed meaning; the task of queries is `query_task`"
                ));
            }
            if task.trim().is_empty() {
                return Err(format!("`task` {name}: the sentence is empty"));
            }
        }
        Ok(())
    }
}
