//! `nvembed verify`: a model's embeddings against known ones.

use std::path::Path;

use clap::ValueEnum;
use ndarray::{Array2, ArrayView1, array};
use nvembed::{Embedder, EncodeOptions, Error, Precision, Prompt};
use serde::Deserialize;

use super::exit::CliError;
use super::score::{DEFAULT_TASK, print, scores};
use super::{ModelArguments, interrupt};

/// The model card's example.
const QUERIES: [&str; 2] =
    ["are judo throws allowed in wrestling?", "how to become a radiology technician in michigan?"];
const PASSAGES: [&str; 2] = [
    "Since you're reading this, you are probably someone from a judo background or someone who is just wondering how \
     judo techniques can be applied under wrestling rules. So without further ado, let's get to the question. Are Judo \
     throws allowed in wrestling? Yes, judo throws are allowed in freestyle and folkstyle wrestling. You only need to be \
     careful to follow the slam rules when executing judo throws. In wrestling, a slam is lifting and returning an \
     opponent to the mat with unnecessary force.",
    "Below are the basic steps to becoming a radiologic technologist in Michigan:Earn a high school diploma. As with \
     most careers in health care, a high school education is the first step to finding entry-level employment. Taking \
     classes in math and science, such as anatomy, biology, chemistry, physiology, and physics, can help prepare \
     students for their college studies and future careers.Earn an associate degree. Entry-level radiologic positions \
     typically require at least an Associate of Applied Science. Before enrolling in one of these degree programs, \
     students should make sure it has been properly accredited by the Joint Review Committee on Education in Radiologic \
     Technology (JRCERT).Get licensed or certified in the state of Michigan.",
];

/// How far a score of 100 × cosine may be from the published one: 0.2, a cosine of 2e-3.
///
/// The published ones come from fp16 arithmetic on a GPU. The exporter's tests demand a cosine of 0.9999 between fp16 and
/// exact embeddings; vectors that far off, on both sides, can move a dot product by some 1e-3 in the plane that matters.
/// On nv-embed-mini a mask that is off by one moves a score by 1.0 to 2.2, pooled instructions by 16, a lost `</s>` by 7.
/// Not yet tried on the real weights.
const MODEL_CARD_TOLERANCE: f32 = 0.2;

/// Largest difference of a number of a unit vector between an fp32 graph and the float64 reference: the most that the
/// exporter's tests allow at any depth. Measured there: at most 7e-7, at up to 12 layers.
const FP32_TOLERANCE: f64 = 1e-5;
/// Largest 1 − cosine between an fp16 graph and the float64 reference. Measured: at most 4e-6, at up to 12 layers.
const FP16_TOLERANCE: f64 = 1e-4;

/// The same for bf16, whose roundings are 8 times as large; 1 - cosine goes by their square. Random models of 12 layers
/// were 3e-4 away, nv-embed-mini 1e-5.
const BF16_TOLERANCE: f64 = 2e-3;
/// The same for quantised weights, where the distance is that of a trained model and no bound: see docs/precision.md.
const INT8_TOLERANCE: f64 = 1e-3;
/// Codes of 4 bits.
const INT4_TOLERANCE: f64 = 5e-2;
/// Codes of 8 bits for activations too, with one scale for a whole token.
const W8A8_TOLERANCE: f64 = 5e-3;

/// The form of golden.json that this version reads.
const GOLDEN_SCHEMA_VERSION: u64 = 1;

/// Compare a model's embeddings with known ones.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --model-card, the golden file of the model folder is used: texts and the embeddings that a
float64 reference computed for them from the checkpoint. Ids must be equal; an fp32 model may differ by 1e-5 in each
number, an fp16 model by 1e-4 in 1 - cosine, a bf16 model by 2e-3, int8 by 1e-3,
int4 by 5e-2, w8a8 by 5e-3."
)]
pub(crate) struct Arguments {
    /// Compare the model card's example with its published scores instead; only for NVIDIA's weights. Without a value,
    /// the model's name decides which.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true)]
    model_card: Option<Option<ModelCard>>,
    #[command(flatten)]
    model: ModelArguments,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModelCard {
    /// NV-Embed-v1.
    V1,
    /// NV-Embed-v2.
    V2,
}

#[derive(Deserialize)]
struct Golden {
    schema_version: u64,
    rows: Vec<GoldenRow>,
}

#[derive(Deserialize)]
struct GoldenRow {
    instruction: String,
    text: String,
    input_ids: Vec<u32>,
    instruction_tokens: usize,
    embedding: Vec<f32>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    interrupt::watch()?;
    let embedder = arguments.model.open()?;
    match arguments.model_card {
        Some(card) => verify_model_card(&embedder, card),
        None => verify_golden(&embedder),
    }
}

fn verify_golden(embedder: &Embedder) -> anyhow::Result<()> {
    let manifest = embedder.manifest();
    let path = manifest.golden_path().ok_or_else(|| {
        CliError::Model(format!("{} has no golden file; export without --no-golden", manifest.folder().display()))
    })?;
    let rows = read_golden(&path, embedder.dim())?;
    let prompts: Vec<_> = rows.iter().map(|row| Prompt::with_instruction(&*row.instruction, &*row.text)).collect();
    let options = EncodeOptions::default();
    let encodings = embedder.tokenize(&prompts, &options)?;
    let embeddings = embedder.embed(&prompts, &options)?.to_f32();
    let mut report = format!("{:<5}{:>8}{:>6}{:>16}{:>14}\n", "row", "tokens", "ids", "max difference", "1 - cosine");
    let mut wrong = 0;
    for (index, row) in rows.iter().enumerate() {
        let same_ids = encodings[index] == (row.input_ids.clone(), row.instruction_tokens);
        let (difference, distance) = differences(embeddings.row(index), &row.embedding);
        let good = same_ids && agrees(manifest.precision(), difference, distance)?;
        wrong += usize::from(!good);
        let ids = if same_ids { "ok" } else { "WRONG" };
        let mark = if good { "" } else { "  WRONG" };
        report.push_str(&format!(
            "{index:<5}{:>8}{ids:>6}{difference:>16.2e}{distance:>14.2e}{mark}\n",
            row.input_ids.len()
        ));
    }
    print(&report)?;
    outcome(wrong, rows.len(), "golden embeddings")
}

/// Whether an embedding is near enough to the known one for its precision.
pub(crate) fn agrees(precision: Precision, difference: f64, distance: f64) -> anyhow::Result<bool> {
    Ok(match precision {
        Precision::Fp32 => difference <= FP32_TOLERANCE,
        Precision::Fp16 => distance <= FP16_TOLERANCE,
        Precision::Bf16 => distance <= BF16_TOLERANCE,
        Precision::Int8 => distance <= INT8_TOLERANCE,
        Precision::Int4 => distance <= INT4_TOLERANCE,
        Precision::W8a8 => distance <= W8A8_TOLERANCE,
        other => return Err(CliError::Verify(format!("no tolerance is known for {other}")).into()),
    })
}

/// The prompts and float64 embeddings of a model's golden file; none if it has no such file.
pub(crate) fn golden(embedder: &Embedder) -> anyhow::Result<Vec<(Prompt<'static>, Vec<f32>)>> {
    let Some(path) = embedder.manifest().golden_path() else { return Ok(Vec::new()) };
    let rows = read_golden(&path, embedder.dim())?;
    Ok(rows.into_iter().map(|row| (Prompt::with_instruction(row.instruction, row.text), row.embedding)).collect())
}

fn read_golden(path: &Path, dim: usize) -> anyhow::Result<Vec<GoldenRow>> {
    let invalid = |reason: String| CliError::Model(format!("{} is not a valid golden file: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| invalid(error.to_string()))?;
    let golden: Golden = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    if golden.schema_version != GOLDEN_SCHEMA_VERSION {
        let found = golden.schema_version;
        return Err(invalid(format!("schema_version is {found}, this nvembed reads {GOLDEN_SCHEMA_VERSION}")).into());
    }
    if golden.rows.is_empty() {
        return Err(invalid("it has no rows".to_owned()).into());
    }
    if let Some(row) = golden.rows.iter().find(|row| row.embedding.len() != dim) {
        return Err(invalid(format!("an embedding has {} numbers, the model {dim}", row.embedding.len())).into());
    }
    Ok(golden.rows)
}

/// The largest absolute difference of two vectors, and one minus their cosine.
pub(crate) fn differences(found: ArrayView1<'_, f32>, wanted: &[f32]) -> (f64, f64) {
    let pairs = || found.iter().zip(wanted).map(|(one, other)| (f64::from(*one), f64::from(*other)));
    let largest = pairs().map(|(one, other)| (one - other).abs()).fold(0.0, f64::max);
    let sum = |term: fn((f64, f64)) -> f64| pairs().map(term).sum::<f64>();
    let cosine = sum(|(a, b)| a * b) / (sum(|(a, _)| a * a) * sum(|(_, b)| b * b)).sqrt();
    (largest, 1.0 - cosine)
}

fn verify_model_card(embedder: &Embedder, card: Option<ModelCard>) -> anyhow::Result<()> {
    let name = embedder.manifest().name().to_ascii_lowercase();
    let card = match card {
        Some(card) => card,
        // The whole name: an export of the first layers, or of random weights, has another.
        None if name == "nv-embed-v1" => ModelCard::V1,
        None if name == "nv-embed-v2" => ModelCard::V2,
        None => {
            let message = format!(
                "there are no published scores for {name:?}, only for NV-Embed-v1 and NV-Embed-v2; name \
                 one with --model-card=v1 or --model-card=v2"
            );
            return Err(CliError::Usage(message).into());
        }
    };
    let published = match card {
        ModelCard::V1 => array![[77.9402, 0.4249], [3.7577, 79.6011]],
        ModelCard::V2 => array![[87.4269, 0.4629], [0.9653, 86.0372]],
    };
    let found = card_scores(embedder)?;
    let mut report = format!("{:<8}{:>10}{:>12}{:>12}\n", "pair", "score", "published", "difference");
    let mut wrong = 0;
    for ((query, passage), score) in found.indexed_iter() {
        let wanted = published[[query, passage]];
        let difference: f32 = score - wanted;
        let good = difference.abs() <= MODEL_CARD_TOLERANCE;
        wrong += usize::from(!good);
        let pair = format!("Q{} P{}", query + 1, passage + 1);
        let mark = if good { "" } else { "  WRONG" };
        report.push_str(&format!("{pair:<8}{score:>10.4}{wanted:>12.4}{difference:>12.4}{mark}\n"));
    }
    print(&report)?;
    outcome(wrong, found.len(), "published scores")
}

fn card_scores(embedder: &Embedder) -> Result<Array2<f32>, Error> {
    let queries = QUERIES.map(|text| Prompt::query(DEFAULT_TASK, text));
    let passages = PASSAGES.map(Prompt::passage);
    Ok(scores(embedder, &queries, &passages, &EncodeOptions::default())?.0)
}

fn outcome(wrong: usize, all: usize, what: &str) -> anyhow::Result<()> {
    if wrong > 0 {
        return Err(CliError::Verify(format!("{wrong} of {all} {what} differ beyond the tolerance")).into());
    }
    print(&format!("all {all} {what} agree\n"))
}
