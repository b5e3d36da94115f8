//! Start and end of a server.

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use nvembed::{Embedder, ModelOptions};
use nvembed_server::{Address, Error, Server, ServerOptions};
use serde_json::json;

use crate::client::{head, reply, wait_until};
use crate::{Running, common};

const ROUTE: &str = "/v1/embeddings";

#[test]
fn health_is_answered_while_the_model_is_being_opened() {
    let (go, wait) = mpsc::channel();
    let open = move || {
        wait.recv().unwrap();
        Ok(common::open("fp32"))
    };
    let server = Running::start_with(|_| {}, open);
    let client = &server.client;
    assert_eq!((client.get("/livez").status, client.get("/v1/health/live").status), (200, 200));
    for route in ["/readyz", "/v1/health/ready", "/health", "/ping"] {
        assert_eq!((client.get(route).status, &client.get(route).json()["ready"]), (503, &json!(false)), "{route}");
    }
    let reply = client.post(ROUTE, &json!({"input": "a"}));
    assert_eq!((reply.status, reply.headers.contains_key("retry-after")), (503, true));
    assert_eq!(client.metric("nvembed_ready"), 0.0);
    go.send(()).unwrap();
    client.wait_until_ready();
    assert_eq!(client.get("/health").json(), json!({"object": "health.response", "message": "ready", "ready": true}));
    assert_eq!((client.post(ROUTE, &json!({"input": "a"})).status, client.metric("nvembed_ready")), (200, 1.0));
    server.end().unwrap();
}

#[test]
fn a_model_with_wrong_embeddings_is_never_ready() {
    let copy = common::mini_copy();
    let path = copy.path().join("golden.json");
    let mut golden: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let number = &mut golden["rows"][0]["embedding"][0];
    *number = json!(number.as_f64().unwrap() + 0.1);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, golden.to_string()).unwrap();
    let folder = copy.path().to_owned();
    let server = Running::start_with(|_| {}, move || Embedder::open(folder, &ModelOptions::default()));
    match server.thread.join().unwrap() {
        Err(Error::Model(error)) => assert!(error.to_string().contains("the self-check failed"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_that_does_not_open_ends_the_server_with_its_error() {
    let server = Running::start_with(|_| {}, || Embedder::open("no/such/folder", &ModelOptions::default()));
    match server.thread.join().unwrap() {
        Err(Error::Model(error)) => assert_eq!(error.kind(), nvembed::ErrorKind::Model),
        other => panic!("{other:?}"),
    }
}

/// Sends a request that takes long, and waits until it is being answered.
fn send_long_request(server: &Running, texts: usize) -> Box<dyn crate::client::Stream> {
    let texts = vec!["words about rivers and towns ".repeat(100); texts];
    let body = json!({"input": texts, "input_type": "passage"}).to_string();
    let mut stream = server.client.connect();
    stream.write_all(&head("POST", ROUTE, &[("content-type", "application/json")], body.len())).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    wait_until("in flight", || server.client.metric("nvembed_requests_in_flight") >= 2.0);
    stream
}

#[test]
fn a_drain_takes_requests_for_a_while_and_finishes_all_of_them() {
    let server = Running::start(|options| options.drain_delay = Duration::from_millis(700));
    let mut first = send_long_request(&server, 8);
    server.control.drain();
    let client = &server.client;
    wait_until("draining", || client.get("/readyz").status == 503);
    assert_eq!((client.get("/livez").status, &client.get("/readyz").json()["message"]), (200, &json!("draining")));
    let second = client.post(ROUTE, &json!({"input": "a"}));
    assert_eq!((second.status, &*second.headers["connection"]), (200, "close"));
    assert_eq!(reply(&mut *first).embeddings().len(), 8);
    server.thread.join().unwrap().unwrap();
}

#[test]
fn a_second_signal_cancels_what_is_left() {
    let server = Running::start(|options| options.drain_delay = Duration::from_secs(600));
    let mut request = send_long_request(&server, 2000);
    server.control.drain();
    server.control.drain();
    let answer = reply(&mut *request);
    assert_eq!((answer.status, &*answer.error().1), (503, "unavailable"));
    // The 2,000 texts would take minutes.
    server.thread.join().unwrap().unwrap();
}

#[test]
fn requests_that_outlast_the_drain_are_cancelled() {
    let server = Running::start(|options| options.drain_timeout = Duration::from_millis(50));
    let mut request = send_long_request(&server, 2000);
    server.control.drain();
    assert_eq!(reply(&mut *request).status, 503);
    server.thread.join().unwrap().unwrap();
}

#[test]
fn a_unix_socket_serves_and_is_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nvembed.sock");
    let server = Running::start(|options| options.listen = vec![Address::Unix(path.clone())]);
    assert_eq!(server.client.post(ROUTE, &json!({"input": "a"})).status, 200);
    server.end().unwrap();
    assert!(!path.exists());
}

#[test]
fn what_cannot_work_is_refused_before_the_model_is_opened() {
    let bind = |change: fn(&mut ServerOptions)| {
        let mut options = ServerOptions::default();
        options.listen = vec!["127.0.0.1:0".parse().unwrap()];
        change(&mut options);
        Server::bind(options).map(|_| ()).unwrap_err()
    };
    assert!(matches!(bind(|options| options.max_texts = 0), Error::Option(_)));
    assert!(matches!(bind(|options| options.listen.clear()), Error::Option(_)));
    assert!(matches!(bind(|options| options.tasks = vec![("query".into(), "x".into())]), Error::Option(_)));
    assert!(matches!(bind(|options| options.embed.truncation = nvembed::Truncation::Error), Error::Option(_)));
    assert!(matches!(bind(|options| options.api_keys = Some("no/such/file".into())), Error::Keys(_)));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = ServerOptions::default();
    options.listen = vec![taken.local_addr().unwrap().to_string().parse().unwrap()];
    assert!(matches!(Server::bind(options), Err(Error::Listen { .. })));
}
