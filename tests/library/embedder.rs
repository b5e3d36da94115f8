//! The library as a service uses it, on the mini model.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{BATCH_INVARIANCE, difference, embed_options, mini, model_options, open};
use ndarray::Array2;
use nvembed::{CancelToken, Dtype, EmbedOptions, Embedder, ErrorKind, ModelOptions, Prompt, Rows};

const TASK: &str = "Given a question, retrieve passages that answer the question";

/// Texts of very different lengths, with and without instruction.
fn prompts() -> Vec<Prompt<'static>> {
    (0..60)
        .map(|index| {
            let text = format!("text {index}: {}", "rain falls on the plain ".repeat(index % 13));
            if index % 3 == 0 { Prompt::query(TASK, text) } else { Prompt::passage(text) }
        })
        .collect()
}

fn embed(embedder: &Embedder, prompts: &[Prompt<'_>], options: &EmbedOptions) -> Array2<f32> {
    embedder.embed(prompts, options).unwrap().to_f32()
}

#[test]
fn rows_come_in_input_order_and_do_not_depend_on_the_plan() {
    let embedder = open("fp32");
    let prompts = prompts();
    let reference = embed(&embedder, &prompts, &EmbedOptions::default());
    for (budget, max_batch_size) in [(1, 1), (64, 3), (300, 256), (1 << 20, 8192)] {
        let max_batch_tokens = Some(budget);
        let options = embed_options(|options| {
            options.max_batch_tokens = max_batch_tokens;
            options.max_batch_size = max_batch_size;
        });
        let found = difference(&embed(&embedder, &prompts, &options), &reference);
        assert!(found <= BATCH_INVARIANCE, "budget {budget}, {max_batch_size} rows: {found}");
    }
    for (index, prompt) in prompts.iter().enumerate() {
        let alone = embed(&embedder, std::slice::from_ref(prompt), &EmbedOptions::default());
        let row = reference.slice(ndarray::s![index..=index, ..]).to_owned();
        assert!(difference(&alone, &row) <= BATCH_INVARIANCE, "row {index}");
    }
}

#[test]
fn rows_of_different_lengths_share_a_run_without_padding_in_a_model_for_the_cpu() {
    let texts = [4, 40, 9, 70, 2].map(|words| Prompt::passage("river ".repeat(words)));
    let stats = |precision| *open(precision).embed(&texts, &EmbedOptions::default()).unwrap().stats();
    let [cpu, any] = ["cpu-fp32", "fp32"].map(stats);
    assert_eq!((cpu.batches, cpu.padded_tokens, cpu.padding_waste()), (1, cpu.tokens, 0.0));
    assert!(any.batches > 1, "padding would cost more than a run: {any:?}");
    let options = embed_options(|options| options.max_batch_size = 2);
    assert_eq!(open("cpu-fp32").embed(&texts, &options).unwrap().stats().batches, 3);
}

#[test]
fn packed_tokens_give_the_golden_embeddings_together_and_alone() {
    for name in ["cuda-fp32", "cuda-fp16"] {
        let embedder = open(name);
        let golden = nvembed::model::Golden::open(embedder.manifest()).unwrap().unwrap();
        let prompts: Vec<_> = golden.rows().iter().map(|row| row.prompt()).collect();
        let all = embed_options(|options| options.max_batch_tokens = Some(1 << 16));
        let together = embedder.embed(&prompts, &all).unwrap();
        assert!(together.stats().batches < prompts.len(), "rows of different lengths share a run");
        for (index, row) in golden.rows().iter().enumerate() {
            let alone = embedder.embed(&prompts[index..=index], &all).unwrap().to_f32();
            for found in [together.to_f32().row(index).to_vec(), alone.row(0).to_vec()] {
                let deviation = nvembed::model::Deviation::between(&found, &row.embedding);
                assert!(
                    embedder.manifest().precision().tolerance().allows(deviation),
                    "{name}, {index}: {deviation:?}"
                );
            }
        }
    }
}

#[test]
fn batches_have_1024_tokens_unless_the_call_says_otherwise() {
    let embedder = open("fp32");
    let texts = vec![Prompt::passage("river ".repeat(200)); 9];
    let stats = |max_batch_tokens| {
        let options = embed_options(|options| options.max_batch_tokens = max_batch_tokens);
        *embedder.embed(&texts, &options).unwrap().stats()
    };
    let length = stats(None).tokens / texts.len();
    assert!((128..1024).contains(&length), "{length}");
    assert_eq!(stats(None).batches, texts.len().div_ceil(1024 / length));
    assert_eq!([length, 9 * length].map(|tokens| stats(Some(tokens)).batches), [9, 1]);
}

#[test]
fn rows_are_unit_vectors_with_their_token_counts() {
    let embedder = open("fp32");
    let prompts = prompts();
    let embeddings = embedder.embed(&prompts, &EmbedOptions::default()).unwrap();
    assert_eq!((embeddings.len(), embeddings.dim(), embedder.dim()), (60, 256, 256));
    for row in embeddings.to_f32().rows() {
        assert!((row.dot(&row).sqrt() - 1.0).abs() < 1e-5);
    }
    let ids = embedder.tokenize(&prompts, &EmbedOptions::default()).unwrap();
    let counts: Vec<_> = ids.iter().map(|tokens| tokens.ids.len()).collect();
    assert_eq!(embeddings.token_counts(), counts);
    assert_eq!(embeddings.stats().tokens, counts.iter().sum::<usize>());
    assert!(embeddings.truncated().iter().all(|truncated| !truncated));
}

#[test]
fn the_instruction_changes_the_embedding_and_is_not_pooled() {
    let embedder = open("fp32");
    let text = "how do plants eat?";
    let prompts = [Prompt::passage(text), Prompt::query(TASK, text), Prompt::with_instruction("", text)];
    let rows = embed(&embedder, &prompts, &EmbedOptions::default());
    assert!(rows.row(0).dot(&rows.row(1)) < 0.999);
    assert_eq!(rows.row(0), rows.row(2), "an empty instruction is none");
}

#[test]
fn truncated_texts_are_reported_row_by_row() {
    let options = embed_options(|options| options.max_length = Some(16));
    let long = "rain ".repeat(50);
    let prompts = [Prompt::passage("short"), Prompt::passage(&*long), Prompt::passage("short again")];
    let embeddings = open("fp32").embed(&prompts, &options).unwrap();
    assert_eq!(embeddings.truncated(), [false, true, false]);
    assert_eq!(embeddings.token_counts()[1], 16);
}

#[test]
fn a_stream_and_a_call_return_the_same_rows_in_every_type_and_width() {
    let (embedder, prompts) = (open("fp32"), prompts());
    let whole = embed(&embedder, &prompts, &EmbedOptions::default());
    for &dtype in Dtype::ALL {
        for dimensions in [None, Some(1), Some(37), Some(256)] {
            let options = embed_options(|options| (options.dtype, options.dimensions) = (dtype, dimensions));
            let embeddings = embedder.embed(&prompts, &options).unwrap();
            let dim = dimensions.unwrap_or(256);
            assert_eq!((embeddings.rows().shape(), embeddings.dim()), ((60, dim), dim));
            assert_eq!(embeddings.rows().dtype(), dtype);
            let stream = embedder.embed_iter(prompts.iter().cloned().enumerate(), &options).unwrap();
            for (index, row) in stream {
                assert_eq!(row.unwrap().values, embeddings.rows().row(index), "{dtype}, {dimensions:?}, row {index}");
            }
            // Half a step of the largest number's 127th, or the eleven bits of a half; a sign says only which way.
            let found = embeddings.to_f32();
            for (row, wide) in found.rows().into_iter().zip(whole.rows()) {
                let cut = wide.slice(ndarray::s![..dim]).to_owned();
                let cut = &cut / cut.dot(&cut).sqrt();
                let largest = cut.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
                for (found, value) in row.iter().zip(&cut) {
                    match dtype {
                        Dtype::Int8 => assert!((found - value).abs() <= 0.501 * largest / 127.0),
                        Dtype::Binary => assert_eq!(*found > 0.0, *value > 0.0),
                        _ => assert!((found - value).abs() <= 5e-4 * value.abs() + 1e-7, "{found} for {value}"),
                    }
                }
            }
        }
    }
    for dimensions in [0, 257] {
        let options = embed_options(|options| options.dimensions = Some(dimensions));
        let error = embedder.embed(&prompts, &options).unwrap_err();
        assert_eq!(error.to_string(), format!("`dimensions` must be 1 to 256, got {dimensions}"));
    }
}

#[test]
fn half_precision_output_is_the_rounded_one() {
    let prompts = prompts();
    for precision in ["fp32", "fp16"] {
        let embedder = open(precision);
        let single = embed(&embedder, &prompts, &EmbedOptions::default());
        let options = embed_options(|options| options.dtype = Dtype::F16);
        let half = embedder.embed(&prompts, &options).unwrap();
        let Rows::F16(view) = half.rows() else { unreachable!("asked for 16 bits") };
        assert_eq!(view.dim(), (60, 256));
        assert_eq!(half.to_f32(), single.mapv(|value| f32::from(half::f16::from_f32(value))), "{precision}");
    }
}

#[test]
fn a_stream_takes_prompts_from_any_source() {
    let embedder = open("fp32");
    let (sender, receiver) = std::sync::mpsc::channel();
    (0..3).for_each(|index| sender.send(Prompt::passage(format!("text {index}"))).unwrap());
    drop(sender);
    assert_eq!(embedder.embed_iter(receiver.into_iter().enumerate(), &EmbedOptions::default()).unwrap().count(), 3);
    let boxed: Box<dyn Iterator<Item = ((), Prompt<'static>)>> =
        Box::new(std::iter::repeat_n(((), Prompt::passage("text")), 5));
    let options = embed_options(|options| options.window = 2);
    assert_eq!(embedder.embed_iter(boxed, &options).unwrap().count(), 5);
}

#[test]
fn what_a_service_shares_between_threads_is_send_and_sync() {
    fn shareable<T: Send + Sync>() {}
    shareable::<Embedder>();
    shareable::<nvembed::Embeddings>();
    shareable::<nvembed::Error>();
    shareable::<nvembed::onnxruntime::Library>();
}

#[test]
fn no_prompts_make_no_rows() {
    let embeddings = open("fp32").embed(&[], &EmbedOptions::default()).unwrap();
    assert!(embeddings.is_empty() && embeddings.to_f32().dim() == (0, 256));
}

#[test]
fn many_threads_share_one_embedder() {
    let embedder = open("fp32");
    let prompts = prompts();
    let reference = embed(&embedder, &prompts, &EmbedOptions::default());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (embedder, prompts, reference) = (&embedder, &prompts, &reference);
            scope.spawn(move || {
                let some: Vec<_> = prompts.iter().skip(thread).step_by(3).cloned().collect();
                let wanted = reference.slice(ndarray::s![thread..;3, ..]).to_owned();
                for _ in 0..3 {
                    let found = embed(embedder, &some, &EmbedOptions::default());
                    assert!(difference(&found, &wanted) <= BATCH_INVARIANCE);
                }
            });
        }
    });
}

#[test]
fn an_endless_stream_is_embedded_with_bounded_reading_ahead() {
    let embedder = open("fp32");
    let read = AtomicUsize::new(0);
    let endless = (0..).map(|index: usize| {
        read.fetch_add(1, Ordering::Relaxed);
        Prompt::passage(format!("number {}", index % 7))
    });
    let rows: Vec<_> = embedder.embed_iter(endless.enumerate(), &EmbedOptions::default()).unwrap().take(5000).collect();
    assert!(read.load(Ordering::Relaxed) <= 5000 + 1024, "{read:?} prompts read for 5000 results");
    for (index, (number, row)) in rows.iter().enumerate() {
        assert_eq!(*number, index);
        let row = row.as_ref().unwrap();
        let gap = |(one, other): (&f32, &f32)| (one - other).abs();
        let (row, first) = (row.values.to_f32(), rows[index % 7].1.as_ref().unwrap().values.to_f32());
        let worst = row.iter().zip(&first).map(gap).fold(0.0, f32::max);
        assert!(worst <= BATCH_INVARIANCE, "row {index}: {worst}");
    }
}

#[test]
fn a_bad_prompt_in_a_stream_fails_in_its_place_and_the_others_go_on() {
    let embedder = open("fp32");
    let options = embed_options(|options| options.max_length = Some(24));
    let long_instruction = "follow this rather long rule ".repeat(9);
    let prompts = (0..10).map(|index| match index % 4 {
        3 => Prompt::with_instruction(&*long_instruction, "text"),
        _ => Prompt::passage(format!("text {index}")),
    });
    let results: Vec<_> = embedder.embed_iter(prompts.enumerate(), &options).unwrap().collect();
    assert_eq!(results.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    for (index, result) in &results {
        match result {
            Ok(_) => assert_ne!(index % 4, 3),
            Err(error) => assert_eq!((index % 4, error.kind()), (3, ErrorKind::Input)),
        }
    }
}

#[test]
fn a_batch_whose_attention_scores_do_not_fit_is_refused_before_it_is_run() {
    // As if the model had that many heads: the graph is never asked.
    let copy = crate::common::mini_copy();
    crate::common::change_manifest(copy.path(), "/architecture/num_attention_heads", (1_u64 << 24).into());
    let embedder = Embedder::open(copy.path(), &ModelOptions::default()).unwrap();
    let error = embedder.embed(&[Prompt::passage("rain ".repeat(40))], &EmbedOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLong);
    let message = error.to_string();
    assert!(message.starts_with("prompt 0: a row of") && message.contains("GiB are left of the memory"), "{message}");
    // In a stream only the long row fails.
    let prompts = [Prompt::passage("rain"), Prompt::passage("rain ".repeat(40)), Prompt::passage("snow")];
    let prompts = prompts.into_iter().enumerate();
    let results: Vec<_> = embedder.embed_iter(prompts, &EmbedOptions::default()).unwrap().collect();
    assert_eq!(results.iter().map(|(_, result)| result.is_ok()).collect::<Vec<_>>(), [true, false, true]);
    crate::common::change_manifest(copy.path(), "/graph/target", "cpu".into());
    let embedder = Embedder::open(copy.path(), &ModelOptions::default()).unwrap();
    assert!(embedder.embed(&[Prompt::passage("rain ".repeat(40))], &EmbedOptions::default()).is_ok());
}

#[test]
fn options_out_of_range_name_the_value_and_the_limits() {
    let embedder = open("fp32");
    let table = [
        (embed_options(|options| options.max_length = Some(0)), "`max_length` must be 1 to 4096, got 0"),
        (embed_options(|options| options.max_length = Some(4097)), "`max_length` must be 1 to 4096, got 4097"),
        (embed_options(|options| options.max_batch_tokens = Some(0)), "`max_batch_tokens` must be 1 to 1048576, got 0"),
        (embed_options(|options| options.max_batch_tokens = Some(usize::MAX)), "must be 1 to 1048576"),
        (embed_options(|options| options.max_batch_size = 0), "`max_batch_size` must be 1 to 8192, got 0"),
        (
            embed_options(|options| options.max_batch_size = 1 << 40),
            "`max_batch_size` must be 1 to 8192, got 1099511627776",
        ),
    ];
    for (options, message) in table {
        let error = embedder.embed(&[Prompt::passage("x")], &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Option);
        assert!(error.to_string().contains(message), "{error}");
    }
    let options = model_options(|options| options.intra_threads = Some(0));
    assert_eq!(Embedder::open(mini("fp32"), &options).unwrap_err().kind(), ErrorKind::Option);
}

#[test]
fn a_bad_prompt_of_a_call_is_named_by_its_number() {
    let prompts = [Prompt::passage("good"), Prompt::query(TASK, "who?")];
    let options = embed_options(|options| options.max_length = Some(10));
    let error = open("fp32").embed(&prompts, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().starts_with("prompt 1: the instruction has more than 10 tokens"), "{error}");
}

#[test]
fn a_word_of_a_million_characters_is_embedded_or_refused_by_policy() {
    let embedder = open("fp32");
    let word = "a".repeat(1_000_000);
    let prompt = [Prompt::passage(&*word)];
    let options = embed_options(|options| options.max_length = Some(128));
    assert_eq!(embedder.embed(&prompt, &options).unwrap().token_counts(), [128]);
    let options = embed_options(|options| {
        options.max_length = Some(128);
        options.truncation = nvembed::Truncation::Error;
    });
    assert_eq!(embedder.embed(&prompt, &options).unwrap_err().kind(), ErrorKind::TooLong);
}

#[test]
fn a_cancelled_token_ends_its_calls_and_no_others() {
    let embedder = open("fp32");
    let cancel = CancelToken::new();
    let options = embed_options(|options| options.cancel = Some(cancel.clone()));
    let reference = embed(&embedder, &prompts(), &EmbedOptions::default());
    assert_eq!(embed(&embedder, &prompts(), &options), reference, "a token that is not cancelled changes nothing");
    cancel.cancel();
    let error = embedder.embed(&prompts(), &options).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Cancelled, "the call was cancelled"));
    assert_eq!(embedder.embed(&[], &options).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(embedder.tokenize(&prompts(), &options).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(embed(&embedder, &prompts(), &EmbedOptions::default()), reference);
}

#[test]
fn a_stream_that_is_cancelled_yields_what_it_had_and_then_the_error() {
    let embedder = open("fp32");
    let cancel = CancelToken::new();
    let options = embed_options(|options| {
        options.cancel = Some(cancel.clone());
        options.window = 4;
    });
    let mut stream = embedder.embed_iter(prompts().into_iter().enumerate(), &options).unwrap();
    assert!(stream.next().unwrap().1.is_ok());
    cancel.cancel();
    let kinds: Vec<_> = stream.map(|(_, row)| row.err().map(|error| error.kind())).collect();
    assert_eq!(kinds[..3], [None; 3], "the rest of the window was embedded already");
    assert_eq!(kinds[3..], vec![Some(ErrorKind::Cancelled); 56]);
}

#[test]
fn a_run_in_flight_is_stopped_and_forgotten() {
    let embedder = open("fp32");
    let cancel = CancelToken::new();
    // One run, of seconds: were it not stopped, the call would succeed.
    let options = embed_options(|options| {
        options.max_batch_tokens = Some(1 << 20);
        options.max_batch_size = 8192;
        options.cancel = Some(cancel.clone());
    });
    let text = "rain falls on the plain ".repeat(16);
    let prompts = vec![Prompt::passage(text.as_str()); 1000];
    let runs = |wanted: usize| format!("{cancel:?}").contains(&format!("runs: {wanted}"));
    let outcome = std::thread::scope(|scope| {
        let call = scope.spawn(|| embedder.embed(&prompts, &options));
        while !runs(1) && !call.is_finished() {
            std::thread::yield_now();
        }
        cancel.cancel();
        call.join().unwrap()
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(runs(0), "{cancel:?}");
    assert!(
        embedder.embed(&prompts[..1], &EmbedOptions::default()).is_ok(),
        "the session is whole after a stopped run"
    );
}

#[test]
fn a_cause_is_the_errors_source_and_stands_in_its_report() {
    use std::error::Error;
    let copy = crate::common::mini_copy();
    std::fs::write(copy.path().join("tokenizer.json"), "{").unwrap();
    let error = Embedder::open(copy.path(), &ModelOptions::default()).unwrap_err();
    let cause = error.source().unwrap().to_string();
    assert!(!error.to_string().contains(&cause), "{error}: {cause}");
    assert_eq!(error.report(str::to_owned), format!("{error}: {cause}"));
}

#[test]
fn tokens_are_those_that_a_call_runs() {
    let embedder = open("fp32");
    let prompts = [Prompt::query(TASK, "who wrote the odyssey?"), Prompt::passage("rain ".repeat(60))];
    let options = embed_options(|options| options.max_length = Some(32));
    let tokens = embedder.tokenize(&prompts, &options).unwrap();
    assert_eq!((tokens[0].instruction_tokens, tokens[0].truncated), (18, false));
    assert_eq!((tokens[1].instruction_tokens, tokens[1].truncated, tokens[1].ids.len()), (0, true, 32));
    let bad = [prompts[0].clone(), Prompt::with_instruction("rule ".repeat(99), "x")];
    let error = embedder.tokenize(&bad, &options).unwrap_err();
    assert!(error.to_string().starts_with("prompt 1: the instruction has more than 32 tokens"), "{error}");
}
