//! Options by the names that they have in Rust, from dictionaries of Python.

use std::str::FromStr;
use std::time::Instant;

use nvembed::gpu::GpuOptions;
use nvembed::{EmbedOptions, ModelOptions};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::errors::{option, seconds, to_python};

fn parsed<T: FromStr<Err = nvembed::Error>>(value: &Bound<'_, PyAny>) -> PyResult<T> {
    let text = value.cast::<PyString>()?.to_cow()?;
    text.parse().map_err(|error| to_python(value.py(), &error))
}

/// Options of opening a model. `None` leaves an option at its default.
///
/// # Errors
/// An unknown name, a value of the wrong type or out of range.
pub(crate) fn of_model(given: &Bound<'_, PyDict>) -> PyResult<ModelOptions> {
    let mut options = ModelOptions::default();
    for (name, value) in given {
        let name: String = name.extract()?;
        if value.is_none() {
            continue;
        }
        match name.as_str() {
            "provider" => options.provider = parsed(&value)?,
            "library" => options.library = Some(value.extract()?),
            "provider_library" => options.provider_library = Some(value.extract()?),
            "intra_threads" => options.intra_threads = Some(value.extract()?),
            "verify_hashes" => options.verify_hashes = value.extract()?,
            "self_check" => options.self_check = value.extract()?,
            "cache" => options.cache = Some(value.extract()?),
            "parallel_prepacking" => options.parallel_prepacking = value.extract()?,
            "low_memory" => options.low_memory = value.extract()?,
            "provider_options" => {
                options.provider_options = value.cast::<PyDict>()?.iter().map(pair).collect::<PyResult<_>>()?;
            }
            _ if GpuOptions::NAMES.contains(&name.as_str()) => of_gpu(&mut options.gpu, &name, &value)?,
            _ => return Err(unknown(&value, &name, &[ModelOptions::NAMES, GpuOptions::NAMES].concat())),
        }
    }
    Ok(options)
}

fn pair((name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)) -> PyResult<(String, String)> {
    Ok((name.extract()?, value.str()?.extract()?))
}

fn of_gpu(options: &mut GpuOptions, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match name {
        "device_ids" => options.device_ids = value.extract()?,
        "memory_limit" => options.memory_limit = Some(value.extract()?),
        "arena_strategy" => options.arena_strategy = parsed(value)?,
        "tf32" => options.tf32 = value.extract()?,
        "fpa_intb_gemm" => options.fpa_intb_gemm = value.extract()?,
        "cuda_graphs" => options.cuda_graphs = value.extract()?,
        "max_cuda_graphs" => options.max_cuda_graphs = value.extract()?,
        "buffer_sets" => options.buffer_sets = value.extract()?,
        "sequence_buckets" => options.sequence_buckets = value.extract()?,
        "batch_buckets" => options.batch_buckets = value.extract()?,
        "builder_optimization_level" => options.builder_optimization_level = value.extract()?,
        "workspace" => options.workspace = Some(value.extract()?),
        "build_on_open" => options.build_on_open = value.extract()?,
        _ => return Err(option(value.py(), &format!("option `{name}` is for Rust and C only"))),
    }
    Ok(())
}

/// Options of a call. `timeout`, in seconds, is its deadline.
///
/// # Errors
/// As [`of_model`].
pub(crate) fn of_call(given: &Bound<'_, PyDict>) -> PyResult<EmbedOptions> {
    let mut options = EmbedOptions::default();
    for (name, value) in given {
        let name: String = name.extract()?;
        if value.is_none() {
            continue;
        }
        match name.as_str() {
            "max_length" => options.max_length = Some(value.extract()?),
            "truncation" => options.truncation = parsed(&value)?,
            "special_tokens" => options.special_tokens = parsed(&value)?,
            "max_batch_tokens" => options.max_batch_tokens = Some(value.extract()?),
            "max_batch_size" => options.max_batch_size = value.extract()?,
            "dtype" => options.dtype = parsed(&value)?,
            "dimensions" => options.dimensions = Some(value.extract()?),
            "timeout" => {
                let wait = seconds(value.py(), "timeout", value.extract()?)?;
                // A moment that the clock cannot represent is never reached.
                options.deadline = Instant::now().checked_add(wait);
            }
            _ => {
                let names = EmbedOptions::NAMES
                    .iter()
                    .copied()
                    .filter(|name| !matches!(*name, "window" | "deadline" | "cancel"));
                return Err(unknown(&value, &name, &[&names.collect::<Vec<_>>()[..], &["timeout"]].concat()));
            }
        }
    }
    Ok(options)
}

fn unknown(value: &Bound<'_, PyAny>, name: &str, names: &[&str]) -> PyErr {
    option(value.py(), &format!("there is no option `{name}`; there are {}", names.join(", ")))
}
