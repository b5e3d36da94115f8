//! The runtime's embeddings against PyTorch's, on random models of many shapes.
//!
//! `tests/reference/for_rust.py` makes the models and the references; every bound comes with them from the exporter's
//! `tolerances.py`, where its reason stands.

use std::path::Path;

use ndarray::{Array2, ArrayView1};
use nvembed::model::{Precision, Tolerance};
use nvembed::{EmbedOptions, Embedder, ModelOptions, Prompt};

use crate::common::reference::{cases, largest, name, unit};
use crate::common::{embed_options, root};

fn embed(folder: &Path, prompts: &[Prompt<'_>]) -> Array2<f64> {
    let embedder = Embedder::open(folder, &ModelOptions::default()).unwrap();
    unit(&embedder.embed(prompts, &EmbedOptions::default()).unwrap().to_f32().mapv(f64::from))
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
        let embedder = Embedder::open(&model, &ModelOptions::default()).unwrap();
        let options = embed_options(|options| options.max_batch_size = 1);
        let alone = unit(&embedder.embed(&prompts, &options).unwrap().to_f32().mapv(f64::from));
        let backwards: Vec<_> = prompts.iter().rev().cloned().collect();
        let mut reordered = embed(&model, &backwards);
        reordered.invert_axis(ndarray::Axis(0));
        let difference = largest(&alone, &together).max(largest(&reordered, &together));
        println!("{:<20} alone and reordered {difference:.2e}", name(&folder));
        assert!(difference <= case.batch_bound, "{}: {difference}", name(&folder));
    }
}

#[test]
fn the_exporter_has_the_same_tolerances() {
    let table = std::fs::read_to_string(root().join("export/nvembed_export/distance.py")).unwrap();
    for precision in Precision::ALL {
        let line = match precision.tolerance() {
            Tolerance::LargestDifference(bound) => format!("    \"{precision}\": (LARGEST_DIFFERENCE, {bound:e}),\n"),
            Tolerance::CosineDistance(bound) => format!("    \"{precision}\": (COSINE_DISTANCE, {bound:e}),\n"),
            other => panic!("the exporter does not know {other:?}"),
        };
        assert!(table.contains(&line), "{line}");
    }
}
