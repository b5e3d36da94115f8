//! Embedding: texts in, rows out.

use std::ffi::{c_char, c_void};

use half::f16;
use ndarray::ArrayView2;
use nvembed::{Dtype, EmbedOptions, Prompt, Rows};

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
    /// The number of elements that `data` has room for: at least (rows - 1) * row_stride + dimension.
    pub capacity: usize,
    /// Elements from the start of one row to the next, at least the dimension; 0 means the dimension. The gap between rows is
    /// not written.
    pub row_stride: usize,
    /// NVEMBED_F32 or NVEMBED_F16.
    pub dtype: i32,
    /// NVEMBED_MEMORY_HOST.
    pub memory: i32,
    /// NULL, or an array with one number per row: its token count, including `<s>` and the instruction.
    pub token_counts: *mut usize,
    /// NULL, or an array with one number per row: 1 if tokens were cut off, else 0.
    pub truncated: *mut u8,
}

/// The element types by their numbers in C.
const DTYPES: [(i32, Dtype); 2] = [(NVEMBED_F32, Dtype::F32), (NVEMBED_F16, Dtype::F16)];

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
    let (dtype, stride) = check_output(&output, prompts.len(), model.dim())?;
    let arrays = PerRow::new(output.token_counts, output.truncated)?;
    options.dtype = dtype;

    let embeddings = model.embed(prompts, &options)?;
    // SAFETY: each arm writes elements of the type that `dtype` names; alignment and capacity were checked for it, and the
    // rest is the caller's promise.
    unsafe {
        match (dtype, embeddings.rows()) {
            (Dtype::F32, Rows::F32(rows)) => copy_rows::<f32>(rows.view(), output.data.cast(), stride),
            (Dtype::F16, Rows::F16(rows)) => copy_rows::<f16>(rows.view(), output.data.cast(), stride),
            (wanted, rows) => {
                let message = format!("a bug in nvembed: {wanted} rows were requested, got {}", rows.dtype());
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
    if size != size_of::<nvembed_output>() {
        let message = format!(
            "the struct_size of output must be {}, got {size}; set it to sizeof(nvembed_output), and use a library that is \
             at least as new as the header",
            size_of::<nvembed_output>()
        );
        return Err(Failure::new(NVEMBED_STRUCT_SIZE, message));
    }
    // SAFETY: it has the size of this version.
    Ok(unsafe { output.read() })
}

/// Checks an output for `count` rows. Returns its element type and the stride in force, in elements.
fn check_output(output: &nvembed_output, count: usize, dim: usize) -> Result<(Dtype, usize), Failure> {
    let invalid = |message: String| Failure::new(NVEMBED_INVALID_ARGUMENT, message);
    let nvembed_output { row_stride, capacity, .. } = *output;
    if output.memory != NVEMBED_MEMORY_HOST {
        return Err(invalid(format!("the output's memory must be NVEMBED_MEMORY_HOST (0), got {}", output.memory)));
    }
    let stride = if row_stride == 0 { dim } else { row_stride };
    if stride < dim {
        return Err(invalid(format!(
            "the output's row_stride must be 0 or at least the dimension, {dim}, got {stride}"
        )));
    }
    let needed = match count.checked_sub(1) {
        None => Some(0),
        Some(before_last) => before_last.checked_mul(stride).and_then(|elements| elements.checked_add(dim)),
    };
    let needed = needed
        .ok_or_else(|| invalid(format!("{count} rows do not fit any memory with the output's row_stride, {stride}")))?;
    if capacity < needed {
        let message =
            format!("the output's capacity must be at least {needed} elements for {count} rows, got {capacity}");
        return Err(Failure::new(NVEMBED_BUFFER_TOO_SMALL, message));
    }
    let Some((_, dtype)) = DTYPES.into_iter().find(|(number, _)| *number == output.dtype) else {
        return Err(invalid(format!(
            "the output's dtype must be NVEMBED_F32 (0) or NVEMBED_F16 (1), got {}",
            output.dtype
        )));
    };
    match dtype {
        _ if count == 0 => {}
        Dtype::F16 => memory::check("the output's data", output.data.cast::<f16>())?,
        _ => memory::check("the output's data", output.data.cast::<f32>())?,
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
