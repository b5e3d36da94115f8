//! Random models of many shapes and PyTorch's embeddings of a few prompts, made by `tests/reference/for_rust.py`.

use std::path::{Path, PathBuf};

use ndarray::Array2;
use nvembed::Prompt;
use serde::Deserialize;

/// What `rows.json` holds; every bound comes from the exporter's `tolerances.py`, where its reason stands.
#[derive(Deserialize)]
pub struct Case {
    pub rows: Vec<(String, String)>,
    pub embeddings: Vec<Vec<f64>>,
    pub fp32_bound: f64,
    pub fp16_cosine: f64,
    pub fused_bound: f64,
    pub batch_bound: f64,
}

impl Case {
    pub fn prompts(&self) -> Vec<Prompt<'_>> {
        self.rows.iter().map(|(instruction, text)| Prompt::with_instruction(&**instruction, &**text)).collect()
    }

    pub fn reference(&self) -> Array2<f64> {
        unit(&Array2::from_shape_fn((self.rows.len(), self.embeddings[0].len()), |(row, i)| self.embeddings[row][i]))
    }
}

pub fn cases() -> Vec<(PathBuf, Case)> {
    let folder = super::root().join("build/reference/numerics");
    let entries = std::fs::read_dir(folder).expect("build/reference is made by `make reference`");
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 8, "{} configurations", folders.len());
    let read = |path: &Path| serde_json::from_slice(&std::fs::read(path.join("rows.json")).unwrap()).unwrap();
    folders.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// Rows scaled to unit length: some configurations do not normalise, and bounds are relative to the whole vector.
pub fn unit(rows: &Array2<f64>) -> Array2<f64> {
    let norms = rows.map_axis(ndarray::Axis(1), |row| row.dot(&row).sqrt());
    rows / &norms.insert_axis(ndarray::Axis(1))
}

pub fn largest(one: &Array2<f64>, other: &Array2<f64>) -> f64 {
    assert_eq!(one.dim(), other.dim());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max)
}

pub fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().display().to_string()
}
