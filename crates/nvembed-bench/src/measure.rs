//! One model on one provider: verified against known embeddings, then timed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nvembed::model::{Deviation, Golden, Tolerance};
use nvembed::onnxruntime::matmul_peak;
use nvembed::{EmbedOptions, Embedder, Embeddings, ModelOptions, Prompt, gpu, machine};

use crate::row::{Latency, Row, Status};
use crate::sweep::Limits;
use crate::workload::{Workload, operations};

/// The most tokens that the product for comparison is measured with.
const PEAK_ROWS: usize = 1024;

/// Why a row failed, as the row holds it.
pub(crate) type Failure = String;

/// An open model and what its embeddings are compared with.
pub(crate) struct Check<'r> {
    embedder: Embedder,
    options: ModelOptions,
    /// The fp32 model on the CPU, and its name for the row.
    reference: Option<&'r (Embedder, String)>,
    /// What the reader calls options of the library.
    name: fn(&str) -> String,
    /// The worst of the golden rows.
    golden: Worst,
    /// Measured peaks, by rows.
    peaks: Mutex<HashMap<usize, Option<f64>>>,
}

/// The deviation of the worst embedding so far.
#[derive(Debug, Clone, Copy, Default)]
struct Worst {
    /// The larger of each number; `None` without embeddings.
    deviation: Option<Deviation>,
    /// Whether one was not within the tolerance.
    is_wrong: bool,
}

impl Worst {
    fn add(&mut self, deviation: Deviation, tolerance: Tolerance) {
        self.is_wrong |= !tolerance.allows(deviation);
        let Some(worst) = &mut self.deviation else {
            self.deviation = Some(deviation);
            return;
        };
        // `f64::max` would drop a NaN.
        let larger = |one: f64, other: f64| if one > other || one.is_nan() { one } else { other };
        worst.largest_difference = larger(worst.largest_difference, deviation.largest_difference);
        worst.cosine_distance = larger(worst.cosine_distance, deviation.cosine_distance);
    }

    fn cosine(&self) -> Option<f64> {
        self.deviation.map(|deviation| 1.0 - deviation.cosine_distance)
    }
}

impl<'r> Check<'r> {
    /// Compares the golden rows.
    ///
    /// # Errors
    /// When there are neither golden rows nor a reference: nothing may be timed unverified.
    pub(crate) fn new(
        embedder: Embedder,
        options: ModelOptions,
        reference: Option<&'r (Embedder, String)>,
        limits: &Limits,
        name: fn(&str) -> String,
    ) -> Result<Self, Failure> {
        let text = |error: nvembed::Error| error.report(name);
        let golden = if limits.dry_run { None } else { Golden::open(embedder.manifest()).map_err(text)? };
        if golden.is_none() && reference.is_none() && !limits.dry_run {
            return Err(
                "the model has no golden embeddings and no reference was given: its embeddings cannot be verified"
                    .to_owned(),
            );
        }
        let rows = golden.as_ref().map(Golden::rows).unwrap_or_default();
        let prompts: Vec<_> = rows.iter().map(|row| row.prompt()).collect();
        let found = embedder.embed(&prompts, &EmbedOptions::default()).map_err(text)?.to_f32();
        let tolerance = embedder.manifest().precision().tolerance();
        let mut golden = Worst::default();
        for (found, row) in found.rows().into_iter().zip(rows) {
            golden.add(Deviation::between(found, &row.embedding), tolerance);
        }
        Ok(Self { embedder, options, reference, name, golden, peaks: Mutex::default() })
    }

    /// An error of the library with its causes, in one line.
    fn text(&self, error: &nvembed::Error) -> Failure {
        error.report(self.name)
    }

    /// Fills a row: compares the workload's embeddings and, if they are right, times them.
    ///
    /// # Errors
    /// When a call fails.
    pub(crate) fn measure(&self, workload: &Workload, limits: &Limits, row: Row) -> Result<Row, Failure> {
        let lengths = workload.lengths(&self.embedder, self.name)?;
        let tokens: usize = lengths.iter().sum();
        let row = Row { rows: workload.prompts.len(), tokens, ..row };
        let found = self.embed(&self.embedder, workload)?;
        let row = Row { device_memory_bytes: self.device_memory()?, ..row };
        if limits.dry_run {
            let padding_waste = Some(found.stats().padding_waste());
            return Ok(Row { status: Status::DryRun, padding_waste, calls: 1, ..row });
        }
        let worst = self.compare(workload, &found)?;
        let against = [
            self.golden.deviation.map(|_| "golden embeddings (float64)"),
            self.reference.map(|(_, name)| name.as_str()),
        ];
        let against: Vec<_> = against.into_iter().flatten().collect();
        let row = Row { cosine_min: worst.cosine(), verified_against: Some(against.join(", ")), ..row };
        if let (true, Some(deviation)) = (worst.is_wrong, worst.deviation) {
            let Deviation { largest_difference, cosine_distance, .. } = deviation;
            let tolerance = self.embedder.manifest().precision().tolerance();
            let error = format!(
                "not timed: embeddings differ from {} by up to {largest_difference:.1e} in a number and {cosine_distance:.1e} \
                 in 1 - cosine; allowed is {tolerance}",
                against.join(", ")
            );
            return Ok(Row { status: Status::Wrong, error: Some(error), ..row });
        }
        match limits.rate {
            None => self.closed_loop(workload, limits, &lengths, row),
            Some(rate) => self.open_loop(workload, limits, rate, row),
        }
    }

    /// The worst of the golden rows and, if there is a reference, of the workload's.
    fn compare(&self, workload: &Workload, found: &Embeddings) -> Result<Worst, Failure> {
        let mut worst = self.golden;
        if let Some((reference, _)) = self.reference {
            let tolerance = self.embedder.manifest().precision().tolerance();
            let (found, wanted) = (found.to_f32(), self.embed(reference, workload)?.to_f32());
            for (found, wanted) in found.rows().into_iter().zip(wanted.rows()) {
                worst.add(Deviation::between(found, wanted), tolerance);
            }
        }
        Ok(worst)
    }

    fn embed(&self, embedder: &Embedder, workload: &Workload) -> Result<Embeddings, Failure> {
        embedder.embed(&workload.prompts, &workload.options).map_err(|error| self.text(&error))
    }

    /// One call after another.
    fn closed_loop(&self, workload: &Workload, limits: &Limits, lengths: &[usize], row: Row) -> Result<Row, Failure> {
        let embed = || self.embed(&self.embedder, workload);
        let mut stats = *embed()?.stats(); // warms up
        let (mut times, mut session) = (Vec::new(), Duration::ZERO);
        let start = Instant::now();
        while times.len() < limits.min_calls || start.elapsed() < limits.time {
            let begin = Instant::now();
            let embeddings = embed()?;
            times.push(begin.elapsed());
            stats = *embeddings.stats();
            session += stats.session_time;
        }
        let total: Duration = times.iter().sum();
        let latency = Latency::of(&times);
        let typical = latency.as_ref().map(|latency| latency.p50 / 1e3);
        let manifest = self.embedder.manifest();
        let operations = operations(manifest.architecture(), manifest.pooler(), lengths);
        let peak = self.peak(row.tokens)?;
        let rate = typical.map(|seconds| operations / seconds);
        Ok(Row {
            calls: times.len(),
            padding_waste: Some(stats.padding_waste()),
            tokens_per_s: typical.map(|seconds| row.tokens as f64 / seconds),
            texts_per_s: typical.map(|seconds| row.rows as f64 / seconds),
            session_share: Some(session.as_secs_f64() / total.as_secs_f64()),
            gflop_per_s: rate.map(|rate| rate / 1e9),
            peak_gflop_per_s: peak.map(|peak| peak / 1e9),
            share_of_peak: rate.zip(peak).map(|(rate, peak)| rate / peak),
            latency_ms: latency,
            ..row
        })
    }

    /// Each prompt is due at its time, and late from then on, whatever it waits for.
    fn open_loop(&self, workload: &Workload, limits: &Limits, rate: f64, row: Row) -> Result<Row, Failure> {
        let prompt =
            |index: usize| std::slice::from_ref::<Prompt<'_>>(&workload.prompts[index % workload.prompts.len()]);
        self.embedder.embed(prompt(0), &workload.options).map_err(|error| self.text(&error))?; // warms up
        let count = ((rate * limits.time.as_secs_f64()).ceil() as usize).max(limits.min_calls);
        let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(count)));
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..limits.clients.min(count) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= count {
                            return;
                        }
                        let due = start + Duration::from_secs_f64(index as f64 / rate);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        let result = self.embedder.embed(prompt(index), &workload.options);
                        let result = result.map(|embeddings| (due.elapsed(), embeddings.stats().tokens));
                        results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                    }
                });
            }
        });
        let seconds = start.elapsed().as_secs_f64();
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let results = results.into_iter().collect::<nvembed::Result<Vec<_>>>().map_err(|error| self.text(&error))?;
        let (times, tokens): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        let tokens: usize = tokens.iter().sum();
        Ok(Row {
            rows: 1,
            tokens: tokens / times.len().max(1),
            calls: times.len(),
            latency_ms: Latency::of(&times),
            tokens_per_s: Some(tokens as f64 / seconds),
            texts_per_s: Some(times.len() as f64 / seconds),
            ..row
        })
    }

    /// Memory in use on the first GPU of the options, as the driver says; `None` on the CPU.
    fn device_memory(&self) -> Result<Option<u64>, Failure> {
        if !self.options.provider.is_gpu() {
            return Ok(None);
        }
        let id = self.options.gpu.device_ids.first().copied().unwrap_or(0);
        let devices = gpu::devices().map_err(|error| self.text(&error))?;
        let Some(device) = devices.into_iter().find(|device| device.id == id) else { return Ok(None) };
        let free = gpu::free_memory(id).map_err(|error| self.text(&error))?;
        Ok(Some(device.total_memory.saturating_sub(free) as u64))
    }

    /// The speed of one matrix product, measured once for each number of rows.
    fn peak(&self, tokens: usize) -> Result<Option<f64>, Failure> {
        let rows = tokens.min(PEAK_ROWS);
        let mut peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peak) = peaks.get(&rows) {
            return Ok(*peak);
        }
        let (manifest, library) = (self.embedder.manifest(), self.embedder.library());
        let peak = matmul_peak(manifest, library, &self.options, rows).map_err(|error| self.text(&error))?;
        peaks.insert(rows, peak);
        Ok(peak)
    }
}

/// The largest resident memory of this process since a moment, where Linux tells.
pub(crate) struct PeakMemory {
    was_reset: bool,
}

impl PeakMemory {
    pub(crate) fn start() -> Self {
        Self { was_reset: std::fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    pub(crate) fn bytes(&self) -> Option<u64> {
        machine::peak_memory().filter(|_| self.was_reset)
    }
}

#[cfg(test)]
mod tests {
    use nvembed::model::Precision;

    use super::*;

    #[test]
    fn the_worst_deviation_is_kept_and_one_that_is_no_number_stays() {
        let tolerance = Precision::Fp32.tolerance();
        let mut worst = Worst::default();
        assert!(worst.cosine().is_none() && !worst.is_wrong);
        worst.add(Deviation::between(&[1.0, 0.0], &[1.0, 0.0]), tolerance);
        assert!(worst.cosine() == Some(1.0) && !worst.is_wrong);
        worst.add(Deviation::between(&[0.0, 1.0], &[1.0, 0.0]), tolerance);
        worst.add(Deviation::between(&[1.0, 0.0], &[1.0, 0.0]), tolerance);
        assert!(worst.cosine() == Some(0.0) && worst.is_wrong);
        worst.add(Deviation::between(&[f32::NAN, 0.0], &[1.0, 0.0]), tolerance);
        worst.add(Deviation::between(&[1.0, 0.0], &[1.0, 0.0]), tolerance);
        assert!(worst.cosine().unwrap().is_nan() && worst.is_wrong);
    }
}
