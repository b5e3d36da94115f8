//! `/v1/embeddings` and its neighbours.

use nvembed::Prompt;
use serde_json::{Value, json};

use crate::{alone, embed, shared};

const ROUTE: &str = "/v1/embeddings";

#[test]
fn embeddings_are_those_of_the_library_bit_by_bit() {
    let question = "who wrote the odyssey?";
    let wanted = embed(&[Prompt::query(Prompt::DEFAULT_TASK, question), Prompt::passage(question)]);
    assert_ne!(wanted[0], wanted[1]);
    for format in ["float", "base64"] {
        for (input_type, wanted) in [("query", &wanted[0]), ("passage", &wanted[1])] {
            let body = json!({"input": question, "input_type": input_type, "encoding_format": format});
            assert_eq!(alone().post(ROUTE, &body).embeddings(), std::slice::from_ref(wanted), "{format} {input_type}");
        }
    }
}

#[test]
fn every_text_can_have_its_own_instruction() {
    let prompts = [
        Prompt::with_instruction("Instruct: Find it\nQuery: ", "one"),
        Prompt::passage("two"),
        Prompt::with_instruction("plain: ", "three"),
    ];
    let wanted = embed(&prompts);
    let body = json!({
        "input": ["one", "two", "three"],
        "instruction": ["Instruct: Find it\nQuery: ", "", "plain: "],
    });
    let found = shared().post(ROUTE, &body).embeddings();
    for (found, wanted) in found.iter().zip(&wanted) {
        let difference = found.iter().zip(wanted).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
        assert!(difference <= crate::common::BATCH_INVARIANCE, "{difference}");
    }
    let task = alone().post(ROUTE, &json!({"input": "one", "task": "Find it"})).embeddings();
    assert_eq!(task, embed(&prompts[..1]));
}

#[test]
fn the_end_of_the_models_name_says_what_texts_are_even_against_a_wrong_input_type() {
    let query = embed(&[Prompt::query(Prompt::DEFAULT_TASK, "hello")]);
    let body = json!({"model": "NV-Embed-mini-query", "input": "hello", "input_type": "passage"});
    let reply = alone().post(ROUTE, &body);
    assert_eq!(reply.embeddings(), query);
    assert_eq!(reply.json()["model"], "NV-Embed-mini-query");
    let passage = json!({"model": "nv-embed-mini-passage", "input": "hello"});
    assert_eq!(alone().post(ROUTE, &passage).embeddings(), embed(&[Prompt::passage("hello")]));
}

#[test]
fn an_answer_counts_tokens_and_says_what_was_cut() {
    let long = "words of a long text ".repeat(3000);
    let body = json!({"input": ["short", long], "input_type": "passage", "truncate": "END"});
    let reply = shared().post_with(ROUTE, &[("x-request-id", "mine-1")], &body);
    let answer = reply.json();
    assert_eq!((&answer["data"][0]["truncated"], &answer["data"][1]["truncated"]), (&json!(false), &json!(true)));
    let tokens: Vec<u64> = (0..2).map(|index| answer["data"][index]["tokens"].as_u64().unwrap()).collect();
    assert!(tokens[0] < 10 && tokens[1] > 1000, "{tokens:?}");
    assert_eq!(answer["usage"], json!({"prompt_tokens": tokens[0] + tokens[1], "total_tokens": tokens[0] + tokens[1]}));
    assert_eq!(reply.headers["x-request-id"], "mine-1");
    assert_eq!(reply.headers["x-compute-tokens"], (tokens[0] + tokens[1]).to_string());
    let cut = json!({"input": "one two three four five six seven", "truncate_prompt_tokens": 5});
    let answer = shared().post(ROUTE, &cut).json();
    assert_eq!((&answer["data"][0]["tokens"], &answer["data"][0]["truncated"]), (&json!(5), &json!(true)));
    // An id that could break a log line is replaced.
    let replaced = shared().post_with(ROUTE, &[("x-request-id", "with space")], &json!({"input": "a"}));
    assert_eq!(replaced.headers["x-request-id"].len(), 16);
}

#[test]
fn a_bad_request_is_refused_with_the_field_and_without_the_text() {
    let secret = "attack at dawn";
    let long = format!("{secret} ").repeat(3000);
    type Case<'a> = (Value, u16, &'a str, &'a str, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (json!({}), 400, "", "input", "missing"),
        (json!({"input": []}), 400, "", "input", "1 to 2048 texts"),
        (json!({"input": [secret, ""]}), 400, "", "input", "text 1 is empty"),
        (json!({"input": [1, 2]}), 400, "", "input", "check_embedding_ctx_length=False"),
        (json!({"input": secret, "inputtype": "query"}), 400, "unknown_field", "inputtype", "input_type"),
        (json!({"input": secret, secret: 1}), 400, "unknown_field", "", "unknown field; this route takes"),
        (json!({"input": secret, "input_type": secret}), 400, "", "input_type", "query, passage"),
        (json!({"input": secret, "truncate": "LEFT"}), 400, "", "truncate", "NONE, END, START"),
        (json!({"input": secret, "dimensions": 257}), 400, "", "dimensions", "1 to 256, got 257"),
        (json!({"input": secret, "embedding_type": "int4"}), 400, "", "embedding_type", "float, int8"),
        (json!({"input": secret, "normalize": false}), 400, "", "normalize", "unit length"),
        (json!({"input": secret, "add_special_tokens": false}), 400, "", "add_special_tokens", "trained with them"),
        (json!({"input": secret, "encoding_format": 5}), 400, "", "encoding_format", "a string, got a number"),
        (json!({"input": secret, "dimensions": 0}), 400, "", "dimensions", "got 0"),
        (json!({"input": secret, "model": "gpt-4"}), 404, "model_not_found", "model", "nv-embed-mini"),
        (json!({"input": ["a", long]}), 400, "context_length_exceeded", "input", "prompt 1: the text has more than"),
        (json!({"input": secret, "truncate_prompt_tokens": 0}), 400, "", "truncate_prompt_tokens", "-1 or 1 to"),
        (
            json!({"input": secret, "instruction": "a", "input_type": "passage"}),
            400,
            "",
            "input_type",
            "different things",
        ),
        (json!({"input": [secret], "task": ["a", "b"]}), 400, "", "task", "2 entries for 1 texts"),
        (json!([secret]), 400, "", "", "JSON object"),
    ];
    for (body, status, code, param, part) in cases {
        let reply = shared().post(ROUTE, &body);
        let (message, found_code, found_param) = reply.error();
        assert_eq!((reply.status, &*found_code, &*found_param), (status, code, param), "{message}");
        assert!(message.contains(part) && !message.contains("dawn"), "{message}");
        assert!(reply.headers.contains_key("x-request-id"));
    }
    let broken =
        shared().request("POST", ROUTE, &[("content-type", "application/json")], b"{\"input\": \"attack at dawn");
    assert!(broken.status == 400 && !broken.error().0.contains("dawn"));
    // A page of another origin could send this without asking.
    let plain = shared().request("POST", ROUTE, &[("content-type", "text/plain")], b"{\"input\": \"a\"}");
    assert_eq!((plain.status, &*plain.error().1), (415, "unsupported_media_type"));
    let (wrong_method, nowhere) = (shared().get(ROUTE), shared().get("/v1/chat/completions"));
    assert_eq!((wrong_method.status, &*wrong_method.error().1), (405, "method_not_allowed"));
    assert_eq!((nowhere.status, &*nowhere.error().1), (404, "not_found"));
}

#[test]
fn numbers_come_in_every_type_and_width_and_encoding_of_the_library() {
    let prompts = [Prompt::passage("one"), Prompt::passage("two")];
    let rows = nvembed::Rows::F32(ndarray::Array2::from_shape_fn((2, 256), |(row, column)| {
        static WANTED: std::sync::OnceLock<Vec<Vec<f32>>> = std::sync::OnceLock::new();
        WANTED.get_or_init(|| prompts.iter().flat_map(|prompt| embed(std::slice::from_ref(prompt))).collect())[row]
            [column]
    }));
    let ask = |kind: &str, encoding: &str| {
        let ask = |text: &str| {
            let body = json!({"input": text, "dimensions": 100, "embedding_type": kind, "encoding_format": encoding});
            alone().post(ROUTE, &body).json()["data"][0].clone()
        };
        [ask("one"), ask("two")]
    };
    let integers = rows.converted(nvembed::Dtype::Int8, 100).unwrap();
    let bits = rows.converted(nvembed::Dtype::Binary, 100).unwrap();
    for index in 0..2 {
        let (nvembed::Row::Int8 { values, scale, .. }, nvembed::Row::Binary { bytes, .. }) =
            (integers.row(index), bits.row(index))
        else {
            panic!("other types")
        };
        let wanted: [(&str, Vec<i64>); 4] = [
            ("int8", values.iter().map(|value| i64::from(*value)).collect()),
            ("uint8", values.iter().map(|value| i64::from(*value) + 128).collect()),
            ("ubinary", bytes.iter().map(|byte| i64::from(*byte)).collect()),
            ("binary", bytes.iter().map(|byte| i64::from(*byte) - 128).collect()),
        ];
        for (kind, wanted) in wanted {
            let item = &ask(kind, "float")[index];
            assert_eq!(item["embedding"], json!(wanted), "{kind}");
            assert_eq!(item["scale"].as_f64().map(|found| found as f32), kind.ends_with("int8").then_some(scale));
            let coded = ask(kind, "base64")[index]["embedding"].as_str().unwrap().to_owned();
            use base64::Engine as _;
            let found = base64::engine::general_purpose::STANDARD.decode(coded).unwrap();
            assert_eq!(found, wanted.iter().map(|value| *value as u8).collect::<Vec<_>>(), "{kind}");
        }
        let floats = &ask("float", "float")[index];
        assert_eq!(
            crate::client::vector(&floats["embedding"]),
            rows.converted(nvembed::Dtype::F32, 100).unwrap().row(index).to_f32()
        );
        assert!(floats.get("scale").is_none());
    }
}

#[test]
fn a_text_can_lose_its_start_instead_of_its_end() {
    let long = format!("{}the end", "words of a long text ".repeat(3000));
    let ask = |truncate: &str| {
        let body = json!({"input": long, "input_type": "passage", "truncate": truncate});
        let answer = shared().post(ROUTE, &body);
        assert_eq!(answer.json()["data"][0]["truncated"], json!(true));
        answer.embeddings()
    };
    assert_ne!(ask("START"), ask("END"));
    let tokenize = |direction: &str| {
        let body = json!({"inputs": long, "truncate": true, "truncation_direction": direction});
        shared().post("/tokenize", &body).json()[0].clone()
    };
    let (left, right) = (tokenize("Left"), tokenize("Right"));
    let count = left.as_array().unwrap().len();
    assert_eq!((&left[count - 2]["text"], &left[count - 1]["text"]), (&json!("▁end"), &json!("</s>")));
    assert_eq!((right.as_array().unwrap().len(), &right[1]["text"]), (count, &json!("▁words")));
}

#[test]
fn models_describe_the_model() {
    let list = shared().get("/v1/models").json();
    let model = &list["data"][0];
    assert_eq!((&list["object"], &model["object"]), (&json!("list"), &json!("model")));
    assert_eq!((&model["dimensions"], &model["id"]), (&json!(256), &json!("nv-embed-mini")));
    assert!(model["max_model_len"].as_u64().unwrap() > 1000 && model["digest"].as_str().unwrap().len() == 64);
    assert_eq!(shared().get("/v1/models/nv-embed-mini-query").json(), *model);
    assert_eq!(shared().get("/v1/models/gpt-4").status, 404);
    assert_eq!(shared().get("/v1/license").json()["name"], model["license"]);
    assert_eq!(shared().get("/v1/metadata").json()["modelInfo"][0]["shortName"], "nv-embed-mini");
    assert_eq!(shared().get("/v1/manifest").json()["digest"], model["digest"]);
    assert_eq!(shared().get("/v1/version").json()["release"], env!("CARGO_PKG_VERSION"));
}
