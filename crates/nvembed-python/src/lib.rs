//! The compiled module `_nvembed` of the Python package `nvembed`: a model, its queue, and errors as Python's. What the
//! arguments of `SentenceTransformer` mean is decided in Python (`python/nvembed/embedder.py`).

mod device_rows;
mod errors;
mod interrupt;
mod model;
mod options;
mod rows;
mod submit;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The module's contents.
#[pymodule]
fn _nvembed(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add("DEFAULT_TASK", nvembed::Prompt::DEFAULT_TASK)?;
    let codes = PyDict::new(module.py());
    for kind in nvembed::ErrorKind::ALL {
        codes.set_item(format!("{kind:?}"), kind.code())?;
    }
    module.add("CODES", codes)?;
    module.add_class::<device_rows::DeviceRows>()?;
    module.add_class::<model::Model>()?;
    module.add_class::<submit::Pending>()
}
