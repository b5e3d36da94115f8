//! What a server refuses, and clients that behave badly.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use crate::client::{head, reply, wait_until};
use crate::{Running, shared};

const ROUTE: &str = "/v1/embeddings";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[test]
fn a_body_has_a_limit_and_a_client_that_writes_first_still_reads_the_answer() {
    let server = Running::start(|options| options.max_body = 1000);
    for length in [1001, 5_000_000] {
        let reply = server.client.request("POST", ROUTE, &JSON, &vec![b' '; length]);
        let (message, code, _) = reply.error();
        assert_eq!((reply.status, &*code), (413, "request_too_large"), "{message}");
        assert!(message.contains("1000 bytes"), "{message}");
    }
    // One that asks first is told before it has sent anything.
    let mut stream = server.client.connect();
    let headers = [JSON[0], ("expect", "100-continue")];
    stream.write_all(&head("POST", ROUTE, &headers, 5_000_000)).unwrap();
    assert_eq!(reply(&mut *stream).status, 413);
    assert_eq!(server.client.metric("nvembed_rejected_total{reason=\"too_large\"}"), 3.0);
    server.end().unwrap();
}

#[test]
fn slow_bodies_and_silent_connections_are_given_up() {
    let server = Running::start(|options| {
        options.body_timeout = Duration::from_millis(100);
        options.header_timeout = Duration::from_millis(100);
    });
    let mut stream = server.client.connect();
    stream.write_all(&head("POST", ROUTE, &JSON, 100)).unwrap();
    stream.write_all(b"{\"input\":").unwrap();
    let answer = reply(&mut *stream);
    assert_eq!((answer.status, &*answer.error().1), (408, "request_timeout"));
    for part in ["", "POST /v1/embeddings HTTP/1.1\r\nhost"] {
        let mut stream = server.client.connect();
        stream.write_all(part.as_bytes()).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
    server.end().unwrap();
}

#[test]
fn connections_beyond_the_limit_wait() {
    let server = Running::start(|options| {
        options.max_connections = 1;
        options.admin_listen = Some("127.0.0.1:0".parse().unwrap());
    });
    let admin = server.admin.as_ref().unwrap();
    wait_until("closed", || admin.metric("nvembed_connections") == 1.0);
    let first = server.client.connect();
    wait_until("connected", || admin.metric("nvembed_connections") == 2.0);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| server.client.get("/livez").status);
        // Without the limit the answer would be there at once.
        std::thread::sleep(Duration::from_millis(200));
        assert!(!second.is_finished());
        drop(first);
        assert_eq!(second.join().unwrap(), 200);
    });
    server.end().unwrap();
}

#[test]
fn a_deadline_from_a_header_ends_the_request() {
    let body = json!({"input": vec!["words about rivers and towns ".repeat(100); 64], "input_type": "passage"});
    let reply = shared().post_with(ROUTE, &[("x-request-timeout-ms", "1")], &body);
    assert_eq!((reply.status, &*reply.error().1), (504, "timeout"));
    assert_eq!(reply.headers["x-should-retry"], "false");
}

#[test]
fn a_client_that_leaves_stops_its_work() {
    let server = Running::start(|_| {});
    let texts = vec!["words about rivers and towns ".repeat(400); 500];
    let body = json!({"input": texts, "input_type": "passage"}).to_string();
    let mut stream = server.client.connect();
    stream.write_all(&head("POST", ROUTE, &JSON, body.len())).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    wait_until("in the queue", || server.client.metric("nvembed_queue_texts{class=\"bulk\"}") > 0.0);
    drop(stream);
    wait_until("abandoned", || server.client.metric("nvembed_requests_abandoned_total") == 1.0);
    wait_until("out of the queue", || server.client.metric("nvembed_queue_texts{class=\"bulk\"}") == 0.0);
    assert!(server.client.metric("nvembed_abandoned_texts_total{stage=\"queue\"}") > 0.0);
    // The work would take minutes; the server ends only when all of it has ended.
    server.end().unwrap();
}

#[test]
fn keys_are_required_where_there_are_keys_and_read_again_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, "search:first\n").unwrap();
    let server = Running::start(|options| {
        options.api_keys = Some(path.clone());
        options.admin_listen = Some("127.0.0.1:0".parse().unwrap());
    });
    let ask = |key: &str| server.client.post_with(ROUTE, &[("authorization", key)], &json!({"input": "a"})).status;
    assert_eq!((ask("Bearer first"), ask("bearer first"), ask("Bearer other"), ask("first")), (200, 200, 401, 401));
    let reply = server.client.post(ROUTE, &json!({"input": "a"}));
    assert_eq!((reply.status, &*reply.error().1), (401, "invalid_api_key"));
    assert_eq!(reply.headers["www-authenticate"], "Bearer");
    // Health says nothing that needs a key; metrics do.
    assert_eq!((server.client.get("/readyz").status, server.client.get("/metrics").status), (200, 401));
    let admin = server.admin.as_ref().unwrap();
    assert_eq!((admin.get("/readyz").status, admin.post(ROUTE, &json!({"input": "a"})).status), (200, 404));
    assert_eq!(admin.metric("nvembed_rejected_total{reason=\"unauthorized\"}"), 4.0);
    std::fs::write(&path, "search:second\n").unwrap();
    server.control.reload_keys().unwrap();
    assert_eq!((ask("Bearer first"), ask("Bearer second")), (401, 200));
    std::fs::write(&path, "").unwrap();
    assert!(server.control.reload_keys().is_err());
    assert_eq!(ask("Bearer second"), 200);
    server.end().unwrap();
}

#[test]
fn requests_that_do_not_say_what_texts_are_can_be_counted_or_refused() {
    let server = Running::start(|_| {});
    for body in [json!({"input": "a"}), json!({"input": "a", "input_type": "passage"})] {
        assert_eq!(server.client.post(ROUTE, &body).status, 200);
    }
    assert_eq!(server.client.post(ROUTE, &json!({"input": "Instruct: x\nQuery: a"})).status, 200);
    assert_eq!(server.client.metric("nvembed_requests_without_input_type_total"), 2.0);
    assert_eq!(server.client.metric("nvembed_instructions_in_text_total"), 1.0);
    assert_eq!(server.client.metric("nvembed_texts_total"), 3.0);
    assert_eq!(server.client.metric("nvembed_requests_total{route=\"/v1/embeddings\",code=\"200\"}"), 3.0);
    server.end().unwrap();
    let strict = Running::start(|options| options.require_input_type = true);
    let reply = strict.client.post(ROUTE, &json!({"input": "a"}));
    assert_eq!((reply.status, &*reply.error().2), (400, "input_type"));
    strict.end().unwrap();
}

#[test]
fn pages_of_named_origins_may_call() {
    let server = Running::start(|options| options.cors_origins = vec!["https://example.org".to_owned()]);
    let ask = |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        server.client.request("OPTIONS", ROUTE, &headers, b"").headers.contains_key("access-control-allow-origin")
    };
    assert!(ask("https://example.org") && !ask("https://example.com"));
    server.end().unwrap();
}
