//! `nvembed score`: the similarity of each query to each passage.

use std::path::PathBuf;

use ndarray::Array2;
use nvembed::Prompt;

use crate::arguments::{EmbedArguments, ModelArguments, instruction};
use crate::exit::CliError;
use crate::io::reader::{InputFormat, Reader};
use crate::io::{interrupt, print};
use crate::similarity::scores;

/// Print the similarity of each query to each passage: 100 × the dot product of their embeddings, as on the model card.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nvembed score -m MODEL --queries queries.txt --passages passages.txt
  nvembed score -m MODEL --query 'who wrote the odyssey?' --passage Homer. --passage Virgil. --json")]
pub(crate) struct Arguments {
    /// File of queries, in the formats of embed.
    #[arg(long, value_name = "FILE")]
    queries: Vec<PathBuf>,
    /// One query.
    #[arg(long, value_name = "TEXT")]
    query: Vec<String>,
    /// File of passages, in the formats of embed.
    #[arg(long, value_name = "FILE")]
    passages: Vec<PathBuf>,
    /// One passage.
    #[arg(long, value_name = "TEXT")]
    passage: Vec<String>,
    /// Task of the queries, in one English sentence.
    #[arg(long, default_value = Prompt::DEFAULT_TASK, value_name = "SENTENCE")]
    task: String,
    /// How a line of a file holds a text.
    #[arg(long, value_enum, default_value = "auto")]
    format: InputFormat,
    /// Print JSON: {"scores": [[...], ...], "truncated": N}, with one row of scores per query.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    embed: EmbedArguments,
    #[command(flatten)]
    model: ModelArguments,
}

/// Characters of a text that are shown.
const SHOWN: usize = 60;

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { queries, query, passages, passage, task, format, json, embed, model } = arguments;
    interrupt::watch()?;
    let instruction = instruction::resolve(Some(&task), None);
    let is_stdin = |files: &[PathBuf]| files.iter().any(|file| file.as_os_str() == "-");
    if is_stdin(&queries) && is_stdin(&passages) {
        return Err(CliError::Usage("standard input cannot be both queries and passages".to_owned()).into());
    }
    let queries = texts("query", "queries", query, queries, format, &instruction)?;
    let passages = texts("passage", "passages", passage, passages, format, "")?;
    let (scores, truncated) = scores(&model.open()?, &queries, &passages, &embed.options())?;
    let text = if json {
        let rows: Vec<_> = scores.rows().into_iter().map(|row| row.to_vec()).collect();
        format!("{}\n", serde_json::json!({ "scores": rows, "truncated": truncated }))
    } else {
        matrix(&queries, &passages, &scores, truncated)
    };
    Ok(print(&text)?)
}

fn texts(
    one: &str,
    many: &str,
    given: Vec<String>,
    files: Vec<PathBuf>,
    format: InputFormat,
    instruction: &str,
) -> anyhow::Result<Vec<Prompt<'static>>> {
    let mut texts: Vec<_> =
        given.into_iter().map(|text| Prompt::with_instruction(instruction.to_owned(), text)).collect();
    if !files.is_empty() {
        for record in Reader::new(files, format, instruction.to_owned()) {
            texts.push(record?.prompt);
        }
    }
    if texts.is_empty() {
        return Err(
            CliError::Usage(format!("there is no {one}: give one with --{one}, or a file with --{many}")).into()
        );
    }
    Ok(texts)
}

/// The scores as a table beside the texts, with the best passage of each query marked.
fn matrix(queries: &[Prompt<'_>], passages: &[Prompt<'_>], scores: &Array2<f32>, truncated: usize) -> String {
    let mut text = String::new();
    for (index, passage) in passages.iter().enumerate() {
        text.push_str(&format!("P{:<3} {}\n", index + 1, shortened(passage.text())));
    }
    text.push_str("\n      ");
    (1..=passages.len()).for_each(|index| text.push_str(&format!("{:>9} ", format!("P{index}"))));
    text.push('\n');
    for (index, (query, row)) in queries.iter().zip(scores.rows()).enumerate() {
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        text.push_str(&format!("{:<6}", format!("Q{}", index + 1)));
        for score in row {
            text.push_str(&format!("{score:>9.4}{}", if *score == best { '*' } else { ' ' }));
        }
        text.push_str(&format!("  {}\n", shortened(query.text())));
    }
    text.push_str("\n* best passage for the query; scores are 100 × dot product\n");
    if truncated > 0 {
        text.push_str(&format!("{truncated} texts were longer than the limit and were truncated\n"));
    }
    text
}

/// The start of a text on one line, without characters that could control the terminal.
fn shortened(text: &str) -> String {
    let mut start: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        start.push('…');
    }
    start
}
