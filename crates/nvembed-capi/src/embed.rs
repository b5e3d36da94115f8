//! Embedding: texts in, rows out.

use std::ffi::{c_char, c_void};

use half::f16;
use ndarray::ArrayView2;
use nvembed::{Dtype, EmbedOptions, Embeddings, Prompt, Rows};

use crate::cancel::nvembed_cancel;
use crate::codes::{
    NVEMBED_BUFFER_TOO_SMALL, NVEMBED_INTERNAL, NVEMBED_INVALID_ARGUMENT, NVEMBED_STRUCT_SIZE, nvembed_code,
};
use crate::error::{Failure, nvembed_error};
use crate::model::nvembed_model;
use crate::options::{nvembed_embed_options, of_call};
use crate::{guard, handle, memory};

/// A string of the caller: UTF-8, `length` bytes, no NUL needed. NULL with length 0 is the empty string.
///
/// The layout of this struct is final.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nvembed_string {
    /// The first byte.
    pub data: *const c_char,
    /// The number of bytes.
    pub length: usize,
}

/// A text and the literal instruction before it, which may be empty. nvembed_query_instruction() makes one from a task.
///
/// The layout of this struct is final.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nvembed_prompt {
    /// What the model reads before the text and does not pool.
    pub instruction: nvembed_string,
    /// The text.
    pub text: nvembed_string,
}

/// Elements are 32-bit floats: `data` is a float *.
pub const NVEMBED_F32: i32 = 0;
/// Elements are 16-bit floats (IEEE half precision): `data` is a uint16_t *.
pub const NVEMBED_F16: i32 = 1;

/// Elements are 8-bit integers, -127 to 127: `data` is an int8_t *. `scales` gets what each row has to be multiplied by; cosine
/// similarity does not need it, a dot product does.
pub const NVEMBED_INT8: i32 = 2;
/// Elements are bytes of eight bits, 1 for a number greater than 0, the first number in the most significant bit: `data` is a
/// uint8_t *. A row has ⌈dimension / 8⌉ elements; the last one is filled up with zeros.
pub const NVEMBED_BINARY: i32 = 3;

/// `data` is host memory. nvembed_embed_on_device() leaves rows on a GPU.
pub const NVEMBED_MEMORY_HOST: i32 = 0;

/// Where a call writes its results. Zero the whole struct, set `struct_size` to sizeof(nvembed_output), then set the fields
/// that you need.
///
/// Later versions may append fields; `struct_size` tells the library which fields exist.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nvembed_output {
    /// sizeof(nvembed_output).
    pub struct_size: usize,
    /// Row i of the result starts at element i * row_stride. Aligned to an element.
    pub data: *mut c_void,
    /// The number of elements that `data` has room for: at least (rows - 1) * row_stride + the elements of a row. A row has as
    /// many elements as the dimension, or as nvembed_embed_options_set_dimensions() says; of NVEMBED_BINARY, an eighth of them.
    pub capacity: usize,
    /// Elements from the start of one row to the next, at least those of a row; 0 means those of a row. The gap between rows is
    /// not written.
    pub row_stride: usize,
    /// NVEMBED_F32, NVEMBED_F16, NVEMBED_INT8 or NVEMBED_BINARY.
    pub dtype: i32,
    /// NVEMBED_MEMORY_HOST.
    pub memory: i32,
    /// NULL, or an array with one number per row: its token count, including `<s>` and the instruction.
    pub token_counts: *mut usize,
    /// NULL, or an array with one number per row: 1 if tokens were cut off, else 0.
    pub truncated: *mut u8,
    /// NULL, or with NVEMBED_INT8 an array with one number per row: what the row has to be multiplied by.
    pub scales: *mut f32,
}

/// The size of the struct before `scales`.
const SIZE_WITHOUT_SCALES: usize = std::mem::offset_of!(nvembed_output, scales);

/// The element types by their numbers in C.
const DTYPES: [(i32, Dtype); 4] = [
    (NVEMBED_F32, Dtype::F32),
    (NVEMBED_F16, Dtype::F16),
    (NVEMBED_INT8, Dtype::Int8),
    (NVEMBED_BINARY, Dtype::Binary),
];

/// Embeds `count` prompts: row i of the output belongs to prompt i. `options` and `cancel` may be NULL. A call that fails
/// writes nothing to the output.
///
/// Thread-safe, even on one model: calls tokenize at the same time and take turns on the graph. Each call needs its own output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed(
    model: *const nvembed_model,
    prompts: *const nvembed_prompt,
    count: usize,
    options: *const nvembed_embed_options,
    output: *const nvembed_output,
    cancel: *const nvembed_cancel,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: the pointers are as the contract says.
    unsafe {
        guard(error, || {
            let options = of_call(options, cancel)?;
            let prompts = prompts_of(memory::slice("prompts", prompts, count)?)?;
            embed(model, &prompts, options, output)
        })
    }
}

/// Embeds `count` texts with the same instruction, which may be empty; otherwise as nvembed_embed().
///
/// Thread-safe, as nvembed_embed().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_texts(
    model: *const nvembed_model,
    instruction: *const c_char,
    instruction_length: usize,
    texts: *const nvembed_string,
    count: usize,
    options: *const nvembed_embed_options,
    output: *const nvembed_output,
    cancel: *const nvembed_cancel,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: the pointers are as the contract says.
    unsafe {
        guard(error, || {
            let options = of_call(options, cancel)?;
            let instruction = memory::text("the instruction", instruction, instruction_length)?;
            let texts = memory::slice("texts", texts, count)?.iter().enumerate();
            let prompts =
                texts.map(|(index, text)| Ok(Prompt::with_instruction(instruction, text_of(index, "text", text)?)));
            embed(model, &prompts.collect::<Result<Vec<_>, Failure>>()?, options, output)
        })
    }
}

/// Counts tokens as nvembed_embed() would, without running the graph. `token_counts` and `truncated`, each NULL or an array
/// of `count` numbers, are filled as in nvembed_output. A prompt that cannot be embedded is an error.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_count_tokens(
    model: *const nvembed_model,
    prompts: *const nvembed_prompt,
    count: usize,
    options: *const nvembed_embed_options,
    token_counts: *mut usize,
    truncated: *mut u8,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: the pointers are as the contract says.
    unsafe {
        guard(error, || {
            let model = handle::get(model)?;
            let options = of_call(options, std::ptr::null())?;
            let arrays = PerRow::new(token_counts, truncated)?;
            let prompts = prompts_of(memory::slice("prompts", prompts, count)?)?;
            for (index, tokens) in model.tokenize(&prompts, &options)?.iter().enumerate() {
                arrays.set(index, tokens.ids.len(), tokens.truncated);
            }
            Ok(())
        })
    }
}

/// # Safety
/// `output` is as the contract says.
unsafe fn embed(
    model: *const nvembed_model,
    prompts: &[Prompt<'_>],
    mut options: EmbedOptions,
    output: *const nvembed_output,
) -> Result<(), Failure> {
    let model = handle::get(model)?;
    // SAFETY: as this function's.
    let output = unsafe { read_output(output)? };
    let dim = options.dimensions.unwrap_or(model.dim()).min(model.dim());
    let (dtype, stride) = check_output(&output, prompts.len(), dim)?;
    let arrays = PerRow::new(output.token_counts, output.truncated)?;
    options.dtype = dtype;

    let embeddings = model.embed(prompts, &options)?;
    // SAFETY: alignment and capacity were checked for the element type, and the rest is the caller's promise.
    unsafe { write_output(&embeddings, &output, stride, &arrays) }
}

/// Writes all rows.
///
/// # Safety
/// `output` was checked for this many rows of this element type; the rest is as the contract says.
unsafe fn write_output(
    embeddings: &Embeddings,
    output: &nvembed_output,
    stride: usize,
    arrays: &PerRow,
) -> Result<(), Failure> {
    // SAFETY: as this function's; each arm writes elements of the type that was checked.
    unsafe {
        match embeddings.rows() {
            Rows::F32(rows) => copy_rows::<f32>(rows.view(), output.data.cast(), stride),
            Rows::F16(rows) => copy_rows::<f16>(rows.view(), output.data.cast(), stride),
            Rows::Int8 { values, scales, .. } => {
                copy_rows::<i8>(values.view(), output.data.cast(), stride);
                if !output.scales.is_null() {
                    for (index, scale) in scales.iter().enumerate() {
                        output.scales.add(index).write(*scale);
                    }
                }
            }
            Rows::Binary { bytes, .. } => copy_rows::<u8>(bytes.view(), output.data.cast(), stride),
            rows => {
                let message = format!("a bug in nvembed: C has no rows of type {}", rows.dtype());
                return Err(Failure::new(NVEMBED_INTERNAL, message));
            }
        }
        for (index, (tokens, truncated)) in embeddings.token_counts().iter().zip(embeddings.truncated()).enumerate() {
            arrays.set(index, *tokens, *truncated);
        }
    }
    Ok(())
}

/// # Safety
/// The strings are as the contract says, for `'a`.
pub(crate) unsafe fn prompts_of<'a>(prompts: &'a [nvembed_prompt]) -> Result<Vec<Prompt<'a>>, Failure> {
    let one = |(index, prompt): (usize, &nvembed_prompt)| {
        // SAFETY: as this function's.
        let (instruction, text) =
            unsafe { (text_of(index, "instruction", &prompt.instruction)?, text_of(index, "text", &prompt.text)?) };
        Ok(Prompt::with_instruction(instruction, text))
    };
    prompts.iter().enumerate().map(one).collect()
}

/// # Safety
/// As [`memory::text`].
unsafe fn text_of<'a>(index: usize, what: &str, string: &nvembed_string) -> Result<&'a str, Failure> {
    // SAFETY: as this function's.
    unsafe { memory::text(format_args!("prompt {index}: the {what}"), string.data, string.length) }
}

/// # Safety
/// `output`, unless it is NULL or misaligned, points to a struct of as many bytes as its first field says.
unsafe fn read_output(output: *const nvembed_output) -> Result<nvembed_output, Failure> {
    memory::check("output", output)?;
    // SAFETY: not NULL and aligned; every version of the struct starts with its size.
    let size = unsafe { output.cast::<usize>().read() };
    match size {
        // SAFETY: it has the size of this version.
        size if size == size_of::<nvembed_output>() => Ok(unsafe { output.read() }),
        SIZE_WITHOUT_SCALES => {
            let scales = std::ptr::null_mut();
            let mut whole = nvembed_output {
                struct_size: size,
                data: std::ptr::null_mut(),
                capacity: 0,
                row_stride: 0,
                dtype: 0,
                memory: 0,
                token_counts: std::ptr::null_mut(),
                truncated: std::ptr::null_mut(),
                scales,
            };
            // SAFETY: the caller's struct has this many bytes, which are the first ones of this version's.
            unsafe { std::ptr::copy_nonoverlapping(output.cast::<u8>(), (&raw mut whole).cast(), SIZE_WITHOUT_SCALES) };
            Ok(whole)
        }
        size => {
            let message = format!(
                "the struct_size of output must be {}, got {size}; set it to sizeof(nvembed_output), and use a library that is \
                 at least as new as the header",
                size_of::<nvembed_output>()
            );
            Err(Failure::new(NVEMBED_STRUCT_SIZE, message))
        }
    }
}

/// Checks an output for `count` rows. Returns its element type and the stride in force, in elements.
fn check_output(output: &nvembed_output, count: usize, dim: usize) -> Result<(Dtype, usize), Failure> {
    let invalid = |message: String| Failure::new(NVEMBED_INVALID_ARGUMENT, message);
    let nvembed_output { row_stride, capacity, .. } = *output;
    if output.memory != NVEMBED_MEMORY_HOST {
        return Err(invalid(format!("the output's memory must be NVEMBED_MEMORY_HOST (0), got {}", output.memory)));
    }
    let Some((_, dtype)) = DTYPES.into_iter().find(|(number, _)| *number == output.dtype) else {
        return Err(invalid(format!(
            "the output's dtype must be NVEMBED_F32 (0), NVEMBED_F16 (1), NVEMBED_INT8 (2) or NVEMBED_BINARY (3), got {}",
            output.dtype
        )));
    };
    let width = dtype.elements(dim);
    let stride = if row_stride == 0 { width } else { row_stride };
    if stride < width {
        return Err(invalid(format!(
            "the output's row_stride must be 0 or at least the elements of a row, {width}, got {stride}"
        )));
    }
    let needed = match count.checked_sub(1) {
        None => Some(0),
        Some(before_last) => before_last.checked_mul(stride).and_then(|elements| elements.checked_add(width)),
    };
    let needed = needed
        .ok_or_else(|| invalid(format!("{count} rows do not fit any memory with the output's row_stride, {stride}")))?;
    if capacity < needed {
        let message =
            format!("the output's capacity must be at least {needed} elements for {count} rows, got {capacity}");
        return Err(Failure::new(NVEMBED_BUFFER_TOO_SMALL, message));
    }
    if !output.scales.is_null() {
        if dtype != Dtype::Int8 {
            return Err(invalid("the output's scales must be NULL unless its dtype is NVEMBED_INT8".to_owned()));
        }
        memory::check("the output's scales", output.scales)?;
    }
    match dtype {
        _ if count == 0 => {}
        Dtype::F32 => memory::check("the output's data", output.data.cast::<f32>())?,
        Dtype::F16 => memory::check("the output's data", output.data.cast::<f16>())?,
        _ => memory::check("the output's data", output.data.cast::<u8>())?,
    }
    Ok((dtype, stride))
}

/// The number of an element type in C.
pub(crate) fn dtype_in_c(wanted: Dtype) -> Result<i32, Failure> {
    let found = DTYPES.into_iter().find(|(_, dtype)| *dtype == wanted);
    found
        .map(|(number, _)| number)
        .ok_or_else(|| Failure::new(NVEMBED_INTERNAL, format!("a bug in nvembed: C has no number for {wanted}")))
}

/// # Safety
/// Row i may be written at `data` + i * `stride`.
unsafe fn copy_rows<T: Copy>(rows: ArrayView2<'_, T>, data: *mut T, stride: usize) {
    for (index, row) in rows.rows().into_iter().enumerate() {
        for (column, value) in row.iter().enumerate() {
            // SAFETY: as this function's.
            unsafe { data.add(index * stride + column).write(*value) };
        }
    }
}

/// The caller's arrays with one number per row, either of which may be NULL.
pub(crate) struct PerRow {
    token_counts: *mut usize,
    truncated: *mut u8,
}

impl PerRow {
    pub(crate) fn new(token_counts: *mut usize, truncated: *mut u8) -> Result<Self, Failure> {
        if !token_counts.is_null() {
            memory::check("token_counts", token_counts)?;
        }
        Ok(Self { token_counts, truncated })
    }

    /// # Safety
    /// Each array that is not NULL has more than `index` elements.
    pub(crate) unsafe fn set(&self, index: usize, tokens: usize, truncated: bool) {
        // SAFETY: as this function's; `new` checked the alignment.
        unsafe {
            if !self.token_counts.is_null() {
                self.token_counts.add(index).write(tokens);
            }
            if !self.truncated.is_null() {
                self.truncated.add(index).write(u8::from(truncated));
            }
        }
    }
}
