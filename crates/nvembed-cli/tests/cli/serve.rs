//! `nvembed serve` as an operator starts and ends it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;

use crate::{as_in_the_foreground, common, nvembed};

pub(crate) struct Serving {
    child: Child,
    log: BufReader<ChildStderr>,
    lines: Vec<Value>,
}

impl Serving {
    /// Starts the program and waits until it is ready; the address comes from the log.
    pub(crate) fn start(arguments: &[&str]) -> (Self, String) {
        let mut command = nvembed();
        command.arg("serve").arg("-m").arg(common::mini("fp32")).args(["--listen", "127.0.0.1:0"]).args(arguments);
        Self::of(&mut as_in_the_foreground(&command))
    }

    fn of(command: &mut Command) -> (Self, String) {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut serving = Self { child, log, lines: Vec::new() };
        let listening = serving.wait_for("listening; the model is being opened");
        serving.wait_for("ready");
        (serving, listening["addresses"].as_str().unwrap().to_owned())
    }

    fn wait_for(&mut self, message: &str) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.log.read_line(&mut line).unwrap(),
                0,
                "the log ended without {message:?}: {:?}",
                self.lines
            );
            let line: Value = serde_json::from_str(&line).unwrap();
            self.lines.push(line.clone());
            if line["message"] == message {
                return line;
            }
        }
    }

    /// Sends a signal and returns the rest of the log, what was printed, and the exit code.
    pub(crate) fn end(mut self, signal: &str) -> (String, String, Option<i32>) {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let (mut log, mut printed) = (String::new(), String::new());
        self.log.read_to_string(&mut log).unwrap();
        self.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        (log, printed, self.child.wait().unwrap().code())
    }
}

fn post(address: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\nx-request-id: id-7";
    write!(stream, "{head}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The answer to a GET, header and all.
pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_serves_until_a_signal_and_its_log_has_requests_but_no_texts() {
    let (mut serving, address) = Serving::start(&["--drain-delay", "0"]);
    assert!(post(&address, r#"{"input": "attack at dawn", "input_type": "query"}"#).starts_with("HTTP/1.1 200 OK"));
    let line = serving.wait_for("request");
    assert_eq!((&line["id"], &line["status"], &line["texts"]), (&"id-7".into(), &200.into(), &1.into()));
    assert!(post(&address, r#"{"input": "attack at dawn", "attack at dawn": 1}"#).starts_with("HTTP/1.1 400"));
    assert_eq!(serving.wait_for("request")["problem"], "UnknownField");
    assert!(!format!("{:?}", serving.lines).contains("dawn"));
    let (log, printed, code) = serving.end("-TERM");
    assert!(log.contains("drained") && !log.contains("dawn"), "{log}");
    assert_eq!((printed.as_str(), code), ("", Some(0)));
}

#[test]
fn it_ends_with_a_reason_when_it_cannot_serve() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = |arguments: &[&str]| {
        let mut command = nvembed();
        command.arg("serve").arg("-m").arg(common::mini("fp32")).args(arguments);
        let output = command.output().unwrap();
        (String::from_utf8(output.stderr).unwrap(), output.status.code())
    };
    let (message, code) = run(&["--listen", &address]);
    assert!(code == Some(9) && message.contains(&format!("cannot listen on {address}")), "{message}");
    let (message, code) = run(&["--listen", "127.0.0.1:0", "--max-texts", "0"]);
    assert!(code == Some(2) && message.contains("--max-texts must be at least 1"), "{message}");
    let (message, code) = run(&["--listen", "127.0.0.1:0", "--api-keys", "no/such/file"]);
    assert!(code == Some(3) && message.contains("--api-keys: no/such/file"), "{message}");
    let (message, code) = run(&["--listen", "127.0.0.1:0", "--max-length", "1000000"]);
    assert!(code == Some(2) && message.contains("--max-length must be 1 to 4096"), "{message}");
}

#[cfg(target_os = "linux")]
#[test]
fn systemd_hands_over_the_socket_and_is_told_when_the_server_is_ready_and_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let told = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    told.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let told = || {
        let mut state = [0; 64];
        let length = told.recv(&mut state).unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // The socket arrives as standard input, and becomes the first that is handed over.
    let script = "exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve -m \"$1\" --listen fd:3 --drain-delay 0";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_nvembed")]).arg(common::mini("fp32"));
    command.env("NOTIFY_SOCKET", &path).env_remove("NVEMBED_MODEL").current_dir(common::root());
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener))).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    assert_eq!(told(), "READY=1");
    assert!(post(&address, r#"{"input": "a"}"#).starts_with("HTTP/1.1 200 OK"));
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn no_thread_leaves_the_processors_that_the_process_was_given() {
    let allowed = |status: &str| {
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        list.trim().to_owned()
    };
    let first = allowed(&std::fs::read_to_string("/proc/self/status").unwrap());
    let first = first.split(['-', ',']).next().unwrap().to_owned();
    let ours = nvembed();
    let mut command = Command::new("taskset");
    command.args(["-c", &first]).arg(ours.get_program()).arg("serve").arg("-m").arg(common::mini("fp32"));
    command.args(["--listen", "127.0.0.1:0", "--drain-delay", "0"]);
    command.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (serving, address) = Serving::of(&mut command);
    let texts = vec!["a text of several words"; 64];
    let body = serde_json::json!({"input": texts, "input_type": "passage"}).to_string();
    assert!(post(&address, &body).starts_with("HTTP/1.1 200 OK"));
    let tasks: Vec<_> = std::fs::read_dir(format!("/proc/{}/task", serving.child.id()))
        .unwrap()
        .map(|task| task.unwrap().path())
        .collect();
    assert!(tasks.len() > 1);
    for task in tasks {
        let status = std::fs::read_to_string(task.join("status")).unwrap();
        assert_eq!(allowed(&status), first, "{}", status.lines().next().unwrap());
    }
    assert_eq!(serving.end("-TERM").2, Some(0));
}
