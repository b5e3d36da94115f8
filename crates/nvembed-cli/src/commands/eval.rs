//! `nvembed eval`: how well embeddings retrieve on a user's own data, and what smaller ones cost there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;
use ndarray::Array2;
use nvembed::{Dtype, EmbedOptions, Embedder, Prompt, Row, Rows};
use nvembed_eval::{
    Document, Form, Hit, Interval, Measures, Qrels, Search, documents, mean_interval, measure, ratio_interval,
};
use serde_json::json;

use crate::arguments::{ModelArguments, parse};
use crate::exit::CliError;
use crate::io::atomic::write_file;
use crate::io::{interrupt, print};

/// Evaluate retrieval: search every query in all passages, exactly, and compare with relevance judgements.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Files are BEIR's: JSON lines with _id, text and perhaps title; judgements as query-id, corpus-id, score, or
as TREC has them.

Example, which compares element types and widths:
  nvembed eval -m MODEL --queries queries.jsonl --corpus corpus.jsonl --qrels qrels/test.tsv --dtype f32,int8,binary \\
      --dimensions 4096,1024 --rescore 40"
)]
pub(crate) struct Arguments {
    /// Queries.
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// Passages.
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,
    /// Relevance judgements.
    #[arg(long, value_name = "FILE")]
    qrels: PathBuf,
    /// Task of the queries, in one English sentence.
    #[arg(long, default_value = Prompt::DEFAULT_TASK, value_name = "SENTENCE")]
    task: String,
    /// Element types to compare. The first, with the first number of dimensions, is what the others are compared with.
    #[arg(long, value_delimiter = ',', value_name = "TYPE,...", default_value = "f32,f16,int8,binary", value_parser = parse::<Dtype>)]
    dtype: Vec<Dtype>,
    /// How many numbers of the embeddings are kept. Default: all.
    #[arg(long, value_delimiter = ',', value_name = "N,...")]
    dimensions: Vec<usize>,
    /// Also rank the N best passages of binary embeddings again, by the first element type of --dtype.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    rescore: Vec<usize>,
    /// Passages kept per query; map depends on it.
    #[arg(long, value_name = "N", default_value_t = 100)]
    depth: usize,
    /// Leave out a passage with the identifier of its query, as BEIR does for sets that look for duplicates.
    #[arg(long)]
    ignore_identical_ids: bool,
    /// Folder for a run file per line of the table, in TREC's format.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// No progress bar.
    #[arg(short, long)]
    quiet: bool,
    /// Longest row in token ids, including <s> and </s>. Default: the model's limit.
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Padded tokens per batch. Default: 1024 on CPUs, 4096 on GPUs.
    #[arg(long, value_name = "N")]
    max_batch_tokens: Option<usize>,
    #[command(flatten)]
    model: ModelArguments,
}

/// Passages that are embedded and searched at a time.
const WINDOW: usize = 4096;

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    interrupt::watch()?;
    let qrels = Qrels::open(&arguments.qrels).map_err(input)?;
    let all = documents(&arguments.queries).map_err(input)?.collect::<Result<Vec<_>, _>>().map_err(input)?;
    let given = all.len();
    let queries: Vec<_> = all.into_iter().filter(|query| qrels.of(&query.id).is_some()).collect();
    check_queries(&arguments.queries, &queries, &qrels)?;
    // The passages' file is opened before the model is, which may take minutes.
    let passages = documents(&arguments.corpus).map_err(input)?;
    let embedder = arguments.model.open()?;
    let forms = forms(&arguments.dtype, &arguments.dimensions, &arguments.rescore, embedder.dim())?;
    if arguments.depth == 0 {
        return Err(CliError::Usage("--depth must be 1 or more, got 0".to_owned()).into());
    }
    let mut options = EmbedOptions::default();
    options.max_length = arguments.max_length;
    options.max_batch_tokens = arguments.max_batch_tokens;
    options.window = WINDOW;
    let instruction = Prompt::instruction_for(&arguments.task);
    let prompts = queries.iter().map(|query| Prompt::with_instruction(instruction.as_str(), query.text.as_str()));
    let rows = embedder.embed(&prompts.collect::<Vec<_>>(), &options)?;
    let depth = arguments.depth + usize::from(arguments.ignore_identical_ids);
    let mut search = Search::new(rows.rows(), &forms, depth)?;
    let bar = if arguments.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    let found = search_all(&embedder, passages, &options, &mut search, &bar);
    bar.finish_and_clear();
    let ids = found?;
    let mut table = Vec::new();
    for (form, mut rankings) in search.finish() {
        for (query, ranking) in queries.iter().zip(&mut rankings) {
            if arguments.ignore_identical_ids {
                ranking.retain(|hit| *hit.id != *query.id);
            }
            ranking.truncate(arguments.depth);
        }
        if let Some(folder) = &arguments.runs {
            write_run(folder, form, &queries, &rankings)?;
        }
        let measured = queries.iter().zip(&rankings).map(|(query, ranking)| {
            let judged = qrels.of(&query.id).cloned().unwrap_or_default();
            measure(ranking.iter().map(|hit| &*hit.id), &judged)
        });
        table.push(Line { form, measures: measured.collect() });
    }
    let unknown = qrels.queries().filter_map(|query| qrels.of(query)).flatten();
    let unknown = unknown.filter(|(passage, relevance)| **relevance > 0 && !ids.contains(passage.as_str())).count();
    let facts = Facts { queries: queries.len(), unjudged: given - queries.len(), passages: ids.len(), unknown };
    Ok(print(&if arguments.json { as_json(&table, &facts) } else { as_text(&table, &facts) })?)
}

fn input(error: nvembed_eval::Error) -> CliError {
    CliError::Input(error.to_string())
}

fn check_queries(path: &Path, queries: &[Document], qrels: &Qrels) -> Result<(), CliError> {
    let ids: HashSet<_> = queries.iter().map(|query| query.id.as_str()).collect();
    if ids.len() < queries.len() {
        return Err(CliError::Input(format!("{}: an identifier is there twice", path.display())));
    }
    let missing = qrels.queries().filter(|query| !ids.contains(query)).count();
    if missing > 0 {
        let message = format!("{}: {missing} queries that the judgements name are missing", path.display());
        return Err(CliError::Input(message));
    }
    Ok(())
}

/// Every element type with every width, then the rankings that are ranked again.
fn forms(dtypes: &[Dtype], dimensions: &[usize], rescore: &[usize], dim: usize) -> Result<Vec<Form>, CliError> {
    let dimensions = if dimensions.is_empty() { &[dim] } else { dimensions };
    if let Some(bad) = dimensions.iter().find(|number| !(1..=dim).contains(*number)) {
        return Err(CliError::Usage(format!("--dimensions must be 1 to {dim}, got {bad}")));
    }
    if let Some(bad) = rescore.iter().find(|number| **number == 0) {
        return Err(CliError::Usage(format!("--rescore must be 1 or more, got {bad}")));
    }
    if !rescore.is_empty() && !dtypes[1..].contains(&Dtype::Binary) {
        let message = "--rescore ranks the best of binary embeddings again by another type: name that one first, as in --dtype \
                       int8,binary";
        return Err(CliError::Usage(message.to_owned()));
    }
    let mut forms = Vec::new();
    for dtype in dtypes {
        forms.extend(dimensions.iter().map(|dimensions| Form::new(*dtype, *dimensions)));
    }
    for dimensions in dimensions {
        forms.extend(rescore.iter().map(|count| Form::new(Dtype::Binary, *dimensions).rescored(*count, dtypes[0])));
    }
    Ok(forms)
}

/// Embeds and searches all passages. Returns their identifiers.
fn search_all(
    embedder: &Embedder,
    passages: impl Iterator<Item = Result<Document, nvembed_eval::Error>>,
    options: &EmbedOptions,
    search: &mut Search,
    bar: &ProgressBar,
) -> anyhow::Result<HashSet<Arc<str>>> {
    let failure = std::cell::Cell::new(None);
    let prompts = passages.map_while(|passage| match passage {
        Ok(Document { id, text, .. }) => Some((Arc::<str>::from(id), Prompt::passage(text))),
        Err(error) => {
            failure.set(Some(error));
            None
        }
    });
    let (mut all, mut ids, mut values) = (HashSet::new(), Vec::new(), Vec::new());
    let mut flush = |ids: &mut Vec<Arc<str>>, values: &mut Vec<f32>| -> anyhow::Result<()> {
        let rows = Array2::from_shape_vec((ids.len(), embedder.dim()), std::mem::take(values))?;
        search.add(ids, &Rows::F32(rows))?;
        bar.inc(ids.len() as u64);
        bar.set_message(format!("{} passages", bar.position()));
        ids.clear();
        Ok(())
    };
    for (id, embedding) in embedder.embed_iter(prompts, options)? {
        if !all.insert(id.clone()) {
            return Err(CliError::Input(format!("passage {id:?}: the identifier is there twice")).into());
        }
        ids.push(id);
        match embedding?.values {
            Row::F32(row) => values.extend(row),
            row => values.extend(row.to_f32()),
        }
        if ids.len() == WINDOW {
            flush(&mut ids, &mut values)?;
        }
    }
    if let Some(error) = failure.take() {
        return Err(input(error).into());
    }
    if !ids.is_empty() {
        flush(&mut ids, &mut values)?;
    }
    Ok(all)
}

fn write_run(folder: &Path, form: Form, queries: &[Document], rankings: &[Vec<Hit>]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| CliError::output(folder, error))?;
    let mut text = String::new();
    for (query, ranking) in queries.iter().zip(rankings) {
        for (index, hit) in ranking.iter().enumerate() {
            text.push_str(&format!("{} Q0 {} {} {} nvembed-{form}\n", query.id, hit.id, index + 1, hit.score));
        }
    }
    Ok(write_file(&folder.join(format!("{form}.trec")), text.as_bytes())?)
}

/// A form and the measures of each query.
struct Line {
    form: Form,
    measures: Vec<Measures>,
}

struct Facts {
    queries: usize,
    unjudged: usize,
    passages: usize,
    /// Relevant passages that are not there.
    unknown: usize,
}

impl Line {
    fn values(&self, measure: usize) -> Vec<f64> {
        self.measures.iter().map(|measures| measures.values()[measure]).collect()
    }

    fn intervals(&self) -> [Interval; 5] {
        std::array::from_fn(|measure| mean_interval(&self.values(measure)))
    }

    fn ratio(&self, first: &Self) -> Interval {
        ratio_interval(&self.values(0), &first.values(0))
    }
}

fn as_text(table: &[Line], facts: &Facts) -> String {
    let Facts { queries, unjudged, passages, unknown } = facts;
    let mut text = format!("{queries} queries, {passages} passages\n");
    if *unjudged > 0 {
        text.push_str(&format!("{unjudged} more queries have no judgements and are left out\n"));
    }
    if *unknown > 0 {
        text.push_str(&format!("{unknown} relevant passages are not in the corpus and count as not found\n"));
    }
    let names = Measures::NAMES.map(|name| format!("{name:<22}")).join(" ");
    text.push_str(&format!("\n{:<22} {:>7}  {names} of the first\n", "embeddings", "bytes"));
    for line in table {
        let figures = line
            .intervals()
            .map(|Interval { value, low, high, .. }| format!("{:<22}", format!("{value:.4} ({low:.4}-{high:.4})")));
        let Interval { value, low, high, .. } = line.ratio(&table[0]);
        let ratio = format!("{:.1} % ({:.1}-{:.1})", 100.0 * value, 100.0 * low, 100.0 * high);
        text.push_str(&format!(
            "{:<22} {:>7}  {} {ratio}\n",
            line.form.to_string(),
            line.form.bytes(),
            figures.join(" ")
        ));
    }
    text.push_str(
        "\nIn parentheses, 95 % intervals by bootstrap over queries. The last column compares ndcg@10 with the first line's, query by \
         query.\n",
    );
    text
}

fn as_json(table: &[Line], facts: &Facts) -> String {
    let interval = |Interval { value, low, high, .. }: Interval| json!({"value": value, "low": low, "high": high});
    let lines = table.iter().map(|line| {
        let mut object = json!({
            "embeddings": line.form.to_string(), "dtype": line.form.dtype.to_string(), "dimensions": line.form.dimensions,
            "bytes": line.form.bytes(), "ndcg@10_ratio": interval(line.ratio(&table[0])),
        });
        for (name, figure) in Measures::NAMES.iter().zip(line.intervals()) {
            object[*name] = interval(figure);
        }
        object
    });
    let Facts { queries, unjudged, passages, unknown } = facts;
    let value = json!({
        "queries": queries, "queries_without_judgements": unjudged, "passages": passages,
        "relevant_passages_missing": unknown, "lines": lines.collect::<Vec<_>>(),
    });
    format!("{value}\n")
}
