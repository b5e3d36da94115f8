//! How long a job will take, by a sample of its texts.

use std::time::{Duration, Instant};

use nvembed::{Embedder, ErrorKind, Prompt};

use crate::error::Result;
use crate::job::Job;
use crate::reader::PartReader;

/// The parts that the sample is taken from.
const PARTS: usize = 16;
/// Rows of the first round. Each round has twice as many as the one before: the first ones take what a new session needs.
const FIRST_ROUND: usize = 8;
/// No round follows one that took so long.
const ENOUGH: Duration = Duration::from_secs(1);
/// The rounds together take at most this share of the rows.
const SHARE: u64 = 40;

/// How much work a job is.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Estimate {
    /// Rows that were embedded to know.
    pub sample: u64,
    /// Token ids of the missing parts.
    pub tokens: u64,
    /// How long they will take.
    pub time: Duration,
    /// How long a part takes: what an interruption costs.
    pub part_time: Duration,
}

impl Job {
    /// Embeds the first rows of some of the missing parts, to know how long all of them will take. `None` for a job that is too
    /// short for that.
    ///
    /// # Errors
    /// As [`Job::run`], except for records that cannot be embedded, which are left to it.
    pub fn estimate(&self, embedder: &Embedder) -> Result<Option<Estimate>> {
        let step = self.missing.len().div_ceil(PARTS).max(1);
        let mut readers: Vec<_> = self.missing.iter().step_by(step).map(|part| PartReader::new(self, *part)).collect();
        let (most, mut rows, mut round) = (self.rows() / SHARE, 0, FIRST_ROUND);
        let mut last = None;
        while rows + round as u64 <= most && round <= self.options.embed.window {
            let prompts = self.sample(&mut readers, round)?;
            let (count, begin, mut tokens) = (prompts.len() as u64, Instant::now(), 0);
            let prompts = prompts.into_iter().map(|prompt| ((), prompt));
            for ((), result) in embedder.embed_iter(prompts, &self.options.embed)? {
                match result {
                    Ok(embedding) => tokens += embedding.tokens as u64,
                    Err(error) if matches!(error.kind(), ErrorKind::Input | ErrorKind::TooLong) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let time = begin.elapsed();
            (rows, round) = (rows + count, round * 2);
            last = Some((count.max(1), tokens, time));
            if time > ENOUGH || count < round as u64 / 2 {
                break;
            }
        }
        let Some((count, tokens, time)) = last else { return Ok(None) };
        let of = |rows: u64| time.mul_f64(rows as f64 / count as f64);
        let part_rows = self.manifest.options.shard_rows.min(self.rows());
        let tokens = (tokens as f64 * self.rows() as f64 / count as f64) as u64;
        Ok(Some(Estimate { sample: rows, tokens, time: of(self.rows()), part_time: of(part_rows) }))
    }

    /// The next prompts of several parts in turn.
    fn sample(&self, readers: &mut [PartReader<'_>], count: usize) -> Result<Vec<Prompt<'static>>> {
        let mut prompts = Vec::with_capacity(count);
        let mut ended = 0;
        while prompts.len() < count && ended < readers.len() {
            ended = 0;
            for reader in readers.iter_mut().take(count - prompts.len()) {
                match reader.next()?.map(|record| record.content) {
                    Some(Ok((instruction, text))) => {
                        let instruction = instruction.unwrap_or_else(|| self.options.instruction.clone());
                        prompts.push(Prompt::with_instruction(instruction, text));
                    }
                    Some(Err(_)) => {}
                    None => ended += 1,
                }
            }
        }
        Ok(prompts)
    }
}
