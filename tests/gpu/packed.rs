//! Models of `--target cuda` on the CUDA shim: what arrives of packed tokens, and what comes back.

use nvembed::half::f16;
use nvembed::{Dtype, EmbedOptions, Embedder, ErrorKind, Prompt};

use crate::common::shim::{self, Copied, FINITE, TO_DEVICE, counts, embed, open, options, passages, since};
use crate::common::{embed_options, mini};

fn on_shim(name: &str, environment: &[(&str, &str)], test: impl FnOnce()) {
    shim::on_shim(&format!("packed::{name}"), environment, test);
}

#[test]
fn a_run_copies_seven_inputs_in_and_one_output_back_and_allocates_nothing() {
    on_shim("a_run_copies_seven_inputs_in_and_one_output_back_and_allocates_nothing", &[FINITE], || {
        for precision in ["cuda-fp16", "cuda-fp32", "cuda-int8", "cuda-int4"] {
            let embedder = open(precision);
            let texts = ["one text", "another that is longer"];
            for _ in 0..2 {
                embed(&embedder, &texts).unwrap();
            }
            for run in 0..3 {
                let before = counts();
                embed(&embedder, &texts).unwrap();
                let counted = since(before);
                let found = (counted.to_device, counted.to_host, counted.on_device, counted.allocations);
                assert_eq!(found, (7, 1, 0, 0), "{precision}, run {run}");
                assert_eq!((counted.launches, counted.graph_launches), (0, 1), "{precision}, run {run}");
            }
        }
    });
}

#[test]
fn tokens_arrive_packed_and_the_rows_come_back_in_order() {
    on_shim("tokens_arrive_packed_and_the_rows_come_back_in_order", &[FINITE], || {
        let embedder = open("cuda-fp16");
        let prompts = [
            Prompt::query("find it", "who wrote the odyssey?"),
            Prompt::passage("Homer."),
            Prompt::passage("a text of a few more words than the others have"),
        ];
        let encode = embed_options(|options| options.dtype = Dtype::F16);
        embedder.embed(&prompts, &encode).unwrap();
        shim::copies();
        embedder.embed(&prompts, &encode).unwrap();
        let copied = shim::copies();
        let (into, back): (Vec<_>, Vec<_>) = copied.iter().copied().partition(|copy: &Copied| copy.kind == TO_DEVICE);
        // In the place of the kernels: row i of the batch is all i + 1.
        let dim = embedder.dim();
        assert_eq!(back[0].bytes, 3 * dim * 2, "three of four rows");
        let rows: Vec<f16> = (0..4 * dim).map(|index| f16::from_f32((index / dim + 1) as f32)).collect();
        // SAFETY: the output has [4, D] float16, and no run is on.
        unsafe { shim::write(back[0].from, &rows) };
        let embeddings = embedder.embed(&prompts, &encode).unwrap().to_f32();

        let tokens = embedder.tokenize(&prompts, &encode).unwrap();
        let real: usize = tokens.iter().map(|tokens| tokens.ids.len()).sum();
        let longest = tokens.iter().map(|tokens| tokens.ids.len()).max().unwrap();
        let packed = real.next_multiple_of(16);
        let length = if longest <= 16 { 16 } else { 32 };
        assert!(real < 64 && into.len() == 7, "{real} {into:?}");
        let sizes = [packed, packed, packed, packed, 4 * length, packed, 4];
        // SAFETY: the inputs of the graph, int64, in its order.
        let inputs: Vec<Vec<i64>> =
            into.iter().zip(sizes).map(|(copy, size)| unsafe { shim::read::<i64>(copy.to, size) }).collect();
        for (copy, size) in into.iter().zip(sizes) {
            assert_eq!(copy.bytes, size * 8, "{into:?}");
        }
        let [ids, positions, pooled, row_ids, token_of_position, position_of_token, lengths] = &inputs[..] else {
            panic!("seven inputs")
        };
        let mut order: Vec<usize> = (0..3).collect();
        order.sort_by_key(|row| tokens[*row].ids.len());
        let mut token = 0;
        for (row, prompt) in order.iter().enumerate() {
            let (wanted, skipped) = (&tokens[*prompt].ids, tokens[*prompt].instruction_tokens);
            assert_eq!(lengths[row], wanted.len() as i64);
            for (position, id) in wanted.iter().enumerate() {
                assert_eq!((ids[token], positions[token]), (i64::from(*id), position as i64));
                assert_eq!((pooled[token], row_ids[token]), (i64::from(position >= skipped), row as i64));
                assert_eq!(token_of_position[row * length + position], token as i64);
                assert_eq!(position_of_token[token], (row * length + position) as i64);
                token += 1;
            }
            assert!(embeddings.row(*prompt).iter().all(|value| *value == (row + 1) as f32), "prompt {prompt}");
        }
        assert!(pooled[token..].iter().all(|pooled| *pooled == 0), "padding is not pooled");
        assert_eq!(lengths[3], 1, "a row of padding has one token");
    });
}

#[test]
fn warm_up_records_the_small_shapes_and_later_calls_record_nothing() {
    on_shim("warm_up_records_the_small_shapes_and_later_calls_record_nothing", &[FINITE], || {
        let small = options(|gpu| {
            gpu.sequence_buckets = vec![16, 32];
            gpu.batch_buckets = vec![1, 4];
        });
        let embedder = Embedder::open(mini("cuda-fp16"), &small).unwrap();
        let shapes = embedder.warm_up(&EmbedOptions::default()).unwrap();
        let before = counts();
        for texts in [&["short"][..], &["two", "texts"], &["a b c d e f g h i j k l m n o p q r", "x"], &["x"; 4]] {
            embed(&embedder, texts).unwrap();
        }
        let after = since(before);
        assert_eq!((after.captures, after.allocations, after.graph_launches), (0, 0, 4), "{shapes}: {after:?}");
    });
}

#[test]
fn int8_and_int4_run_with_float16_activations_only() {
    for precision in ["int8", "int4"] {
        let error = Embedder::open(mini(precision), &options(|_| {})).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider);
        assert!(error.to_string().contains("activations are float32"), "{error}");
        assert!(error.to_string().contains("--target cuda"), "{error}");
    }
}

#[test]
fn quantized_products_use_the_kernel_that_was_asked_for() {
    on_shim("quantized_products_use_the_kernel_that_was_asked_for", &[FINITE], || {
        for precision in ["cuda-int8", "cuda-int4"] {
            let kernels = |fpa_intb_gemm| {
                let chosen = options(|gpu| gpu.fpa_intb_gemm = fpa_intb_gemm);
                let embedder = Embedder::open(mini(precision), &chosen).unwrap();
                shim::launched();
                embedder.embed(&passages(&["a text of some words"; 8]), &EmbedOptions::default()).unwrap();
                shim::launched().into_iter().filter(|name| name.to_lowercase().contains("fpaintb")).count()
            };
            let (without, with) = (kernels(false), kernels(true));
            assert!(without == 0 && with > 0, "{precision}: {without} and {with} kernels");
        }
    });
}
