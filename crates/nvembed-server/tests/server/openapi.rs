//! `/openapi.json` against the server itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::shared;

fn document() -> Value {
    shared().get("/openapi.json").json()
}

#[test]
fn every_route_of_the_document_is_there() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 20);
    for (path, methods) in paths {
        let path = path.replace("{model}", "nv-embed-mini");
        for (method, operation) in methods.as_object().unwrap() {
            let reply = shared().request(&method.to_uppercase(), &path, &[], b"{}");
            assert!(!matches!(reply.status, 404 | 405), "{method} {path}: {}", reply.status);
            assert!(operation["responses"][reply.status.to_string()].is_object(), "{method} {path}: {}", reply.status);
            let other = if method == "post" { "GET" } else { "POST" };
            assert_eq!(shared().request(other, &path, &[], b"{}").status, 405, "{other} {path}");
        }
    }
}

#[test]
fn the_document_has_all_fields_and_no_others() {
    let document = document();
    let compare = |schema: &str, body: Value, route: &str| {
        let properties = document.pointer(&format!("/components/schemas/{schema}")).unwrap()["properties"].as_object();
        let wanted: BTreeSet<&str> = properties.unwrap().keys().map(String::as_str).collect();
        let answer = shared().post(route, &body).json();
        let message = answer["error"]["message"].as_str().or(answer["error"].as_str());
        let message = message.or(answer["message"].as_str()).unwrap().to_owned();
        let known: BTreeSet<&str> = message.split_once("this route takes ").unwrap().1.split(", ").collect();
        assert_eq!(known, wanted, "{route}");
    };
    compare("EmbeddingsRequest", json!({"input": "a", "x": 1}), "/v1/embeddings");
    compare("EmbedRequest", json!({"inputs": "a", "x": 1}), "/embed");
    compare("TokenizeRequest", json!({"inputs": "a", "x": 1}), "/tokenize");
    compare("CohereRequest", json!({"texts": ["a"], "x": 1}), "/v2/embed");
    let inputs = json!({"source_sentence": "a", "sentences": ["b"]});
    compare("SimilarityRequest", json!({"inputs": inputs, "x": 1}), "/similarity");
    let parameters = json!({"inputs": inputs, "parameters": {"x": 1}});
    compare("SimilarityRequest/properties/parameters", parameters, "/similarity");
    let inputs = json!({"source_sentence": "a", "sentences": ["b"], "x": 1});
    compare("SimilarityRequest/properties/inputs", json!({"inputs": inputs}), "/similarity");
}
