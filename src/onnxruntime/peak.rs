//! The speed of one matrix product, which the speed of a whole model can be compared with.

use std::time::{Duration, Instant};

use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
use ort::memory::Allocator;
use ort::operator::Attribute;
use ort::session::Session;
use ort::value::{
    Outlet, PrimitiveTensorElementType, Shape, SymbolicDimensions, Tensor, TensorElementType, TensorRef, ValueType,
};

use super::Library;
use super::graph::{GraphFile, builder};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Manifest, Precision, Quantization};
use crate::options::ModelOptions;
use crate::provider::Provider;

/// ONNX Runtime's own operators.
const MICROSOFT: &str = "com.microsoft";
/// The opset of the product's graph; its operators are the same in all opsets that ONNX Runtime knows.
const OPSET: u32 = 21;
/// How long the product is repeated.
const TIME: Duration = Duration::from_millis(300);
/// The least number of repetitions.
const RUNS: usize = 5;

/// Operations per second (a multiplication and an addition are two) of one matrix product: `rows` tokens by the model's
/// widest layer, `[rows, hidden_size] × [hidden_size, intermediate_size]`, in the arithmetic of the model's precision, with
/// the same library, provider and threads. The fastest run in 0.3 s.
///
/// `None` on GPUs, where one product would mostly copy between host and device, on OpenVINO, and for a precision that the CPU
/// does not run.
///
/// # Errors
/// [`ErrorKind::Option`] when an option is out of range; [`ErrorKind::Inference`] when ONNX Runtime refuses the product, for
/// example because memory runs out.
pub fn matmul_peak(manifest: &Manifest, library: &Library, options: &ModelOptions, rows: usize) -> Result<Option<f64>> {
    options.check()?;
    if options.provider != Provider::Cpu || manifest.precision() == Precision::Bf16 {
        return Ok(None);
    }
    let shape = manifest.architecture();
    let (width, out) = (shape.hidden_size, shape.intermediate_size);
    let graph = match (manifest.precision(), manifest.quantization()) {
        (Precision::W8a8, _) => integers(width, out),
        (_, Some(quantization)) => blocks(width, out, quantization),
        _ => floats(width, out),
    };
    let failed = |error: ort::Error| {
        let message = format!("ONNX Runtime failed on a product of {rows} × {width} by {width} × {out}");
        Error::new(ErrorKind::Inference, message).because(error)
    };
    let builder = builder(library, options, &GraphFile::Model)?;
    let session = graph.and_then(|graph| {
        let mut model = Model::new([Opset::new(ONNX_DOMAIN, OPSET)?, Opset::new(MICROSOFT, 1)?])?;
        model.set_graph(graph)?;
        model.into_session(&builder)
    });
    let fastest = fastest_run(session.map_err(failed)?, rows, width, manifest.precision()).map_err(failed)?;
    Ok(Some(2.0 * rows as f64 * width as f64 * out as f64 / fastest.as_secs_f64()))
}

fn fastest_run(mut session: Session, rows: usize, width: usize, precision: Precision) -> ort::Result<Duration> {
    let (codes, values) = (vec![100_u8; rows * width], vec![0.5_f32; rows * width]);
    let (mut fastest, start) = (Duration::MAX, Instant::now());
    for run in 0.. {
        if run > RUNS && start.elapsed() > TIME {
            break;
        }
        let begin = Instant::now();
        match precision {
            Precision::W8a8 => drop(session.run(ort::inputs![TensorRef::from_array_view(([rows, width], &*codes))?])?),
            _ => drop(session.run(ort::inputs![TensorRef::from_array_view(([rows, width], &*values))?])?),
        }
        // The first run allocates.
        if run > 0 {
            fastest = fastest.min(begin.elapsed());
        }
    }
    Ok(fastest)
}

/// x W in float32.
fn floats(width: usize, out: usize) -> ort::Result<Graph> {
    let mut graph = product(TensorElementType::Float32, width, out)?;
    constant(&mut graph, "w", [width, out], 0.25_f32)?;
    graph.add_node(Node::new("MatMul", ONNX_DOMAIN, "product", ["x", "w"], ["y"], [])?)?;
    Ok(graph)
}

/// x W with W in codes by block, as the exporter writes int8 and int4.
fn blocks(width: usize, out: usize, quantization: Quantization) -> ort::Result<Graph> {
    let Quantization { bits, block_size, accuracy_level, .. } = quantization;
    let block = block_size.unwrap_or(32) as usize;
    let blocks = width.div_ceil(block);
    let mut graph = product(TensorElementType::Float32, width, out)?;
    constant(&mut graph, "codes", [out, blocks, block * bits as usize / 8], 0x5a_u8)?;
    constant(&mut graph, "scales", [out, blocks], 0.01_f32)?;
    let fact = |name, value: usize| Attribute::new(name, i64::try_from(value).unwrap_or(i64::MAX));
    let facts = [
        fact("K", width)?,
        fact("N", out)?,
        fact("bits", bits as usize)?,
        fact("block_size", block)?,
        fact("accuracy_level", accuracy_level.unwrap_or(0) as usize)?,
    ];
    graph.add_node(Node::new("MatMulNBits", MICROSOFT, "product", ["x", "codes", "scales"], ["y"], facts)?)?;
    Ok(graph)
}

/// x W with both in 8-bit codes, as the exporter writes w8a8.
fn integers(width: usize, out: usize) -> ort::Result<Graph> {
    let mut graph = product(TensorElementType::Uint8, width, out)?;
    constant(&mut graph, "w", [width, out], 3_i8)?;
    constant(&mut graph, "scale", [], 0.01_f32)?;
    constant(&mut graph, "scales", [out], 0.01_f32)?;
    constant(&mut graph, "zero", [], 128_u8)?;
    let inputs = ["x", "w", "scale", "scales", "zero"];
    graph.add_node(Node::new("MatMulIntegerToFloat", MICROSOFT, "product", inputs, ["y"], [])?)?;
    Ok(graph)
}

/// A graph from x `[rows, width]` to y `[rows, out]`, without its node.
fn product(x: TensorElementType, width: usize, out: usize) -> ort::Result<Graph> {
    let outlet = |name, ty, columns: usize| {
        let shape = Shape::new([-1, i64::try_from(columns).unwrap_or(i64::MAX)]);
        Outlet::new(name, ValueType::Tensor { ty, shape, dimension_symbols: SymbolicDimensions::empty(2) })
    };
    let mut graph = Graph::new()?;
    graph.set_inputs([outlet("x", x, width)])?;
    graph.set_outputs([outlet("y", TensorElementType::Float32, out)])?;
    Ok(graph)
}

fn constant<T, const N: usize>(graph: &mut Graph, name: &str, shape: [usize; N], value: T) -> ort::Result<()>
where
    T: PrimitiveTensorElementType + Copy + std::fmt::Debug,
{
    let mut tensor = Tensor::<T>::new(&Allocator::default(), shape)?;
    tensor.extract_tensor_mut().1.fill(value);
    graph.add_initializer(name, tensor, false)
}
