//! candle's NV-Embed in fp32, driven by compare.py: see worker.py for the lines it reads and writes.
//!
//! Usage: candle-peer CHECKPOINT full|backbone

use std::io::{BufRead, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use candle::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::mistral;
use candle_transformers::models::nvembed_v2::embedding;
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::{Tokenizer, TruncationParams};

/// candle's own code, with sizes that can be chosen (build.rs).
#[allow(dead_code, clippy::all)]
mod nvembed_v2 {
    include!(concat!(env!("OUT_DIR"), "/model.rs"));
}

/// What `candle-transformers` has as constants for the 7B model.
pub(crate) struct Sizes {
    backbone: mistral::Config,
    latents: usize,
    cross_heads: usize,
    cross_head_dim: usize,
}

enum Model {
    Full(nvembed_v2::Model),
    /// The layers alone, whose states are averaged instead.
    Backbone(embedding::Model),
}

struct Peer {
    tokenizer: Tokenizer,
    model: Model,
    device: Device,
}

/// A line of standard input: `prompts` are (instruction, text).
#[derive(Deserialize)]
struct Request {
    prompts: Vec<(String, String)>,
    /// Absent: the embeddings are asked for, else times.
    seconds: Option<f64>,
    #[serde(default)]
    min_calls: usize,
}

const EOS: &str = "</s>";
const EOS_ID: u32 = 2;
const MAX_LENGTH: usize = 4096;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, checkpoint, part] = arguments.as_slice() else { bail!("usage: candle-peer CHECKPOINT full|backbone") };
    let start = Instant::now();
    let mut peer = Peer::open(Path::new(checkpoint), part)?;
    let threads = candle::utils::get_num_threads();
    let versions = json!({ "candle": candle_version(), "threads": threads });
    answer(&json!({ "open_s": start.elapsed().as_secs_f64(), "versions": versions }))?;
    for line in stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let reply = peer.serve(&request).unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        answer(&reply)?;
    }
    Ok(())
}

fn answer(value: &Value) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// The release that Cargo.lock names.
fn candle_version() -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let version = lock.split("name = \"candle-transformers\"\nversion = \"").nth(1);
    version.and_then(|rest| rest.split('"').next()).unwrap_or("unknown")
}

impl Peer {
    fn open(checkpoint: &Path, part: &str) -> anyhow::Result<Self> {
        let device = Device::Cpu;
        let mut tokenizer = Tokenizer::from_file(checkpoint.join("tokenizer.json")).map_err(anyhow::Error::msg)?;
        let truncation = TruncationParams { max_length: MAX_LENGTH, ..TruncationParams::default() };
        tokenizer.with_padding(None).with_truncation(Some(truncation)).map_err(anyhow::Error::msg)?;
        let sizes = Sizes::read(&checkpoint.join("config.json"))?;
        let mut files: Vec<PathBuf> = std::fs::read_dir(checkpoint)?
            .map(|entry| Ok(entry?.path()))
            .filter(|path: &anyhow::Result<PathBuf>| {
                path.as_ref().is_ok_and(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
            })
            .collect::<anyhow::Result<_>>()?;
        files.sort();
        // SAFETY: nothing writes to a checkpoint while it is compared.
        let weights = unsafe { VarBuilder::from_mmaped_safetensors(&files, DType::F32, &device)? };
        let model = match part {
            "full" => Model::Full(nvembed_v2::Model::new(&sizes, weights)?),
            "backbone" => Model::Backbone(embedding::Model::new(&sizes.backbone, weights.pp("embedding_model"))?),
            other => bail!("the part is {other:?}, expected full or backbone"),
        };
        Ok(Self { tokenizer, model, device })
    }

    fn serve(&mut self, request: &Request) -> anyhow::Result<Value> {
        let Some(seconds) = request.seconds else {
            return Ok(json!({ "embeddings": self.embed(&request.prompts)? }));
        };
        let (mut times, start) = (Vec::new(), Instant::now());
        while times.len() < request.min_calls || start.elapsed().as_secs_f64() < seconds {
            let begin = Instant::now();
            self.embed(&request.prompts)?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        Ok(json!({ "times_ms": times }))
    }

    /// Texts in, unit rows out; one batch, padded to its longest row. The two masks are made as the model card says.
    fn embed(&mut self, prompts: &[(String, String)]) -> anyhow::Result<Vec<Vec<f32>>> {
        let mut rows = Vec::with_capacity(prompts.len());
        for (instruction, text) in prompts {
            let encoding = self.tokenizer.encode_fast(format!("{instruction}{text}{EOS}"), true);
            let skipped = match instruction.as_str() {
                "" => 0,
                alone => self.tokenizer.encode_fast(alone, false).map_err(anyhow::Error::msg)?.len(),
            };
            rows.push((encoding.map_err(anyhow::Error::msg)?.get_ids().to_vec(), skipped));
        }
        let width = rows.iter().map(|(ids, _)| ids.len()).max().context("there are no prompts")?;
        let shape = (rows.len(), width);
        let each = |value: &dyn Fn(&[u32], usize, usize) -> f32| -> Vec<f32> {
            rows.iter().flat_map(|(ids, skipped)| (0..width).map(|at| value(ids, *skipped, at))).collect()
        };
        let real = each(&|ids, _, at| f32::from(u8::from(at < ids.len())));
        let pooled = each(&|ids, skipped, at| f32::from(u8::from((skipped..ids.len()).contains(&at))));
        let ids: Vec<u32> =
            rows.iter().flat_map(|(ids, _)| (0..width).map(|at| ids.get(at).copied().unwrap_or(EOS_ID))).collect();
        let ids = Tensor::from_vec(ids, shape, &self.device)?;
        let real = Tensor::from_vec(real, shape, &self.device)?;
        let pooled = Tensor::from_vec(pooled, shape, &self.device)?;
        let vectors = match &mut self.model {
            Model::Full(model) => model.forward(&ids, &real, &pooled)?,
            Model::Backbone(model) => {
                let states = model.forward(&real, &ids, DType::F32)?;
                states.broadcast_mul(&pooled.unsqueeze(2)?)?.sum(1)?.broadcast_div(&pooled.sum_keepdim(1)?)?
            }
        };
        let lengths = vectors.sqr()?.sum_keepdim(1)?.sqrt()?;
        Ok(vectors.broadcast_div(&lengths)?.to_vec2()?)
    }
}

impl Sizes {
    fn read(config: &Path) -> anyhow::Result<Self> {
        let config: Value = serde_json::from_str(&std::fs::read_to_string(config)?)?;
        let latent = |name: &str, default: u64| {
            let size = config["latent_attention_config"][name].as_u64().unwrap_or(default);
            usize::try_from(size).context("a size is too large")
        };
        Ok(Self {
            backbone: mistral::Config::deserialize(&config["text_config"])?,
            latents: latent("num_latents_value", 512)?,
            cross_heads: latent("num_cross_heads", 8)?,
            cross_head_dim: latent("cross_dim_head", 4096)?,
        })
    }
}
