//! Whether the driver and the GPUs can run the code that ONNX Runtime's library has.

use super::driver::{DeviceInfo, devices, driver_version};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Precision;
use crate::provider::Provider;

/// The major version of CUDA that the accepted libraries are built with. A driver has to support it.
const CUDA_MAJOR: i32 = 13;

/// A kind of GPU that a library has machine code for, by its compute capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    /// For this capability and higher minor versions of the same major one.
    From(i32, i32),
    /// For this one alone: code that uses what only this architecture has (`sm_90a`).
    Exactly(i32, i32),
}

/// The ONNX Runtime whose CUDA code is known, as (major, minor).
pub const KNOWN_LIBRARY: (u32, u32) = (1, 31);

/// The machine code in the CUDA provider of PyPI's onnxruntime-gpu 1.31 (`cuobjdump --list-elf`). It has no PTX, from which a
/// driver could make code for others.
const CODE_OF_1_31: [Code; 6] =
    [Code::From(7, 5), Code::From(8, 0), Code::From(8, 6), Code::From(8, 9), Code::Exactly(9, 0), Code::Exactly(12, 0)];

/// Whether ONNX Runtime's CUDA kernels run on a GPU of that compute capability, by CUDA's rule of binary compatibility
/// ([CUDA C++ Programming Guide, Application Compatibility](https://docs.nvidia.com/cuda/cuda-c-programming-guide/)); `None`
/// for a library whose code is not known. `library` is ONNX Runtime's (major, minor).
fn has_kernels(library: (u32, u32), (major, minor): (i32, i32)) -> Option<bool> {
    let code = (library == KNOWN_LIBRARY).then_some(CODE_OF_1_31)?;
    Some(code.iter().any(|code| match *code {
        Code::From(of_major, from_minor) => of_major == major && from_minor <= minor,
        Code::Exactly(of_major, of_minor) => (of_major, of_minor) == (major, minor),
    }))
}

/// Checks that the driver is new enough for the accepted libraries; returns the newest CUDA that it supports, as (major,
/// minor).
///
/// # Errors
/// [`ErrorKind::Provider`] when there is no driver, or it is too old for the library, with the remedy.
pub fn check_driver() -> Result<(i32, i32)> {
    let (major, minor) = driver_version()?;
    if major >= CUDA_MAJOR {
        return Ok((major, minor));
    }
    let message = format!(
        "the NVIDIA driver supports CUDA {major}.{minor}, and ONNX Runtime's library needs {CUDA_MAJOR}; install driver R580 or \
         newer, or on a data-centre GPU the package cuda-compat-{CUDA_MAJOR}-0"
    );
    Err(Error::new(ErrorKind::Provider, message))
}

/// Checks that a GPU can run ONNX Runtime's CUDA kernels, and those of a precision, as far as is known. `library` is ONNX
/// Runtime's (major, minor).
///
/// # Errors
/// [`ErrorKind::Provider`] when it cannot, with the remedy.
pub fn check_device(library: (u32, u32), device: &DeviceInfo, precision: Option<Precision>) -> Result<()> {
    problem(library, device, precision).map_or(Ok(()), |problem| Err(Error::new(ErrorKind::Provider, problem)))
}

fn problem(library: (u32, u32), device: &DeviceInfo, precision: Option<Precision>) -> Option<String> {
    let DeviceInfo { id, name, compute_capability: (major, minor), .. } = device;
    let gpu = format!("GPU {id}, {name}, has compute capability {major}.{minor}");
    if has_kernels(library, (*major, *minor)) == Some(false) {
        let (of_major, of_minor) = library;
        return Some(format!(
            "{gpu}; ONNX Runtime {of_major}.{of_minor} has code for 7.5, 8.x, 9.0 and 12.0 only; use another GPU, or build ONNX \
             Runtime for this one"
        ));
    }
    (precision == Some(Precision::Bf16) && *major < 8)
        .then(|| format!("{gpu}, and bf16 needs 8.0 or newer; export the model with --precision fp16"))
}

/// Checks the driver, and the GPUs that a model is to be opened on, before anything is loaded onto them.
///
/// # Errors
/// [`ErrorKind::Provider`] with the first problem and its remedy.
pub(crate) fn check_gpus(provider: Provider, library: (u32, u32), ids: &[usize], precision: Precision) -> Result<()> {
    check_driver()?;
    if !provider.uses_cuda_kernels() {
        return Ok(());
    }
    for device in devices()?.iter().filter(|device| ids.contains(&device.id)) {
        if has_kernels(library, device.compute_capability).is_none() {
            let (major, minor) = device.compute_capability;
            tracing::warn!(
                "it is not known whether this ONNX Runtime has kernels for compute capability {major}.{minor}"
            );
        }
        check_device(library, device, Some(precision))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wheel_of_1_31_has_code_for_these_gpus_and_no_others() {
        let runs = |capability| has_kernels((1, 31), capability).unwrap();
        // T4, A100, A10, Orin, L40S, H100, RTX 5090.
        for capability in [(7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (12, 0)] {
            assert!(runs(capability), "{capability:?}");
        }
        // V100, B200, B300, Thor, GB10.
        for capability in [(7, 0), (10, 0), (10, 3), (11, 0), (12, 1)] {
            assert!(!runs(capability), "{capability:?}");
        }
        assert_eq!(has_kernels((1, 99), (9, 0)), None);
    }

    #[test]
    fn bf16_needs_ampere() {
        let device =
            |compute_capability| DeviceInfo { id: 0, name: "a GPU".to_owned(), compute_capability, total_memory: 0 };
        let problem = |capability, precision| problem((1, 31), &device(capability), precision);
        assert!(problem((7, 5), Some(Precision::Bf16)).unwrap().contains("bf16 needs 8.0"));
        assert_eq!(problem((7, 5), Some(Precision::Fp16)), None);
        assert_eq!(problem((8, 0), Some(Precision::Bf16)), None);
        assert!(problem((10, 0), None).unwrap().contains("compute capability 10.0"));
    }
}
