//! The runtime's embeddings against PyTorch's, on random models of many shapes.
//!
//! `tests/reference/numerics.py` makes the models and the references; every bound comes with them from the exporter's
//! `tolerances.py`, where its reason stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod common;

use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView1};
use nvembed::{Embedder, EncodeOptions, LoadOptions, Prompt};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    rows: Vec<(String, String)>,
    embeddings: Vec<Vec<f64>>,
    fp32_bound: f64,
    fp16_cosine: f64,
    fused_bound: f64,
    batch_bound: f64,
}

impl Case {
    fn prompts(&self) -> Vec<Prompt<'_>> {
        self.rows.iter().map(|(instruction, text)| Prompt::with_instruction(&**instruction, &**text)).collect()
    }

    fn reference(&self) -> Array2<f64> {
        unit(&Array2::from_shape_fn((self.rows.len(), self.embeddings[0].len()), |(row, i)| self.embeddings[row][i]))
    }
}

fn cases() -> Vec<(PathBuf, Case)> {
    let folder = common::root().join("build/reference/numerics");
    let entries = std::fs::read_dir(folder).expect("build/reference is made by `make reference`");
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 8, "{} configurations", folders.len());
    let read = |path: &Path| serde_json::from_slice(&std::fs::read(path.join("rows.json")).unwrap()).unwrap();
    folders.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn embed(folder: &Path, prompts: &[Prompt<'_>]) -> Array2<f64> {
    let embedder = Embedder::open(folder, &LoadOptions::default()).unwrap();
    unit(&embedder.embed(prompts, &EncodeOptions::default()).unwrap().to_f32().mapv(f64::from))
}

/// Rows scaled to unit length: some configurations do not normalise, and bounds are relative to the whole vector.
fn unit(rows: &Array2<f64>) -> Array2<f64> {
    let norms = rows.map_axis(ndarray::Axis(1), |row| row.dot(&row).sqrt());
    rows / &norms.insert_axis(ndarray::Axis(1))
}

fn largest(one: &Array2<f64>, other: &Array2<f64>) -> f64 {
    assert_eq!(one.dim(), other.dim());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max)
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().display().to_string()
}

#[test]
fn fp32_embeddings_equal_pytorchs() {
    for (folder, case) in cases() {
        for form in ["fp32", "cpu"] {
            let difference = largest(&embed(&folder.join(form), &case.prompts()), &case.reference());
            println!(
                "{:<20} {form:<4} largest difference {difference:.2e}, bound {:.1e}",
                name(&folder),
                case.fp32_bound
            );
            assert!(difference <= case.fp32_bound && case.fp32_bound <= 1e-5, "{} {form}", name(&folder));
        }
    }
}

#[test]
fn fp16_embeddings_point_where_pytorchs_do() {
    for (folder, case) in cases() {
        let (found, wanted) = (embed(&folder.join("fp16"), &case.prompts()), case.reference());
        let cosine = |(one, other): (ArrayView1<'_, f64>, ArrayView1<'_, f64>)| one.dot(&other);
        let least = found.rows().into_iter().zip(wanted.rows()).map(cosine).fold(1.0, f64::min);
        println!("{:<20} fp16 least cosine {least:.7}", name(&folder));
        assert!(least >= case.fp16_cosine, "{}: {least}", name(&folder));
    }
}

#[test]
fn the_fused_pooler_equals_the_direct_one() {
    for (folder, case) in cases() {
        let [fused, direct] = ["fp32", "direct"].map(|form| embed(&folder.join(form), &case.prompts()));
        let difference = largest(&fused, &direct);
        println!("{:<20} fused against direct {difference:.2e}", name(&folder));
        assert!(difference <= case.fused_bound, "{}: {difference}", name(&folder));
    }
}

#[test]
fn a_row_is_the_same_alone_in_a_batch_and_in_another_order() {
    for (folder, case) in cases() {
        let prompts = case.prompts();
        let model = folder.join("fp32");
        let together = embed(&model, &prompts);
        let embedder = Embedder::open(&model, &LoadOptions::default()).unwrap();
        let options = EncodeOptions { max_batch_size: 1, ..EncodeOptions::default() };
        let alone = unit(&embedder.embed(&prompts, &options).unwrap().to_f32().mapv(f64::from));
        let backwards: Vec<_> = prompts.iter().rev().cloned().collect();
        let mut reordered = embed(&model, &backwards);
        reordered.invert_axis(ndarray::Axis(0));
        let difference = largest(&alone, &together).max(largest(&reordered, &together));
        println!("{:<20} alone and reordered {difference:.2e}", name(&folder));
        assert!(difference <= case.batch_bound, "{}: {difference}", name(&folder));
    }
}
