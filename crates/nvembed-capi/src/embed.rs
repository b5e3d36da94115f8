//! Texts in, embeddings out.

use std::ffi::{c_char, c_void};

use half::f16;
use ndarray::ArrayView2;

use super::cancel::nvembed_cancel;
use super::codes::{NVEMBED_BUFFER_TOO_SMALL, NVEMBED_INVALID_ARGUMENT, NVEMBED_STRUCT_SIZE, nvembed_code};
use super::error::{Failure, nvembed_error};
use super::model::nvembed_model;
use super::options::{nvembed_embed_options, of_call};
use super::{guard, handle, memory};
use crate::{EmbeddingsView, EncodeOptions, OutputType, Prompt};

/// A string of the caller's: UTF-8, `length` bytes, no NUL needed. NULL with length 0 is the empty string.
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

/// A text and the literal instruction in front of it, empty for none. nvembed_query_instruction() makes that of a task.
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

/// `data` is memory of the host. For rows that stay on a GPU there is nvembed_embed_on_device().
pub const NVEMBED_MEMORY_HOST: i32 = 0;

/// Where a call puts its results. Set all of it to 0, then `struct_size` to sizeof(nvembed_output), then what is needed.
///
/// Later versions may append fields; `struct_size` tells the library which ones there are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nvembed_output {
    /// sizeof(nvembed_output).
    pub struct_size: usize,
    /// Row i of the result begins at element i * row_stride. Aligned to an element.
    pub data: *mut c_void,
    /// Elements that `data` has room for: at least (rows - 1) * row_stride + dimension.
    pub capacity: usize,
    /// Elements from one row to the next, at least the dimension; 0: exactly the dimension. What is between rows is not
    /// written.
    pub row_stride: usize,
    /// NVEMBED_F32 or NVEMBED_F16.
    pub dtype: i32,
    /// NVEMBED_MEMORY_HOST.
    pub memory: i32,
    /// NULL, or room for one number a row: its tokens, `<s>` and instruction included.
    pub token_counts: *mut usize,
    /// NULL, or room for one number a row: 1 if tokens were cut off, else 0.
    pub truncated: *mut u8,
}

/// Embeds `count` prompts: row i of the output belongs to prompt i. `options` and `cancel` may be NULL. When the call
/// fails, nothing was written to the output.
///
/// Threads: any, at the same time, also on one model: the calls tokenize side by side and take turns on the graph. Each
/// call has its own output.
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
    // SAFETY: the pointers are as docs/c-api.md says.
    unsafe {
        guard(error, || {
            let options = of_call(options, cancel)?;
            let prompts = prompts_of(memory::slice("prompts", prompts, count)?)?;
            embed(model, &prompts, options, output)
        })
    }
}

/// Embeds `count` texts with the same instruction, which may be empty; else as nvembed_embed().
///
/// Threads: as nvembed_embed().
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
    // SAFETY: the pointers are as docs/c-api.md says.
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

/// Counts tokens as nvembed_embed() would, without running the graph. `token_counts` and `truncated`, each NULL or with
/// room for `count` numbers, are filled as those of nvembed_output. A prompt that cannot be embedded is an error.
///
/// Threads: any, at the same time.
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
    // SAFETY: the pointers are as docs/c-api.md says.
    unsafe {
        guard(error, || {
            let model = handle::get(model)?;
            let options = of_call(options, std::ptr::null())?;
            let rows = Rows::new(token_counts, truncated)?;
            let prompts = prompts_of(memory::slice("prompts", prompts, count)?)?;
            let encodings = model.encode(&prompts, &options)?.into_iter().enumerate();
            let encodings = encodings
                .map(|(index, encoding)| encoding.map_err(|error| error.of_prompt(index)))
                .collect::<crate::Result<Vec<_>>>()?;
            for (index, encoding) in encodings.iter().enumerate() {
                rows.set(index, encoding.ids().len(), encoding.truncated());
            }
            Ok(())
        })
    }
}

/// # Safety
/// As the contract says of `output`.
unsafe fn embed(
    model: *const nvembed_model,
    prompts: &[Prompt<'_>],
    mut options: EncodeOptions,
    output: *const nvembed_output,
) -> Result<(), Failure> {
    let model = handle::get(model)?;
    // SAFETY: as this function's.
    let output = unsafe { read_output(output)? };
    let stride = check_output(&output, prompts.len(), model.dim())?;
    let rows = Rows::new(output.token_counts, output.truncated)?;
    options.output = if output.dtype == NVEMBED_F16 { OutputType::F16 } else { OutputType::F32 };

    let embeddings = model.embed(prompts, &options)?;
    // SAFETY: the type of the view is that of `dtype`; alignment and capacity were checked, the rest is the caller's.
    unsafe {
        match embeddings.view() {
            EmbeddingsView::F32(view) => copy_rows::<f32>(view, output.data.cast(), stride),
            EmbeddingsView::F16(view) => copy_rows::<f16>(view, output.data.cast(), stride),
        }
        for (index, (tokens, truncated)) in embeddings.token_counts().iter().zip(embeddings.truncated()).enumerate() {
            rows.set(index, *tokens, *truncated);
        }
    }
    Ok(())
}

/// # Safety
/// The strings are as the contract says, for `'a`.
pub(super) unsafe fn prompts_of<'a>(prompts: &'a [nvembed_prompt]) -> Result<Vec<Prompt<'a>>, Failure> {
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
    // SAFETY: not NULL and aligned; every version of the struct begins with its size.
    let size = unsafe { output.cast::<usize>().read() };
    if size != size_of::<nvembed_output>() {
        let message = format!(
            "the struct_size of output is {size}, this library knows {}; set it to sizeof(nvembed_output), and use a \
             library that is not older than the header",
            size_of::<nvembed_output>()
        );
        return Err(Failure::new(NVEMBED_STRUCT_SIZE, message));
    }
    // SAFETY: it has the size of this version.
    Ok(unsafe { output.read() })
}

/// Checks an output for `count` rows, and returns the stride in force, in elements.
fn check_output(output: &nvembed_output, count: usize, dim: usize) -> Result<usize, Failure> {
    let invalid = |message: String| Failure::new(NVEMBED_INVALID_ARGUMENT, message);
    let nvembed_output { row_stride, capacity, .. } = *output;
    if output.memory != NVEMBED_MEMORY_HOST {
        return Err(invalid(format!("memory is {}, this version knows NVEMBED_MEMORY_HOST", output.memory)));
    }
    let stride = if row_stride == 0 { dim } else { row_stride };
    if stride < dim {
        return Err(invalid(format!("row_stride is {stride}, a row has {dim} elements")));
    }
    let needed = match count.checked_sub(1) {
        None => Some(0),
        Some(before_last) => before_last.checked_mul(stride).and_then(|elements| elements.checked_add(dim)),
    };
    let needed =
        needed.ok_or_else(|| invalid(format!("{count} rows with row_stride {stride} are beyond any memory")))?;
    if capacity < needed {
        let message = format!("the output's capacity is {capacity} elements, {count} rows need {needed}");
        return Err(Failure::new(NVEMBED_BUFFER_TOO_SMALL, message));
    }
    match output.dtype {
        _ if count == 0 => {}
        NVEMBED_F32 => memory::check("the output's data", output.data.cast::<f32>())?,
        NVEMBED_F16 => memory::check("the output's data", output.data.cast::<f16>())?,
        _ => {}
    }
    match output.dtype {
        NVEMBED_F32 | NVEMBED_F16 => Ok(stride),
        other => Err(invalid(format!("dtype is {other}, known are NVEMBED_F32 and NVEMBED_F16"))),
    }
}

/// # Safety
/// Row i may be written at `data` + i * `stride`.
unsafe fn copy_rows<T: Copy>(view: ArrayView2<'_, T>, data: *mut T, stride: usize) {
    for (index, row) in view.rows().into_iter().enumerate() {
        for (column, value) in row.iter().enumerate() {
            // SAFETY: as this function's.
            unsafe { data.add(index * stride + column).write(*value) };
        }
    }
}

/// The caller's arrays of what happened to each row, either of which may be NULL.
pub(super) struct Rows {
    token_counts: *mut usize,
    truncated: *mut u8,
}

impl Rows {
    pub(super) fn new(token_counts: *mut usize, truncated: *mut u8) -> Result<Self, Failure> {
        if !token_counts.is_null() {
            memory::check("token_counts", token_counts)?;
        }
        Ok(Self { token_counts, truncated })
    }

    /// # Safety
    /// Each array that is not NULL has more than `index` elements.
    pub(super) unsafe fn set(&self, index: usize, tokens: usize, truncated: bool) {
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
