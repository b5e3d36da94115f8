//! A model that is open.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use nvembed::queue::{Queue, QueueOptions, SubmitOptions};
use nvembed::{EmbedOptions, Embedder, Prompt};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyDict;

use crate::device_rows::DeviceRows;
use crate::errors::{option, to_python};
use crate::interrupt::interruptible;
use crate::submit::{Delivery, Pending};
use crate::{options, rows};

/// A model that is open, for the class `Embedder` of the package.
#[pyclass(frozen, module = "nvembed._nvembed")]
pub(crate) struct Model {
    /// `None` only while it is dropped.
    inner: Option<Inner>,
    /// The process that opened it.
    process: u32,
}

struct Inner {
    embedder: Arc<Embedder>,
    /// Started by the first request.
    queue: Mutex<Option<Arc<(Queue, Delivery)>>>,
}

impl Model {
    /// # Errors
    /// In a process that was forked from the one that opened the model: none of its threads is there.
    fn inner(&self, py: Python<'_>) -> PyResult<&Inner> {
        let here = std::process::id();
        if let (true, Some(inner)) = (here == self.process, &self.inner) {
            return Ok(inner);
        }
        let make = py.import("nvembed.errors")?.getattr("forked")?;
        Err(PyErr::from_value(make.call1((self.process, here))?))
    }

    /// Embeds texts in a call that Ctrl-C ends.
    ///
    /// # Errors
    /// Those of `embed`; of the options and instructions.
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        texts: &[PyBackedStr],
        instructions: &[PyBackedStr],
        options: &Bound<'_, PyDict>,
        embed: fn(&Embedder, &[Prompt<'_>], &EmbedOptions) -> nvembed::Result<T>,
    ) -> PyResult<T> {
        let inner = self.inner(py)?;
        let mut options = options::of_call(options)?;
        let prompts = prompts(py, instructions, texts)?;
        interruptible(py, |cancel| {
            options.cancel = Some(cancel);
            embed(&inner.embedder, &prompts, &options)
        })
    }

    /// # Errors
    /// When the queue's threads cannot be started.
    fn queue(&self, py: Python<'_>) -> PyResult<Arc<(Queue, Delivery)>> {
        let inner = self.inner(py)?;
        let mut queue = inner.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = &*queue {
            return Ok(Arc::clone(queue));
        }
        let started = Queue::start(Arc::clone(&inner.embedder), QueueOptions::default());
        let started = Arc::new((started.map_err(|error| to_python(py, &error))?, Delivery::start()?));
        *queue = Some(Arc::clone(&started));
        Ok(started)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // It would wait for threads that were not forked.
            std::mem::forget(self.inner.take());
        }
    }
}

/// One prompt per text. There is one instruction for all texts, or one for each; an empty one is none.
fn prompts<'a>(py: Python<'_>, instructions: &'a [PyBackedStr], texts: &'a [PyBackedStr]) -> PyResult<Vec<Prompt<'a>>> {
    if instructions.len() != 1 && instructions.len() != texts.len() {
        let (found, wanted) = (instructions.len(), texts.len());
        return Err(option(py, &format!("{found} instructions for {wanted} texts; give one, or one for each text")));
    }
    let prompt = |(index, text): (usize, &'a PyBackedStr)| {
        let instruction = if instructions.len() == 1 { &instructions[0] } else { &instructions[index] };
        Prompt::with_instruction(&**instruction, &**text)
    };
    Ok(texts.iter().enumerate().map(prompt).collect())
}

#[pymethods]
impl Model {
    /// Opens a model folder.
    #[staticmethod]
    fn open(py: Python<'_>, folder: PathBuf, options: &Bound<'_, PyDict>) -> PyResult<Self> {
        let options = options::of_model(options)?;
        let embedder = interruptible(py, |_| Embedder::open(&folder, &options))?;
        let inner = Inner { embedder: Arc::new(embedder), queue: Mutex::new(None) };
        Ok(Self { inner: Some(inner), process: std::process::id() })
    }

    /// What the model folder says of the model.
    #[getter]
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let manifest = self.inner(py)?.embedder.manifest();
        let facts = PyDict::new(py);
        facts.set_item("name", manifest.name())?;
        facts.set_item("source", manifest.source())?;
        facts.set_item("license", manifest.license())?;
        facts.set_item("digest", manifest.digest())?;
        facts.set_item("precision", manifest.precision().to_string())?;
        facts.set_item("target", manifest.target().to_string())?;
        facts.set_item("dim", manifest.dim())?;
        facts.set_item("max_length", manifest.max_length())?;
        Ok(facts)
    }

    /// Embeds texts, and returns when all are embedded.
    fn embed<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<PyBackedStr>,
        instructions: Vec<PyBackedStr>,
        options: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyDict>> {
        rows::to_python(py, self.call(py, &texts, &instructions, options, Embedder::embed)?)
    }

    /// Embeds texts as one batch, whose rows stay on the GPU.
    fn embed_on_device(
        &self,
        py: Python<'_>,
        texts: Vec<PyBackedStr>,
        instructions: Vec<PyBackedStr>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<DeviceRows> {
        DeviceRows::new(py, self.call(py, &texts, &instructions, options, Embedder::embed_on_device)?)
    }

    /// Puts texts into the queue. `on_done(embeddings, error)` is called once, on a thread of the module.
    fn submit(
        &self,
        py: Python<'_>,
        texts: Vec<PyBackedStr>,
        instructions: Vec<PyBackedStr>,
        options: &Bound<'_, PyDict>,
        on_done: Py<PyAny>,
    ) -> PyResult<Pending> {
        let queue = self.queue(py)?;
        let mut submit = SubmitOptions::default();
        submit.embed = options::of_call(options)?;
        let prompts = prompts(py, &instructions, &texts)?;
        let ticket = py.detach(|| queue.0.submit(&prompts, &submit)).map_err(|error| to_python(py, &error))?;
        Ok(Pending::new(ticket, queue.1.sender(), on_done))
    }

    /// The ids, the number of instruction tokens and whether ids were cut off, of each text.
    fn tokenize(
        &self,
        py: Python<'_>,
        texts: Vec<PyBackedStr>,
        instructions: Vec<PyBackedStr>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Vec<(Vec<u32>, usize, bool)>> {
        let inner = self.inner(py)?;
        let options = options::of_call(options)?;
        let prompts = prompts(py, &instructions, &texts)?;
        let tokens =
            py.detach(|| inner.embedder.tokenize(&prompts, &options)).map_err(|error| to_python(py, &error))?;
        Ok(tokens.into_iter().map(|tokens| (tokens.ids, tokens.instruction_tokens, tokens.truncated)).collect())
    }

    /// Makes buffers and CUDA graphs for all shapes; returns their number, which is 0 on a CPU.
    fn warm_up(&self, py: Python<'_>, options: &Bound<'_, PyDict>) -> PyResult<usize> {
        let inner = self.inner(py)?;
        let options = options::of_call(options)?;
        py.detach(|| inner.embedder.warm_up(&options)).map_err(|error| to_python(py, &error))
    }
}
