//! One model on one provider: checked against known embeddings, then timed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use nvembed::{Embedder, Embeddings, EncodeOptions, LoadOptions, Prompt, matmul_peak};

use super::record::{Latency, Row};
use super::work::{Workload, operations};
use crate::cli::inspect::proc_field;
use crate::cli::verify::{agrees, differences, golden};

/// The most tokens that the product for comparison is measured with.
const PEAK_ROWS: usize = 1024;

/// How long, how often and how a workload is measured.
pub(super) struct Limits {
    pub(super) time: Duration,
    pub(super) min_calls: usize,
    /// Prompts a second, each a call of its own, whether the former are done or not; else call after call.
    pub(super) rate: Option<f64>,
    pub(super) clients: usize,
    /// Nothing is checked and nothing timed.
    pub(super) dry_run: bool,
}

/// An open model and what its embeddings are compared with.
pub(super) struct Check<'r> {
    embedder: Embedder,
    options: LoadOptions,
    /// The fp32 model on the CPU, and its name for the row.
    reference: Option<&'r (Embedder, String)>,
    /// What the golden rows said: the least cosine, or `None` without golden rows.
    golden_cosine: Option<f64>,
    /// Whether all golden rows were near enough.
    golden_agrees: bool,
    /// Measured peaks, by rows.
    peaks: Mutex<HashMap<usize, Option<f64>>>,
}

impl Limits {
    /// What the workload is called in a row.
    pub(super) fn name(&self, workload: &Workload) -> String {
        self.rate.map_or(workload.name.clone(), |rate| format!("{} at {rate}/s", workload.name))
    }
}

impl<'r> Check<'r> {
    /// Compares the golden rows.
    ///
    /// # Errors
    /// When there are neither golden rows nor a reference: nothing may be timed unchecked.
    pub(super) fn new(
        embedder: Embedder,
        options: LoadOptions,
        reference: Option<&'r (Embedder, String)>,
        limits: &Limits,
    ) -> anyhow::Result<Self> {
        let rows = if limits.dry_run { Vec::new() } else { golden(&embedder)? };
        if rows.is_empty() && reference.is_none() && !limits.dry_run {
            anyhow::bail!(
                "the model has no golden embeddings and no --reference was given: its answers cannot be checked"
            );
        }
        let (prompts, wanted): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let found = embedder.embed(&prompts, &EncodeOptions::default())?.to_f32();
        let precision = embedder.manifest().precision();
        let (mut least, mut agree) = (f64::INFINITY, true);
        for (row, wanted) in found.rows().into_iter().zip(&wanted) {
            let (difference, distance) = differences(row, wanted);
            agree &= agrees(precision, difference, distance)?;
            least = least.min(1.0 - distance);
        }
        let golden_cosine = (!wanted.is_empty()).then_some(least);
        Ok(Self { embedder, options, reference, golden_cosine, golden_agrees: agree, peaks: Mutex::default() })
    }

    /// Fills a row: compares the workload's embeddings, and if they are right, times them.
    ///
    /// # Errors
    /// When a call fails.
    pub(super) fn measure(&self, workload: &Workload, limits: &Limits, row: Row) -> anyhow::Result<Row> {
        let lengths = workload.lengths(&self.embedder)?;
        let tokens: usize = lengths.iter().sum();
        let row = Row { rows: workload.prompts.len(), tokens, ..row };
        let found = self.embedder.embed(&workload.prompts, &workload.options)?;
        let row = Row { device_memory_bytes: self.device_memory()?, ..row };
        if limits.dry_run {
            let padding_waste = Some(found.stats().padding_waste());
            return Ok(Row { status: "dry run".to_owned(), padding_waste, calls: 1, ..row });
        }
        let (cosine_min, right) = self.compare(workload, &found)?;
        let against =
            [self.golden_cosine.map(|_| "golden embeddings (float64)"), self.reference.map(|(_, name)| name.as_str())];
        let against: Vec<_> = against.into_iter().flatten().collect();
        let row = Row { cosine_min: Some(cosine_min), verified_against: Some(against.join(", ")), ..row };
        if !right {
            let error = format!("the least cosine to {} is {cosine_min}: not timed", against.join(", "));
            return Ok(Row { status: "wrong".to_owned(), error: Some(error), ..row });
        }
        match limits.rate {
            None => self.closed_loop(workload, limits, &lengths, row),
            Some(rate) => self.open_loop(workload, limits, rate, row),
        }
    }

    /// The least cosine, and whether every embedding is near enough.
    fn compare(&self, workload: &Workload, found: &Embeddings) -> anyhow::Result<(f64, bool)> {
        let (mut least, mut right) = (self.golden_cosine.unwrap_or(f64::INFINITY), self.golden_agrees);
        if let Some((reference, _)) = self.reference {
            let found = found.to_f32();
            let wanted = reference.embed(&workload.prompts, &workload.options)?.to_f32();
            for (found, wanted) in found.rows().into_iter().zip(wanted.rows()) {
                let (difference, distance) = differences(found, wanted.as_slice().context("rows are contiguous")?);
                right &= agrees(self.embedder.manifest().precision(), difference, distance)?;
                least = least.min(1.0 - distance);
            }
        }
        Ok((least, right))
    }

    /// Call after call, each as soon as the former is done.
    fn closed_loop(&self, workload: &Workload, limits: &Limits, lengths: &[usize], row: Row) -> anyhow::Result<Row> {
        let embed = || self.embedder.embed(&workload.prompts, &workload.options);
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

    /// Each prompt is due at its time, and late from then on, whoever it waits for.
    fn open_loop(&self, workload: &Workload, limits: &Limits, rate: f64, row: Row) -> anyhow::Result<Row> {
        let prompt =
            |index: usize| std::slice::from_ref::<Prompt<'_>>(&workload.prompts[index % workload.prompts.len()]);
        self.embedder.embed(prompt(0), &workload.options)?; // warms up
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
        let results = results.into_iter().collect::<nvembed::Result<Vec<_>>>()?;
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

    /// What the first GPU's driver says; `None` on the CPU.
    fn device_memory(&self) -> nvembed::Result<Option<u64>> {
        if !self.options.provider.is_gpu() {
            return Ok(None);
        }
        let devices = nvembed::devices()?;
        Ok(devices.first().map(|device| (device.total_memory - device.free_memory) as u64))
    }

    /// The speed of a product alone, measured once for each number of rows.
    fn peak(&self, tokens: usize) -> anyhow::Result<Option<f64>> {
        let rows = tokens.min(PEAK_ROWS);
        let mut peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peak) = peaks.get(&rows) {
            return Ok(*peak);
        }
        let peak = matmul_peak(self.embedder.manifest(), self.embedder.library(), &self.options, rows)?;
        peaks.insert(rows, peak);
        Ok(peak)
    }
}

/// The largest resident memory of this process since a moment, where Linux tells.
pub(super) struct PeakMemory {
    was_reset: bool,
}

impl PeakMemory {
    pub(super) fn start() -> Self {
        Self { was_reset: std::fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    pub(super) fn bytes(&self) -> Option<u64> {
        let peak = proc_field("/proc/self/status", "VmHWM").filter(|_| self.was_reset)?;
        Some(peak.trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    }
}
