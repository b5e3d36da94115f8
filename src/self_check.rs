//! The self-check: whether a model that was just opened gives the embeddings of its golden rows.
//!
//! A provider can leave out a mask, a library can have a fault, and a file can be damaged, all without an error. Golden rows
//! show it: they have instructions and different lengths, and are run alone and together.

use std::time::Instant;

use crate::batch::{Batch, Shape};
use crate::cache::{Entry, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::execution::Opening;
use crate::model::{Deviation, Golden, GoldenRow, Precision, Tolerance};
use crate::options::EmbedOptions;
use crate::pipeline::Pipeline;
use crate::tokenize::Encoding;

/// The self-check of a model that is about to open.
pub(crate) struct SelfCheck<'o> {
    opening: &'o Opening,
    /// Where it is remembered.
    place: Option<Place>,
}

impl<'o> SelfCheck<'o> {
    /// Looks at the files before they are opened: what is written to them later is not covered.
    pub(crate) fn new(opening: &'o Opening, entry: Option<&Entry>) -> Self {
        Self { opening, place: Place::of_check(opening, entry) }
    }

    /// Checks the open model, unless the options say not to, or it was checked before.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when an embedding is wrong, and [`ErrorKind::Model`] when token ids are; as
    /// [`Executor::run_everywhere`](crate::execution::Executor::run_everywhere) when a row cannot be run.
    pub(crate) fn run(&self, pipeline: &Pipeline) -> Result<()> {
        let (manifest, options) = (&self.opening.manifest, &self.opening.options);
        if !options.self_check || self.place.as_ref().is_some_and(|place| place.find(false).is_some()) {
            return Ok(());
        }
        let Some(golden) = Golden::open(manifest)? else {
            let model = manifest.folder().display();
            tracing::warn!(%model, "the folder has no golden rows, so nothing checks the embeddings; export it without --no-golden");
            return Ok(());
        };
        let Some(place) = &self.place else { return self.compare(pipeline, &golden) };
        let mut outcome = None;
        let made = place.make(|_| outcome.insert(self.compare(pipeline, &golden)).clone());
        match (outcome, made) {
            (Some(outcome), made) => {
                if let (Ok(()), Err(error)) = (&outcome, made) {
                    let error = error.report(str::to_owned);
                    tracing::info!(error, "the self-check cannot be remembered, and is run whenever the model opens");
                }
                outcome
            }
            // Another process made it meanwhile.
            (None, Ok(_)) => Ok(()),
            (None, Err(_)) => self.compare(pipeline, &golden),
        }
    }

    fn compare(&self, pipeline: &Pipeline, golden: &Golden) -> Result<()> {
        let start = Instant::now();
        let options = EmbedOptions::default();
        let prompts: Vec<_> = golden.rows().iter().map(GoldenRow::prompt).collect();
        let mut rows = Vec::with_capacity(prompts.len());
        for (row, encoding) in golden.rows().iter().zip(pipeline.encode(&prompts, &options)?) {
            match encoding {
                Ok(encoding) => rows.push((row, self.same_ids(row, encoding)?)),
                // The options may allow short rows only.
                Err(error) if error.kind() == ErrorKind::TooLong => {}
                Err(error) => return Err(error),
            }
        }
        rows.sort_by_key(|(_, encoding)| encoding.ids().len());
        for row in &rows {
            self.run_together(pipeline, std::slice::from_ref(row))?;
        }
        let together = (2..=rows.len()).rev().map(|count| &rows[..count]);
        let mut fitting = together.filter(|rows| pipeline.executor.fits(shape(rows), &options));
        if let Some(rows) = fitting.next() {
            self.run_together(pipeline, rows)?;
        }
        tracing::info!(rows = rows.len(), seconds = start.elapsed().as_secs_f64(), "the golden rows agree");
        Ok(())
    }

    fn same_ids(&self, row: &GoldenRow, encoding: Encoding) -> Result<Encoding> {
        if (encoding.ids(), encoding.instruction_tokens()) == (&row.input_ids, row.instruction_tokens) {
            return Ok(encoding);
        }
        let message = format!(
            "{}: the tokenizer gives other token ids than the golden file has, {} instead of {}; copy or export the model again",
            self.opening.manifest.folder().display(),
            encoding.ids().len(),
            row.input_ids.len()
        );
        Err(Error::new(ErrorKind::Model, message))
    }

    fn run_together(&self, pipeline: &Pipeline, rows: &[(&GoldenRow, Encoding)]) -> Result<()> {
        let encodings: Vec<&Encoding> = rows.iter().map(|(_, encoding)| encoding).collect();
        let stop = EmbedOptions::default().stop();
        for output in pipeline.executor.run_everywhere(|| Batch::new(&encodings), &stop)? {
            let found = output.to_f32();
            if found.dim() != (rows.len(), pipeline.dim) {
                let message =
                    format!("the graph returned shape {:?}, expected {:?}", found.dim(), (rows.len(), pipeline.dim));
                return Err(Error::new(ErrorKind::Inference, message));
            }
            for ((row, _), found) in rows.iter().zip(found.rows()) {
                self.judge(row, Deviation::between(found, &row.embedding), rows.len())?;
            }
        }
        Ok(())
    }

    fn judge(&self, row: &GoldenRow, found: Deviation, together: usize) -> Result<()> {
        let Opening { manifest, library, options, .. } = self.opening;
        let tolerance = match manifest.precision() {
            // Products of 10 bits, as fp16 has.
            Precision::Fp32 if options.gpu.tf32 => Precision::Fp16.tolerance(),
            precision => precision.tolerance(),
        };
        if tolerance.allows(found) {
            return Ok(());
        }
        let (measure, found) = match tolerance {
            Tolerance::LargestDifference(_) => ("a number", found.largest_difference),
            Tolerance::CosineDistance(_) => ("1 - cosine", found.cosine_distance),
        };
        let company = if together > 1 { format!("in a batch of {together}") } else { "alone".to_owned() };
        let message = format!(
            "the self-check failed: on {provider}, {folder} gives wrong embeddings; a golden row of {tokens} tokens, run {company}, is \
             off by {found:.1e} ({measure}), and {precision} may be by {tolerance}; ONNX Runtime {version}. If nvembed verify agrees \
             on cpu, the provider or its library is at fault: choose another `provider` or version; if not, export or copy the model \
             again, or export it in another precision; `self_check` opens it all the same",
            provider = options.provider,
            folder = manifest.folder().display(),
            tokens = row.input_ids.len(),
            precision = manifest.precision(),
            version = library.version(),
        );
        Err(Error::new(ErrorKind::Provider, message))
    }
}

fn shape(rows: &[(&GoldenRow, Encoding)]) -> Shape {
    let lengths = rows.iter().map(|(_, encoding)| encoding.ids().len());
    Shape { rows: rows.len(), length: lengths.clone().max().unwrap_or(0), tokens: lengths.sum() }
}
