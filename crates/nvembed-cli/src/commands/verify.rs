//! `nvembed verify`: a model's embeddings against known ones.

use clap::ValueEnum;
use ndarray::{Array2, array};
use nvembed::model::{Deviation, Golden, Precision};
use nvembed::{EmbedOptions, Embedder, Error, Prompt};

use crate::arguments::ModelArguments;
use crate::exit::CliError;
use crate::io::{interrupt, print};
use crate::similarity::scores;

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
/// The published scores come from fp16 arithmetic on a GPU. The exporter's tests require a cosine of 0.9999 between fp16 and
/// exact embeddings; vectors that far off on both sides can move a dot product by some 1e-3. On nv-embed-mini, a mask that is
/// off by one moves a score by 1.0 to 2.2, a pooled instruction by 16, a lost `</s>` by 7. Not yet tried on the real weights.
const MODEL_CARD_TOLERANCE: f32 = 0.2;

/// Compare a model's embeddings with known ones.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub(crate) struct Arguments {
    /// Compare the model card's example with its published scores instead; for NVIDIA's weights only. Without a value, the
    /// model's name decides which.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true)]
    model_card: Option<Option<ModelCard>>,
    #[command(flatten)]
    model: ModelArguments,
}

fn help() -> String {
    let tolerance = |precision: &Precision| format!("{precision} {}", precision.tolerance());
    format!(
        "By default, the golden file in the model folder is used: texts, and the embeddings that a float64 reference computed \
         for them from the checkpoint. Token ids must be equal. Embeddings may differ by: {}.",
        Precision::ALL.iter().map(tolerance).collect::<Vec<_>>().join("; ")
    )
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModelCard {
    /// NV-Embed-v1.
    V1,
    /// NV-Embed-v2.
    V2,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    interrupt::watch()?;
    let (folder, mut options) = arguments.model.resolve();
    // The golden rows are what is compared here, with a report.
    options.self_check = false;
    let embedder = Embedder::open(folder, &options)?;
    match arguments.model_card {
        Some(card) => verify_model_card(&embedder, card),
        None => verify_golden(&embedder),
    }
}

fn verify_golden(embedder: &Embedder) -> anyhow::Result<()> {
    let manifest = embedder.manifest();
    let golden = Golden::open(manifest)?.ok_or_else(|| {
        let folder = manifest.folder().display();
        CliError::Model(format!("{folder} has no golden file; export the model without --no-golden"))
    })?;
    let rows = golden.rows();
    let (prompts, options): (Vec<_>, _) = (rows.iter().map(|row| row.prompt()).collect(), EmbedOptions::default());
    let tokens = embedder.tokenize(&prompts, &options)?;
    let embeddings = embedder.embed(&prompts, &options)?.to_f32();
    let tolerance = manifest.precision().tolerance();
    let mut report = format!("{:<5}{:>8}{:>6}{:>16}{:>14}\n", "row", "tokens", "ids", "max difference", "1 - cosine");
    let (mut wrong_ids, mut wrong) = (0, 0);
    for (index, (row, tokens)) in rows.iter().zip(&tokens).enumerate() {
        let same_ids = (&tokens.ids, tokens.instruction_tokens) == (&row.input_ids, row.instruction_tokens);
        let deviation = Deviation::between(embeddings.row(index), &row.embedding);
        let good = tolerance.allows(deviation);
        wrong_ids += usize::from(!same_ids);
        wrong += usize::from(!good);
        let (ids, mark) = (if same_ids { "ok" } else { "WRONG" }, if good && same_ids { "" } else { "  WRONG" });
        let Deviation { largest_difference, cosine_distance, .. } = deviation;
        let length = row.input_ids.len();
        report.push_str(&format!(
            "{index:<5}{length:>8}{ids:>6}{largest_difference:>16.2e}{cosine_distance:>14.2e}{mark}\n"
        ));
    }
    print(&report)?;
    let all = rows.len();
    let agree = outcome(wrong, all, "golden embeddings", &format!("the tolerance of {tolerance}"));
    if wrong_ids == 0 {
        return agree;
    }
    // Wrong ids are the tokenizer's fault, and may well be why embeddings differ.
    let ids = format!("the token ids of {wrong_ids} of {all} golden rows are wrong, so the tokenizer is at fault");
    let message = agree.err().map_or(ids.clone(), |error| format!("{ids}; {error}"));
    Err(CliError::Verify(message).into())
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
                "there are no published scores for {name:?}, only for NV-Embed-v1 and NV-Embed-v2; choose one with \
                 --model-card=v1 or --model-card=v2"
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
    outcome(wrong, found.len(), "published scores", &format!("the tolerance of {MODEL_CARD_TOLERANCE}"))
}

fn card_scores(embedder: &Embedder) -> Result<Array2<f32>, Error> {
    let queries = QUERIES.map(|text| Prompt::query(Prompt::DEFAULT_TASK, text));
    let passages = PASSAGES.map(Prompt::passage);
    Ok(scores(embedder, &queries, &passages, &EmbedOptions::default())?.0)
}

fn outcome(wrong: usize, all: usize, what: &str, tolerance: &str) -> anyhow::Result<()> {
    if wrong > 0 {
        return Err(CliError::Verify(format!("{wrong} of {all} {what} differ by more than {tolerance}")).into());
    }
    Ok(print(&format!("all {all} {what} agree\n"))?)
}
