//! The routes of text-embeddings-inference.

use nvembed::Prompt;
use serde_json::json;

use crate::client::vector;
use crate::{alone, embed, shared};

#[test]
fn embed_answers_with_a_bare_list_of_the_librarys_numbers() {
    let wanted = embed(&[Prompt::query(Prompt::DEFAULT_TASK, "hello")]);
    for route in ["/embed", "/", "/invocations"] {
        let body = json!({"inputs": "hello", "prompt_name": "query", "normalize": true, "truncate": true});
        let answer = alone().post(route, &body).json();
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
fn tokenize_gives_what_would_run_with_the_pieces_of_the_vocabulary() {
    let body = json!({"inputs": ["hello world"], "prompt_name": "query"});
    let tokens = shared().post("/tokenize", &body).json()[0].as_array().unwrap().clone();
    assert_eq!((&tokens[0]["text"], &tokens[0]["special"]), (&json!("<s>"), &json!(true)));
    let last = &tokens[tokens.len() - 1];
    assert_eq!((&last["text"], &last["special"]), (&json!("</s>"), &json!(true)));
    let text: String = tokens[1..tokens.len() - 1].iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert!(text.starts_with("▁Instruct:") && text.ends_with("hello▁world"), "{text}");
    let embedded = json!({"input": "hello world", "input_type": "query"});
    let counted = shared().post("/v1/embeddings", &embedded).json()["data"][0]["tokens"].as_u64().unwrap();
    assert_eq!(tokens.len() as u64, counted);
}

#[test]
fn coheres_clients_get_every_type_they_ask_for_and_errors_in_their_form() {
    let wanted = embed(&[Prompt::query(Prompt::DEFAULT_TASK, "hello")]);
    let types = ["float", "base64", "int8", "ubinary"];
    let body = json!({"texts": ["hello"], "input_type": "search_query", "embedding_types": types});
    let answer = alone().post_with("/v2/embed", &[("x-request-id", "mine-2")], &body).json();
    for kind in ["float", "base64"] {
        assert_eq!(vector(&answer["embeddings"][kind][0]), wanted[0], "{kind}");
    }
    let bits = answer["embeddings"]["ubinary"][0].as_array().unwrap();
    assert_eq!((bits.len(), bits[0].as_u64().unwrap() >> 7), (32, u64::from(wanted[0][0] > 0.0)));
    let largest = answer["embeddings"]["int8"][0].as_array().unwrap().iter().map(|value| value.as_i64().unwrap().abs());
    assert_eq!((largest.max(), &answer["id"]), (Some(127), &json!("mine-2")));
    assert!(answer["meta"]["billed_units"]["input_tokens"].as_u64().unwrap() > 5);
    let refused = alone().post("/v2/embed", &json!({"texts": ["a"], "embedding_types": ["int4"]}));
    assert_eq!(refused.status, 400);
    assert!(refused.json()["message"].as_str().unwrap().contains("`embedding_types` must be a list of float"));
}

#[test]
fn info_has_the_names_that_clients_read() {
    let info = shared().get("/info").json();
    assert_eq!(info["model_type"], json!({"embedding": {"pooling": "latent_attention"}}));
    assert!(info["max_input_length"].as_u64().unwrap() > 1000, "{info}");
    assert_eq!(info["max_client_batch_size"], 2048);
}
