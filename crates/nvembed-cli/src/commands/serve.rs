//! `nvembed serve`: a model over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use nvembed::queue::QueueOptions;
use nvembed::{EmbedOptions, Embedder, Prompt, SpecialTokens, Truncation};
use nvembed_server::{Address, Control, Error, InputType, Server, ServerOptions};

use crate::arguments::{ModelArguments, parse, size, with_flags};
use crate::exit::CliError;
use crate::log::LogFormat;

/// Serve a model over HTTP, to the clients of OpenAI, NVIDIA NIM and text-embeddings-inference.
///
/// Answers health at once, opens and checks the model, and is then ready. SIGTERM or Ctrl-C drains: no longer
/// ready, requests are taken for --drain-delay, then finished within --drain-timeout. A second signal ends at once. SIGHUP
/// reads the keys again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nvembed serve -m MODEL
  curl localhost:8080/v1/embeddings -H 'Content-Type: application/json' \\
      -d '{\"input\": [\"who wrote the odyssey?\"], \"input_type\": \"query\"}'
  nvembed serve -m MODEL --listen 0.0.0.0:8080 --admin-listen 127.0.0.1:9090 --api-keys keys.txt")]
pub(crate) struct Arguments {
    /// Where to listen: HOST:PORT, unix:/path, or fd:3 for the first socket of a systemd unit. Repeatable.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: Vec<Address>,
    /// Another address, for health and metrics only, which needs no key.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<Address>,
    /// Name under which clients ask for the model; the first is the one in answers. Repeatable. Default: the model's own.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Task of queries that name none, in one English sentence.
    #[arg(long, value_name = "SENTENCE", default_value = Prompt::DEFAULT_TASK)]
    query_task: String,
    /// A task that requests can name in input_type or prompt_name, for example clustering='Identify the topic of the text'.
    /// Repeatable.
    #[arg(long = "task", value_name = "NAME=SENTENCE", value_parser = name_and_sentence)]
    tasks: Vec<(String, String)>,
    /// What a text is when its request does not say: query or passage. Default: passage, and the request is counted.
    #[arg(long, value_name = "TYPE", conflicts_with = "require_input_type")]
    default_input_type: Option<InputType>,
    /// Refuse requests that do not say what their texts are.
    #[arg(long)]
    require_input_type: bool,
    /// Take "Instruct: ...\nQuery: " at the start of a text as its instruction. Only for clients that cannot send one apart.
    #[arg(long)]
    instructions_in_text: bool,
    /// Cut long texts on /embed, /similarity and / when a request does not say what to do, as text-embeddings-inference does.
    #[arg(long)]
    auto_truncate: bool,
    /// Ignore fields that the server does not know, for gateways that add their own.
    #[arg(long)]
    ignore_unknown_fields: bool,
    /// Longest row in token ids, including <s> and </s>. Default: the model's limit.
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// How a text is cut when its request asks for that: reference loses </s>, as NVIDIA's code does; keep-eos ends with it.
    #[arg(long, value_name = "POLICY", default_value_t, value_parser = parse::<Truncation>)]
    truncation: Truncation,
    /// How <s>, </s> and <unk> in texts are read: parse as special tokens, as NVIDIA's code does; literal as plain text.
    #[arg(long, value_name = "HOW", default_value_t, value_parser = parse::<SpecialTokens>)]
    special_tokens: SpecialTokens,
    /// Padded tokens per batch. Default: 1024 on CPUs, 4096 on GPUs.
    #[arg(long, value_name = "N")]
    max_batch_tokens: Option<usize>,
    /// Rows per batch.
    #[arg(long, value_name = "N", default_value_t = EmbedOptions::default().max_batch_size)]
    max_batch_size: usize,
    /// Tokens that wait or run; a request beyond it is refused with 429. A tenth is kept for interactive requests.
    #[arg(long, value_name = "N", default_value_t = QueueOptions::default().max_tokens)]
    max_queue_tokens: usize,
    /// Seconds that a run may take, as predicted, while interactive requests come; one text always runs. Default: 0.25 on CPUs,
    /// 0.025 on GPUs.
    #[arg(long, value_name = "S", value_parser = seconds)]
    max_run: Option<Duration>,
    /// Texts per request.
    #[arg(long, value_name = "N", default_value_t = ServerOptions::default().max_texts)]
    max_texts: usize,
    /// Size of a request's body.
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = size)]
    max_body: usize,
    /// Open connections; more wait.
    #[arg(long, value_name = "N", default_value_t = ServerOptions::default().max_connections)]
    max_connections: usize,
    /// Seconds to wait for the header of a new connection's first request.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    header_timeout: Duration,
    /// Seconds to wait for a body.
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds)]
    body_timeout: Duration,
    /// Seconds that a connection may idle between requests.
    #[arg(long, value_name = "S", default_value = "75", value_parser = seconds)]
    idle_timeout: Duration,
    /// Deadline in seconds of requests that have none, and the most that one can ask for.
    #[arg(long, value_name = "S", default_value = "600", value_parser = seconds)]
    max_deadline: Duration,
    /// Seconds to go on taking requests after a signal, until load balancers notice.
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    drain_delay: Duration,
    /// Seconds that requests may then take to finish.
    #[arg(long, value_name = "S", default_value = "25", value_parser = seconds)]
    drain_timeout: Duration,
    /// File of keys, one per line, KEY or NAME:KEY; clients send one as `Authorization: Bearer KEY`.
    #[arg(long, value_name = "FILE")]
    api_keys: Option<PathBuf>,
    /// Origin whose web pages may call the server, for example https://example.org. Repeatable.
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<String>,
    /// How log lines are written. Default: text on a terminal, JSON elsewhere.
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    #[command(flatten)]
    model: ModelArguments,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (options, model) = arguments.resolve();
    let server = Server::bind(options).map_err(cli_error)?;
    watch_signals(server.control())?;
    let (folder, options) = model.resolve();
    server.run(move || Embedder::open(folder, &options)).map_err(cli_error)
}

impl Arguments {
    fn resolve(self) -> (ServerOptions, ModelArguments) {
        let mut options = ServerOptions::default();
        options.listen = self.listen;
        options.admin_listen = self.admin_listen;
        options.names = self.names;
        options.query_task = self.query_task;
        options.tasks = self.tasks;
        options.default_input_type = self.default_input_type;
        options.require_input_type = self.require_input_type;
        options.instructions_in_text = self.instructions_in_text;
        options.auto_truncate = self.auto_truncate;
        options.ignore_unknown_fields = self.ignore_unknown_fields;
        options.embed.max_length = self.max_length;
        options.embed.truncation = self.truncation;
        options.embed.special_tokens = self.special_tokens;
        options.queue.max_batch_tokens = self.max_batch_tokens;
        options.queue.max_batch_size = self.max_batch_size;
        options.queue.max_tokens = self.max_queue_tokens;
        options.queue.max_run = self.max_run;
        options.max_texts = self.max_texts;
        options.max_body = self.max_body;
        options.max_connections = self.max_connections;
        options.header_timeout = self.header_timeout;
        options.body_timeout = self.body_timeout;
        options.idle_timeout = self.idle_timeout;
        options.max_deadline = self.max_deadline;
        options.drain_delay = self.drain_delay;
        options.drain_timeout = self.drain_timeout;
        options.api_keys = self.api_keys;
        options.cors_origins = self.cors_origins;
        (options, self.model)
    }
}

fn cli_error(error: Error) -> anyhow::Error {
    match error {
        Error::Model(error) => error.into(),
        Error::Listen { .. } => CliError::Listen(error.to_string()).into(),
        Error::Option(message) => CliError::Usage(with_flags(&message)).into(),
        Error::Keys(message) => CliError::Input(format!("--api-keys: {message}")).into(),
        error => error.into(),
    }
}

/// SIGTERM and SIGINT drain, a second one ends at once, SIGHUP reads the keys again.
#[cfg(unix)]
fn watch_signals(control: Control) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(CliError::no_signals)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if signal != SIGHUP {
                    control.drain();
                } else if let Err(error) = control.reload_keys() {
                    tracing::error!(%error, "the old keys stay");
                }
            }
        })
        .map_err(CliError::no_signals)?;
    Ok(())
}

/// On other systems the default applies: the program ends.
#[cfg(not(unix))]
fn watch_signals(_: Control) -> anyhow::Result<()> {
    Ok(())
}

fn name_and_sentence(text: &str) -> Result<(String, String), String> {
    let (name, sentence) = text.split_once('=').ok_or("expected NAME=SENTENCE")?;
    Ok((name.to_owned(), sentence.to_owned()))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected seconds, 0 to 86400, got {text:?}");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        serve: Arguments,
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        let options = Program::try_parse_from(["test", "-m", "folder"]).unwrap().serve.resolve().0;
        assert_eq!(format!("{options:?}"), format!("{:?}", ServerOptions::default()));
    }
}
