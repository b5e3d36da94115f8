//! Requests that wait together.

use std::io::Write;

use nvembed::Prompt;
use serde_json::{Value, json};

use crate::client::{Stream, head, wait_until};
use crate::{Running, alone, common, embed};

const ROUTE: &str = "/v1/embeddings";

/// Sends a request of many texts, of 500 tokens or more each, and waits until it is in the queue.
fn send_bulk(server: &Running, texts: usize) -> Box<dyn Stream> {
    let body = json!({"input": vec!["words about rivers and towns ".repeat(100); texts], "input_type": "passage"});
    let body = body.to_string();
    let mut stream = server.client.connect();
    stream.write_all(&head("POST", ROUTE, &[("content-type", "application/json")], body.len())).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    wait_until("in the queue", || waiting(server, "bulk") > 0.0);
    stream
}

fn waiting(server: &Running, class: &str) -> f64 {
    server.client.metric(&format!("nvembed_queue_texts{{class=\"{class}\"}}"))
}

fn query(input: &str) -> Value {
    json!({"input": input, "input_type": "query"})
}

#[test]
fn a_full_queue_refuses_bulk_and_still_answers_a_query_before_what_waits() {
    let server = Running::start(|options| options.queue.max_tokens = 1_000_000);
    let bulk = send_bulk(&server, 1000);
    let refused = server.client.post(ROUTE, &json!({"input": vec!["words about rivers and towns ".repeat(100); 1000]}));
    let (message, code, _) = refused.error();
    assert_eq!((refused.status, &*code), (429, "overloaded"), "{message}");
    assert!(refused.headers["retry-after"].parse::<u32>().unwrap() > 0, "{:?}", refused.headers);
    assert!(refused.headers["retry-after-ms"].parse::<f64>().unwrap() > 0.0, "{:?}", refused.headers);
    assert_eq!(server.client.metric("nvembed_rejected_total{reason=\"overloaded\"}"), 1.0);
    assert!(server.client.metric("nvembed_queue_wait_estimate_seconds{class=\"bulk\"}") > 0.0);
    assert_eq!(server.client.post(ROUTE, &query("who?")).embeddings().len(), 1);
    assert!(waiting(&server, "bulk") > 0.0, "the query waited for the bulk request");
    drop(bulk);
    wait_until("empty", || waiting(&server, "bulk") == 0.0);
    let metric = |name: &str| server.client.metric(name);
    assert!(metric("nvembed_computed_positions_total") >= metric("nvembed_run_tokens_total"));
    assert!(metric("nvembed_run_tokens_total") > 0.0 && metric("nvembed_queue_duration_seconds_count") == 1.0);
    server.end().unwrap();
}

#[test]
fn a_request_larger_than_the_queue_is_an_error_that_names_the_option() {
    let server = Running::start(|options| options.queue.max_tokens = 1000);
    let reply = server.client.post(ROUTE, &json!({"input": vec!["words about rivers and towns ".repeat(100); 4]}));
    let (message, ..) = reply.error();
    assert!(reply.status == 400 && message.contains("--max-queue-tokens"), "{} {message}", reply.status);
    server.end().unwrap();
}

#[test]
fn a_request_says_its_class_in_a_field_and_a_gateway_in_a_header() {
    let server = Running::start(|_| {});
    let admitted = |class: &str| server.client.metric(&format!("nvembed_admitted_texts_total{{class=\"{class}\"}}"));
    let ask = |route: &str, headers: &[(&str, &str)], body: &Value| {
        assert_eq!(server.client.post_with(route, headers, body).status, 200);
        (admitted("interactive"), admitted("bulk"))
    };
    assert_eq!(ask(ROUTE, &[], &json!({"input": "a"})), (1.0, 0.0));
    assert_eq!(ask(ROUTE, &[], &json!({"input": "a", "priority": 1})), (1.0, 1.0));
    assert_eq!(ask("/embed", &[], &json!({"inputs": "a", "priority": 5})), (1.0, 2.0));
    assert_eq!(ask("/v2/embed", &[], &json!({"texts": ["a"], "priority": 0})), (2.0, 2.0));
    assert_eq!(ask(ROUTE, &[("x-nvembed-class", "bulk")], &json!({"input": "a"})), (2.0, 3.0));
    assert_eq!(ask(ROUTE, &[("x-nvembed-class", "interactive")], &json!({"input": "a", "priority": 1})), (3.0, 3.0));
    let reply = server.client.post_with(ROUTE, &[("x-nvembed-class", "fast")], &json!({"input": "a"}));
    assert!(reply.status == 400 && reply.error().0.contains("interactive or bulk"));
    server.end().unwrap();
}

#[test]
fn embeddings_are_the_same_whatever_runs_beside_them() {
    let server = Running::start(|_| {});
    let texts: Vec<String> = (1..40).map(|words| "words about rivers and towns ".repeat(words)).collect();
    std::thread::scope(|scope| {
        for part in texts.chunks(10) {
            let client = &server.client;
            scope.spawn(move || {
                for text in part {
                    let found = client.post(ROUTE, &json!({"input": text, "input_type": "passage"})).embeddings();
                    let wanted = embed(&[Prompt::passage(text)]);
                    let differences = found[0].iter().zip(&wanted[0]).map(|(one, other)| (one - other).abs());
                    assert!(differences.fold(0.0, f32::max) <= common::BATCH_INVARIANCE);
                }
            });
        }
    });
    // What is tokenized elsewhere, since it is long, is the same too.
    let long = "words about rivers and towns ".repeat(3000);
    let body = json!({"input": long, "input_type": "passage", "truncate": "END"});
    assert_eq!(server.client.post(ROUTE, &body).embeddings(), alone().post(ROUTE, &body).embeddings());
    server.end().unwrap();
}
