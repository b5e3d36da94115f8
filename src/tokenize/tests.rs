//! Tokenization against the Hugging Face tokenizer run on the whole text, and the rules of truncation.

use std::cell::Cell;

use super::*;
use crate::options::CancelToken;

thread_local! {
    /// Bytes given to the tokenizer by this thread: what the work on long texts is measured by.
    pub(super) static TOKENIZED_BYTES: Cell<usize> = const { Cell::new(0) };
}

fn tokenizer() -> Tokenizer {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/nv-embed-mini/tokenizer.json");
    Tokenizer::new(HfTokenizer::from_file(path).unwrap(), 2)
}

/// What never ends a call.
static NEVER: Stop = Stop { deadline: None, cancel: None };

fn limits(max_length: usize) -> Limits<'static> {
    Limits { max_length, truncation: Truncation::Reference, special_tokens: SpecialTokens::Parse, stop: &NEVER }
}

fn encode_one(tokenizer: &Tokenizer, prompt: &Prompt<'_>, limits: Limits<'_>) -> Result<Encoding> {
    tokenizer.encode(std::slice::from_ref(prompt), limits).unwrap().pop().unwrap()
}

/// What the reference does: the whole string, then cut.
fn whole(tokenizer: &Tokenizer, prompt: &Prompt<'_>, max_length: usize) -> Vec<u32> {
    let string = [prompt.instruction(), prompt.text(), SUFFIX].concat();
    let mut ids = tokenizer.parsing.encode_fast(string, true).unwrap().get_ids().to_vec();
    ids.truncate(max_length);
    ids
}

/// Long texts of many kinds, made of `unit` characters of an alphabet in a fixed pseudo-random order.
fn long_texts() -> Vec<String> {
    let alphabets: [&[&str]; 9] = [
        &["the ", "quick ", "brown ", "fox, ", "jumps. ", "over-", "lazy\n", "Straße "],
        &["a", "b", " ", "  ", "   "],
        &["あ", "い", "漢", "字", "。", "ー", "カ", "タ"],
        &["م", "ر", "ح", "ب", "ا", " ", "ب"],
        &["😀", "👩‍👩‍👧", "🏳️‍🌈", "x", "é", "e\u{301}"],
        &["</s>", "<s>", "<", "/", "s", ">", "</", " </s> ", "a"],
        &["\u{2581}", " ", "\n", "\t", "\r\n", "\u{a0}", "\u{3000}", "\0", "w"],
        &["0", "1", "2", "3.14", ",", "1e-9 ", "=", "==", "----", "____"],
        &["A", "C", "G", "T"],
    ];
    let mut state = 7_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    alphabets.iter().map(|alphabet| (0..6000).map(|_| alphabet[next(alphabet.len())]).collect()).collect()
}

#[test]
fn the_start_of_a_long_text_has_the_ids_of_the_whole() {
    let tokenizer = tokenizer();
    assert!(tokenizer.cutter.is_some(), "the committed tokenizer is of the known kind");
    for text in long_texts() {
        for instruction in ["", "Instruct: find\nQuery: "] {
            let prompt = Prompt::with_instruction(instruction, &*text);
            for max_length in [1, 2, 3, 17, 64, 100, 255, 256, 1000, 3000] {
                let (ids, truncated) = tokenizer.ids(&prompt, 0, limits(max_length)).unwrap();
                assert!(ids == whole(&tokenizer, &prompt, max_length), "max_length {max_length}: {:?}", &text[..20]);
                assert_eq!(ids.len(), max_length);
                assert!(truncated);
            }
        }
    }
}

#[test]
fn at_every_boundary_the_ids_before_it_are_the_first_ids_of_the_whole() {
    let tokenizer = tokenizer();
    let cutter = tokenizer.cutter.as_ref().unwrap();
    let ids = |text: &str| tokenizer.parsing.encode_fast(text, true).unwrap().get_ids().to_vec();
    let specials = "in <unk> and<unk>, or k>x <unk>".to_owned();
    for text in long_texts().into_iter().map(|text| text.chars().take(1500).collect()).chain([specials]) {
        let text: String = text;
        let whole = ids(&text);
        let mut boundaries = 0;
        let mut from = 1;
        while let Cut::Safe(end) = cutter.cut(&text, from) {
            let start = ids(&text[..end]);
            assert!(whole.starts_with(&start), "cut at {end} of {:?}", &text[..end.min(80)]);
            boundaries += 1;
            from = end + 1;
        }
        println!("{boundaries} boundaries in {} bytes", text.len());
    }
}

#[test]
fn a_cut_text_that_almost_fits_is_not_called_truncated() {
    let tokenizer = tokenizer();
    for text in long_texts() {
        let prompt = Prompt::passage(&*text);
        let length = whole(&tokenizer, &prompt, usize::MAX).len();
        for (max_length, expected) in [(length - 1, true), (length, false), (length + 1, false)] {
            let (ids, truncated) = tokenizer.ids(&prompt, 0, limits(max_length)).unwrap();
            assert_eq!((ids.len(), truncated), (length.min(max_length), expected));
        }
    }
}

#[test]
fn a_text_of_50_megabytes_costs_no_more_than_what_is_kept() {
    let tokenizer = tokenizer();
    let text = "Sphinx of black quartz, judge my vow; 漢字 too. ".repeat(1 << 20);
    assert!(text.len() > 50_000_000);
    TOKENIZED_BYTES.set(0);
    let (ids, truncated) = tokenizer.ids(&Prompt::passage(&*text), 0, limits(512)).unwrap();
    assert!(truncated);
    let kept = tokenizer.parsing.decode(&ids, true).unwrap().len();
    let tokenized = TOKENIZED_BYTES.replace(0);
    assert!(tokenized <= 4 * kept, "tokenized {tokenized} bytes to keep {kept}");
    let from_the_end = Limits { truncation: Truncation::Start, ..limits(512) };
    assert!(tokenizer.ids(&Prompt::passage(&*text), 0, from_the_end).unwrap().1);
    let tokenized = TOKENIZED_BYTES.get();
    assert!(tokenized <= 8 * kept, "tokenized {tokenized} bytes to keep {kept} of the end");
    assert_eq!(ids, whole(&tokenizer, &Prompt::passage(&text[..100_000]), 512));
}

#[test]
fn without_their_start_long_texts_have_the_last_ids_of_the_whole() {
    let tokenizer = tokenizer();
    for text in long_texts() {
        for instruction in ["", "Instruct: find\nQuery: "] {
            let prompt = Prompt::with_instruction(instruction, &*text);
            let n = tokenizer.instruction_tokens(instruction, limits(4000)).unwrap();
            for special_tokens in [SpecialTokens::Parse, SpecialTokens::Literal] {
                let whole = tokenizer.ids_of_whole(&prompt, Limits { special_tokens, ..limits(4000) }).unwrap();
                for max_length in [n + 1, n + 2, n + 17, 64, 100, 256, 1000, 3000, whole.len() - 1] {
                    let limits = Limits { max_length, truncation: Truncation::Start, special_tokens, stop: &NEVER };
                    let (ids, truncated) = tokenizer.ids(&prompt, n, limits).unwrap();
                    let kept = n.max(1);
                    assert!(truncated);
                    assert_eq!(ids.len(), max_length);
                    assert_eq!(ids[..kept], whole[..kept]);
                    let end = &whole[whole.len() - (max_length - kept)..];
                    assert!(ids[kept..] == *end, "max_length {max_length}: {:?}", &text[text.len() - 20..]);
                }
            }
        }
    }
}

#[test]
fn at_every_boundary_the_ids_behind_it_are_the_last_ids_of_the_whole() {
    let tokenizer = tokenizer();
    let cutter = tokenizer.cutter.as_ref().unwrap();
    let ids = |text: &str| tokenizer.parsing.encode_fast(text, true).unwrap().get_ids().to_vec();
    let specials = "in <unk> and<unk>, or k>x <unk>or </s>\u{2581}x</s> y".to_owned();
    for text in long_texts().into_iter().map(|text| text.chars().take(1500).collect()).chain([specials]) {
        let text: String = text;
        let whole = ids(&text);
        let mut from = 1;
        while let Cut::Safe(start) = cutter.cut(&text, from) {
            let before = cutter.before(&text, start);
            let end = ids(&text[start - before.len()..]).split_off(ids(before).len());
            assert!(whole.ends_with(&end), "cut at {start} of {:?}", &text[..start.min(80)]);
            from = start + 1;
        }
    }
}

#[test]
fn truncation_policies_differ_only_in_the_end() {
    let tokenizer = tokenizer();
    let prompt = Prompt::passage("one two three four five six seven eight nine ten");
    let with = |truncation| encode_one(&tokenizer, &prompt, Limits { truncation, ..limits(6) });
    let reference = with(Truncation::Reference).unwrap();
    let keep_eos = with(Truncation::KeepEos).unwrap();
    assert!(reference.truncated() && keep_eos.truncated());
    assert_ne!(reference.ids()[5], 2);
    assert_eq!(keep_eos.ids()[5], 2);
    assert_eq!(reference.ids()[..5], keep_eos.ids()[..5]);
    let start = with(Truncation::Start).unwrap();
    let whole = encode_one(&tokenizer, &prompt, limits(99)).unwrap();
    assert!(start.truncated());
    assert_eq!(start.ids(), [&whole.ids()[..1], &whole.ids()[whole.ids().len() - 5..]].concat());
    let error = with(Truncation::Error).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLong);
    assert!(error.to_string().contains("more than 6 tokens"), "{error}");
}

#[test]
fn special_tokens_in_texts_are_parsed_unless_asked_for_as_text() {
    let tokenizer = tokenizer();
    let prompt = Prompt::passage("a</s>b");
    let with = |special_tokens| encode_one(&tokenizer, &prompt, Limits { special_tokens, ..limits(99) }).unwrap();
    let count = |encoding: &Encoding| encoding.ids().iter().filter(|id| **id == 2).count();
    assert_eq!(count(&with(SpecialTokens::Parse)), 2);
    let literal = with(SpecialTokens::Literal);
    assert_eq!(count(&literal), 1, "only the closing one");
    assert_eq!(literal.ids().last(), Some(&2));
    assert_eq!(tokenizer.parsing.decode(literal.ids(), true).unwrap(), "a</s>b");
}

#[test]
fn plain_texts_have_the_same_ids_in_both_readings() {
    let tokenizer = tokenizer();
    for text in ["", " ", "hello world", "ends with <", "ends with </s", "ünï \u{2581} cødé\0"] {
        let prompt = Prompt::query("find", text);
        let with = |special_tokens| encode_one(&tokenizer, &prompt, Limits { special_tokens, ..limits(99) }).unwrap();
        assert_eq!(with(SpecialTokens::Parse), with(SpecialTokens::Literal), "{text:?}");
    }
}

#[test]
fn the_model_cards_instruction_masks_18_positions_up_to_its_colon() {
    let tokenizer = tokenizer();
    let prompt = Prompt::query("Given a question, retrieve passages that answer the question", "who?");
    let encoding = encode_one(&tokenizer, &prompt, limits(512)).unwrap();
    assert_eq!(encoding.instruction_tokens(), 18);
    let last = encoding.ids()[17];
    assert_eq!(tokenizer.parsing.id_to_token(last).as_deref(), Some(":"));
}

#[test]
fn an_instruction_that_leaves_nothing_to_pool_is_an_error_naming_both_lengths() {
    let tokenizer = tokenizer();
    let prompt = Prompt::query("Given a question, retrieve passages that answer the question", "who?");
    for (max_length, is_good) in [(18, false), (19, true)] {
        match encode_one(&tokenizer, &prompt, limits(max_length)) {
            Ok(encoding) => assert!(is_good && encoding.ids().len() == 19),
            Err(error) => {
                assert!(!is_good);
                assert_eq!(error.kind(), ErrorKind::Input);
                assert!(error.to_string().contains("18 tokens and the whole row 18"), "{error}");
            }
        }
    }
}

#[test]
fn a_huge_instruction_costs_no_more_than_the_row() {
    let tokenizer = tokenizer();
    let instruction = "follow this rule, and that one. ".repeat(100_000);
    TOKENIZED_BYTES.set(0);
    assert!(tokenizer.instruction_tokens(&instruction, limits(64)).unwrap() >= 64);
    assert!(TOKENIZED_BYTES.get() < 64 * 100, "{} bytes tokenized", TOKENIZED_BYTES.get());
    let prompt = Prompt::with_instruction(&*instruction, "text");
    let error = encode_one(&tokenizer, &prompt, limits(64)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains("tokens and the whole row 64 after truncation"), "{error}");
}

#[test]
fn an_empty_text_is_legal() {
    let tokenizer = tokenizer();
    assert_eq!(encode_one(&tokenizer, &Prompt::passage(""), limits(9)).unwrap().ids(), [1, 2]);
    assert!(encode_one(&tokenizer, &Prompt::query("find", ""), limits(99)).is_ok());
}

#[test]
fn a_cut_never_goes_through_a_special_token_or_a_pair_of_the_vocabulary() {
    let tokenizer = tokenizer();
    let cutter = tokenizer.cutter.as_ref().unwrap();
    assert_eq!(cutter.cut("ab</s>cd ef", 3), Cut::Safe(6), "behind the special token");
    assert_eq!(cutter.cut("the end", 1), Cut::Safe(3), "before the space");
    assert_eq!(cutter.cut("thethe", 1), Cut::End);
    assert_eq!(cutter.cut("short", 100), Cut::End);
    assert_eq!(cutter.cut("", 0), Cut::End);
    assert!(matches!(cutter.cut(&"the".repeat(10_000), 7), Cut::Unknown(place) if place > 7));
}

/// Stretches in which no two neighbours allow a cut, each of about `bytes` bytes.
fn stretches(bytes: usize) -> Vec<String> {
    let parts =
        ["a", " ", "\u{2581}", "the", "ab", "0", "=-", "://www.", "ere", "in", "</s", "<", "<s", "漢", "\t", "  a"];
    let mut texts: Vec<String> = parts.iter().map(|part| part.repeat(bytes / part.len())).collect();
    // Letters in no order, so that no period helps.
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for letters in ["ab", "etaoin", "acgt", "lL1", "thean"] {
        let letters: Vec<char> = letters.chars().collect();
        texts.push((0..bytes).map(|_| letters[random(letters.len())]).collect());
    }
    // Special tokens in the middle of a stretch, whole and broken.
    texts.push(format!("{}</s>{}<s></s", "a".repeat(bytes / 3), "aa</s>".repeat(bytes / 9)));
    texts
}

#[test]
fn a_stretch_without_a_safe_cut_gives_the_ids_of_the_whole() {
    let tokenizer = tokenizer();
    for text in stretches(30_000) {
        for (text, instruction) in
            [(text.clone(), "Instruct: find\nQuery: "), (format!("Some words. {text}{text}"), "")]
        {
            let prompt = Prompt::with_instruction(instruction, &*text);
            let n = tokenizer.instruction_tokens(instruction, limits(4000)).unwrap();
            for special_tokens in [SpecialTokens::Parse, SpecialTokens::Literal] {
                let whole = tokenizer.ids_of_whole(&prompt, Limits { special_tokens, ..limits(4000) }).unwrap();
                for max_length in [n + 2, 64, 333] {
                    let limits = Limits { max_length, special_tokens, ..limits(max_length) };
                    let (start, _) = tokenizer.ids(&prompt, n, limits).unwrap();
                    assert_eq!(start, whole[..max_length], "{max_length} {special_tokens:?} {:?}", &text[..12]);
                    let limits = Limits { truncation: Truncation::Start, ..limits };
                    let (end, _) = tokenizer.ids(&prompt, n, limits).unwrap();
                    let kept = n.max(1);
                    let wanted = &whole[whole.len() - (max_length - kept)..];
                    assert!(end[kept..] == *wanted, "{max_length} {special_tokens:?} {:?}", &text[..12]);
                }
            }
        }
    }
}

#[test]
fn a_stretch_without_a_safe_cut_costs_no_more_than_the_row() {
    let tokenizer = tokenizer();
    for text in stretches(1 << 20) {
        TOKENIZED_BYTES.set(0);
        let (ids, truncated) = tokenizer.ids(&Prompt::passage(&*text), 0, limits(64)).unwrap();
        assert!(truncated && ids.len() == 64);
        let tokenized = TOKENIZED_BYTES.get();
        assert!(tokenized < 1 << 15, "{tokenized} bytes tokenized of {:?}", &text[..9]);
    }
}

#[test]
fn a_call_that_has_to_end_ends_while_it_tokenizes() {
    let tokenizer = tokenizer();
    let cancel = CancelToken::new();
    let stop = Stop { deadline: None, cancel: Some(cancel.clone()) };
    let prompts = vec![Prompt::passage("a text"); 3];
    assert!(tokenizer.encode(&prompts, Limits { stop: &stop, ..limits(64) }).is_ok());
    cancel.cancel();
    let error = tokenizer.encode(&prompts, Limits { stop: &stop, ..limits(64) }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let stop = Stop { deadline: Some(std::time::Instant::now()), cancel: None };
    let error = tokenizer.encode(&prompts, Limits { stop: &stop, ..limits(64) }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
}
