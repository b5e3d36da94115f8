//! Rows in a GPU's memory, which torch, CuPy, JAX and others take over through DLPack.
#![expect(unsafe_code, reason = "DLPack describes memory by its address")]

use std::sync::Arc;

use dlpark::ffi::{DLDataType, DLDevice, DLDeviceType, DLManagedTensor, DLManagedTensorVersioned};
use dlpark::metadata::Fixed;
use dlpark::python::{DlpackExporter, ExportRequest, export_dlpack};
use dlpark::{DlpackFlags, Managed, ManagedTensorBase};
use nvembed::Dtype;
use nvembed::gpu::DeviceEmbeddings;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

use crate::errors::to_python;

/// Embeddings in a GPU's memory, `[N, D]`, complete. Whoever takes them through DLPack keeps the memory.
#[pyclass(frozen, module = "nvembed._nvembed")]
pub(crate) struct DeviceRows {
    rows: Arc<nvembed::gpu::DeviceRows>,
    tokens: Vec<usize>,
    truncated: Vec<bool>,
}

impl DeviceRows {
    /// # Errors
    /// When the run failed, or the GPU has no memory left.
    pub(crate) fn new(py: Python<'_>, embeddings: DeviceEmbeddings) -> PyResult<Self> {
        let (tokens, truncated) = (embeddings.token_counts().to_vec(), embeddings.truncated().to_vec());
        let rows = py.detach(|| embeddings.into_rows()).map_err(|error| to_python(py, &error))?;
        Ok(Self { rows: Arc::new(rows), tokens, truncated })
    }

    fn tensor<T: ManagedTensorBase>(&self) -> PyResult<Managed<T>> {
        let failed = |error| PyBufferError::new_err(format!("a tensor could not be described: {error}"));
        let (rows, dim) = self.rows.shape();
        let metadata = Fixed::new([rows as i64, dim as i64], [dim as i64, 1]).prepare_as::<T>().map_err(failed)?;
        let mut tensor = metadata.initialize(Arc::clone(&self.rows));
        tensor.set_data(self.rows.device_pointer() as *mut std::ffi::c_void);
        tensor.set_device(self.device());
        tensor.set_dtype(match self.rows.dtype() {
            Dtype::F16 => DLDataType::F16,
            _ => DLDataType::F32,
        });
        // SAFETY: the memory has N × D such numbers in rows without gaps, and is there until the context, a share of its owner, is
        // dropped. Shape and strides are part of the tensor.
        Ok(unsafe { tensor.finish() })
    }
}

impl DlpackExporter for DeviceRows {
    fn device(&self) -> DLDevice {
        let device_id = i32::try_from(self.rows.device_id()).unwrap_or(i32::MAX);
        DLDevice { device_type: DLDeviceType::CUDA, device_id }
    }

    fn flags(&self) -> DlpackFlags {
        DlpackFlags::empty()
    }

    /// Rows are complete, so no stream has to wait.
    fn prepare_export(&self, _: Python<'_>, request: &ExportRequest<'_>) -> PyResult<()> {
        request.cuda_stream().map(drop)
    }

    fn export_legacy(&self, _: Python<'_>) -> PyResult<Managed<DLManagedTensor>> {
        self.tensor()
    }

    fn export_versioned(&self, _: Python<'_>) -> PyResult<Managed<DLManagedTensorVersioned>> {
        self.tensor()
    }
}

#[pymethods]
impl DeviceRows {
    /// (N, D).
    #[getter]
    fn shape(&self) -> (usize, usize) {
        self.rows.shape()
    }

    /// "float16" or "float32".
    #[getter]
    fn dtype(&self) -> &'static str {
        match self.rows.dtype() {
            Dtype::F16 => "float16",
            _ => "float32",
        }
    }

    /// The GPU's number.
    #[getter]
    fn device_id(&self) -> usize {
        self.rows.device_id()
    }

    /// Token ids of each row.
    #[getter]
    fn tokens(&self) -> Vec<usize> {
        self.tokens.clone()
    }

    /// Whether ids of each row were cut off.
    #[getter]
    fn truncated(&self) -> Vec<bool> {
        self.truncated.clone()
    }

    fn __repr__(&self) -> String {
        let (rows, dim) = self.rows.shape();
        format!("DeviceRows({rows} × {dim}, {}, cuda:{})", self.dtype(), self.rows.device_id())
    }

    /// (2, the GPU's number): 2 is CUDA.
    fn __dlpack_device__(&self) -> (u32, i32) {
        let device = self.device();
        (device.device_type.0, device.device_id)
    }

    /// A capsule for whoever takes the rows, without a copy.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(u32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Py<PyAny>> {
        export_dlpack(self, py, ExportRequest::parse(stream.as_ref(), max_version, dl_device, copy)?)
    }
}
