//! The routes of text-embeddings-inference.

use nvembed::Prompt;
use serde_json::json;

use crate::client::vector;
use crate::{embed, shared};

#[test]
fn embed_answers_with_a_bare_list_of_the_librarys_numbers() {
    let wanted = embed(&[Prompt::query(Prompt::DEFAULT_TASK, "hello")]);
    for route in ["/embed", "/"] {
        let body = json!({"inputs": "hello", "prompt_name": "query", "normalize": true, "truncate": true});
        let answer = shared().post(route, &body).json();
        assert_eq!(answer.as_array().unwrap().iter().map(vector).collect::<Vec<_>>(), wanted, "{route}");
    }
}

#[test]
fn similarity_is_the_cosine_of_a_query_to_each_passage() {
    let rows = embed(&[Prompt::query(Prompt::DEFAULT_TASK, "who?"), Prompt::passage("one"), Prompt::passage("two")]);
    let wanted: Vec<f32> = rows[1..].iter().map(|row| row.iter().zip(&rows[0]).map(|(a, b)| a * b).sum()).collect();
    let body = json!({"inputs": {"source_sentence": "who?", "sentences": ["one", "two"]}});
    let found = vector(&shared().post("/similarity", &body).json());
    assert!(found.len() == 2 && found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {wanted:?}");
}

#[test]
fn errors_have_the_form_of_text_embeddings_inference() {
    let long = "too long ".repeat(5000);
    for (route, body, part) in [
        ("/embed", json!({"inputs": long}), "more than"),
        ("/embed", json!({"inputs": "a", "normalize": false}), "unit length"),
        ("/embed", json!({"inputs": "a", "turncate": true}), "unknown field `turncate`"),
        ("/embed", json!({"inputs": "a", "truncate": "yes"}), "true or false"),
        ("/similarity", json!({"inputs": {"source_sentence": "a"}}), "`sentences` is missing"),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"x": 1}}),
            "unknown field",
        ),
    ] {
        let reply = shared().post(route, &body);
        let answer = reply.json();
        assert_eq!((reply.status, &answer["error_type"]), (422, &json!("Validation")), "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{answer}");
    }
    for route in ["/rerank", "/predict", "/embed_all", "/embed_sparse"] {
        let reply = shared().post(route, &json!({}));
        assert!(reply.status == 501 && reply.json()["error"].is_string(), "{route}");
    }
}

#[test]
fn info_has_the_names_that_clients_read() {
    let info = shared().get("/info").json();
    assert_eq!(info["model_type"], json!({"embedding": {"pooling": "latent_attention"}}));
    assert!(info["max_input_length"].as_u64().unwrap() > 1000, "{info}");
    assert_eq!(info["max_client_batch_size"], 2048);
}
