//! Embeddings as NumPy arrays, which own what the library computed: nothing is copied.

use numpy::{IntoPyArray, PyArray1};
use nvembed::{Embeddings, Rows};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// `values` `[N, D]` (or `[N, ⌈D / 8⌉]` bytes of bits), `scales` `[N]` float32 of int8 or None, `tokens` `[N]` int64, and
/// `truncated` `[N]` bool.
pub(crate) fn to_python(py: Python<'_>, embeddings: Embeddings) -> PyResult<Bound<'_, PyDict>> {
    let out = PyDict::new(py);
    let tokens: Vec<i64> = embeddings.token_counts().iter().map(|count| *count as i64).collect();
    out.set_item("tokens", PyArray1::from_vec(py, tokens))?;
    out.set_item("truncated", PyArray1::from_vec(py, embeddings.truncated().to_vec()))?;
    out.set_item("scales", py.None())?;
    match embeddings.into_rows() {
        Rows::F32(values) => out.set_item("values", values.into_pyarray(py))?,
        Rows::F16(values) => out.set_item("values", values.into_pyarray(py))?,
        Rows::Int8 { values, scales, .. } => {
            out.set_item("values", values.into_pyarray(py))?;
            out.set_item("scales", PyArray1::from_vec(py, scales))?;
        }
        Rows::Binary { bytes, .. } => out.set_item("values", bytes.into_pyarray(py))?,
        _ => return Err(PyRuntimeError::new_err("this element type has no form in NumPy yet")),
    }
    Ok(out)
}
