/* nvembed: NV-Embed text embeddings on ONNX Runtime, for C and C++.
 *
 * The contract for every function (errors, handles, strings, pointers, threads) is docs/guides/c-and-cpp.md.
 *
 * Generated from crates/nvembed-capi/src by cbindgen: `make header` writes it, a test compares it. */

#ifndef NVEMBED_H
#define NVEMBED_H

#include <stddef.h>
#include <stdint.h>

/// The version of the interface in this header; compare it with nvembed_abi_version().
///
/// Each addition raises it by one. Nothing is removed or changed as long as the shared library is libnvembed.so.0.
#define NVEMBED_ABI_VERSION 3

/// Success.
#define NVEMBED_OK 0

/// No usable ONNX Runtime library: none found, not loadable, or too old. The message lists the places searched.
#define NVEMBED_LIBRARY 1

/// The execution provider is not in the library, could not be started, or cannot run this model.
#define NVEMBED_PROVIDER 2

/// The model folder is missing, incomplete, damaged, or of another schema version.
#define NVEMBED_MODEL 3

/// A prompt cannot be embedded: for example, its instruction fills the whole row and nothing is left to pool.
#define NVEMBED_INPUT 4

/// A prompt is longer than the limit and truncation is off, or too long for the provider to hold its attention scores.
#define NVEMBED_TOO_LONG 5

/// An option is out of range, or the provider ignores it.
#define NVEMBED_OPTION 6

/// ONNX Runtime failed during a run, or returned something that is not an embedding.
#define NVEMBED_INFERENCE 7

/// The call was cancelled.
#define NVEMBED_CANCELLED 8

/// The cache folder cannot be written.
#define NVEMBED_CACHE 9

/// A GPU failed: out of memory, a driver error, or an error that makes the device unusable until the process restarts.
#define NVEMBED_DEVICE 10

/// The call's deadline passed before it finished.
#define NVEMBED_DEADLINE_EXCEEDED 11

/// A queue has no room for the request, or too much waits before it to meet its deadline.
#define NVEMBED_OVERLOADED 12

/// A queue was closed: it takes no more requests, or ended before this one ran.
#define NVEMBED_CLOSED 13

/// The system refused what the process needs: a thread, a file descriptor, memory, or /proc. Handles stay usable; the same call
/// may succeed later, or with a higher limit.
#define NVEMBED_SYSTEM 14

/// The handle is NULL, closed, of another type, or not a handle at all.
#define NVEMBED_INVALID_HANDLE 100

/// A required pointer is NULL.
#define NVEMBED_NULL_POINTER 101

/// An argument is invalid: a misaligned pointer, an impossible length, or an unknown constant.
#define NVEMBED_INVALID_ARGUMENT 102

/// A string is not valid UTF-8.
#define NVEMBED_INVALID_UTF8 103

/// The caller's buffer is too small; the message says how large it must be.
#define NVEMBED_BUFFER_TOO_SMALL 104

/// The struct_size of a struct is not one that this library knows: it was not set, or the header is newer than the library.
#define NVEMBED_STRUCT_SIZE 105

/// A function was called from inside the log callback.
#define NVEMBED_IN_CALLBACK 106

/// A bug in nvembed. The call ended; all handles are still valid.
#define NVEMBED_INTERNAL 199

/// Cut a text that is too long on the right, which loses the closing `</s>`. NVIDIA's code does the same.
#define NVEMBED_TRUNCATION_REFERENCE 0

/// Cut a text that is too long on the right, and make its last token `</s>`.
#define NVEMBED_TRUNCATION_KEEP_EOS 1

/// Refuse a text that is too long with NVEMBED_TOO_LONG.
#define NVEMBED_TRUNCATION_ERROR 2

/// Leave out the start of a text that is too long. `<s>`, the instruction, the end of the text and the closing `</s>` are kept.
#define NVEMBED_TRUNCATION_START 3

/// Read a literal `<s>`, `</s>` or `<unk>` in a prompt as the special token. NVIDIA's code does the same.
#define NVEMBED_SPECIAL_TOKENS_PARSE 0

/// Read a literal `<s>`, `</s>` or `<unk>` in a prompt as plain text: for users who must not be able to write special tokens.
#define NVEMBED_SPECIAL_TOKENS_LITERAL 1

/// The name of the model, for example "NV-Embed-v2".
#define NVEMBED_METADATA_NAME 0

/// Where the checkpoint comes from, for example "nvidia/NV-Embed-v2".
#define NVEMBED_METADATA_SOURCE 1

/// The license of the weights, for example "cc-by-nc-4.0", which forbids commercial use.
#define NVEMBED_METADATA_LICENSE 2

/// The precision of the graph: "fp32", "fp16", "bf16", "int8", "int4" or "w8a8".
#define NVEMBED_METADATA_PRECISION 3

/// The version of the exporter that wrote the model folder.
#define NVEMBED_METADATA_EXPORTER_VERSION 4

/// The version of the loaded ONNX Runtime library, without its patch number, for example "1.32".
#define NVEMBED_METADATA_LIBRARY_VERSION 5

/// The file of the loaded ONNX Runtime library.
#define NVEMBED_METADATA_LIBRARY_PATH 6

/// Elements are 32-bit floats: `data` is a float *.
#define NVEMBED_F32 0

/// Elements are 16-bit floats (IEEE half precision): `data` is a uint16_t *.
#define NVEMBED_F16 1

/// Elements are 8-bit integers, -127 to 127: `data` is an int8_t *. `scales` gets what each row has to be multiplied by; cosine
/// similarity does not need it, a dot product does.
#define NVEMBED_INT8 2

/// Elements are bytes of eight bits, 1 for a number greater than 0, the first number in the most significant bit: `data` is a
/// uint8_t *. A row has ⌈dimension / 8⌉ elements; the last one is filled up with zeros.
#define NVEMBED_BINARY 3

/// `data` is host memory. nvembed_embed_on_device() leaves rows on a GPU.
#define NVEMBED_MEMORY_HOST 0

/// Failures only.
#define NVEMBED_LOG_ERROR 1

/// Also what looks wrong.
#define NVEMBED_LOG_WARN 2

/// Also rare events, such as the loading of ONNX Runtime.
#define NVEMBED_LOG_INFO 3

/// Also what helps to find a problem, and what ONNX Runtime calls INFO.
#define NVEMBED_LOG_DEBUG 4

/// Everything.
#define NVEMBED_LOG_TRACE 5

/// A token that cancels the calls it is passed to. Close it with nvembed_cancel_free(), even while calls use it.
typedef struct nvembed_cancel nvembed_cancel;

/// Rows in a GPU's memory: a contiguous array of rows x dimension elements, row i for prompt i.
typedef struct nvembed_device_embeddings nvembed_device_embeddings;

/// Options of one call.
typedef struct nvembed_embed_options nvembed_embed_options;

/// Why a call failed. The call creates it, the caller frees it with nvembed_error_free().
typedef struct nvembed_error nvembed_error;

/// An open model.
typedef struct nvembed_model nvembed_model;

/// Options that are fixed while a model is open.
///
/// An option that the chosen provider ignores makes nvembed_model_open() fail with NVEMBED_OPTION, unless it has its default.
typedef struct nvembed_model_options nvembed_model_options;

/// What a call returns: NVEMBED_OK, or the reason why it failed. Later versions may return codes that are not listed here.
typedef int32_t nvembed_code;

/// A string of the caller: UTF-8, `length` bytes, no NUL needed. NULL with length 0 is the empty string.
///
/// The layout of this struct is final.
typedef struct nvembed_string {
  /// The first byte.
  const char *data;
  /// The number of bytes.
  size_t length;
} nvembed_string;

/// A text and the literal instruction before it, which may be empty. nvembed_query_instruction() makes one from a task.
///
/// The layout of this struct is final.
typedef struct nvembed_prompt {
  /// What the model reads before the text and does not pool.
  struct nvembed_string instruction;
  /// The text.
  struct nvembed_string text;
} nvembed_prompt;

/// Where a call writes its results. Zero the whole struct, set `struct_size` to sizeof(nvembed_output), then set the fields
/// that you need.
///
/// Later versions may append fields; `struct_size` tells the library which fields exist.
typedef struct nvembed_output {
  /// sizeof(nvembed_output).
  size_t struct_size;
  /// Row i of the result starts at element i * row_stride. Aligned to an element.
  void *data;
  /// The number of elements that `data` has room for: at least (rows - 1) * row_stride + the elements of a row. A row has as
  /// many elements as the dimension, or as nvembed_embed_options_set_dimensions() says; of NVEMBED_BINARY, an eighth of them.
  size_t capacity;
  /// Elements from the start of one row to the next, at least those of a row; 0 means those of a row. The gap between rows is
  /// not written.
  size_t row_stride;
  /// NVEMBED_F32, NVEMBED_F16, NVEMBED_INT8 or NVEMBED_BINARY.
  int32_t dtype;
  /// NVEMBED_MEMORY_HOST.
  int32_t memory;
  /// NULL, or an array with one number per row: its token count, including `<s>` and the instruction.
  size_t *token_counts;
  /// NULL, or an array with one number per row: 1 if tokens were cut off, else 0.
  uint8_t *truncated;
  /// NULL, or with NVEMBED_INT8 an array with one number per row: what the row has to be multiplied by.
  float *scales;
} nvembed_output;

/// Receives a log message: its NVEMBED_LOG_... level, its target ("nvembed...", or "ort..." for ONNX Runtime) and its text.
/// Both strings are UTF-8, are not NUL-terminated, and are valid until the callback returns.
///
/// It is called from any thread, including ONNX Runtime's, and from several at the same time. It must not throw, must not call
/// functions of nvembed (they return NVEMBED_IN_CALLBACK), and should return quickly.
typedef void (*nvembed_log_callback)(int32_t level,
                                     const char *target,
                                     size_t target_length,
                                     const char *message,
                                     size_t message_length,
                                     void *user_data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// Returns the interface version of the library. The library implements all headers of this version and older.
///
/// Thread-safe.
uint32_t nvembed_abi_version(void);

/// Returns the version of the library, for example "0.1.0": a constant; do not free it.
///
/// Thread-safe.
const char *nvembed_version(void);

/// Returns the name of a code, for example "NVEMBED_MODEL", or "unknown code": a constant; do not free it.
///
/// Thread-safe.
const char *nvembed_code_name(nvembed_code code);

/// Returns the code of an error, the same that the call returned, or NVEMBED_INVALID_HANDLE if `error` is not an open error.
///
/// Thread-safe.
nvembed_code nvembed_error_code(const struct nvembed_error *error);

/// Returns the message of an error: NUL-terminated UTF-8 with the offending value, the limit and what to do, never a user's
/// text. It is valid until the error is freed. If `error` is not an open error, the message says so; it is never NULL.
///
/// Thread-safe, but do not read the message while another thread frees the error.
const char *nvembed_error_message(const struct nvembed_error *error);

/// Frees an error. NULL is allowed.
///
/// Thread-safe.
nvembed_code nvembed_error_free(struct nvembed_error *error);

/// Creates model options with their defaults.
///
/// Thread-safe.
nvembed_code nvembed_model_options_new(struct nvembed_model_options **options, struct nvembed_error **error);

/// Closes options. NULL is allowed. Models that were opened with them are not affected.
///
/// Thread-safe.
nvembed_code nvembed_model_options_free(struct nvembed_model_options *options);

/// Where the model runs: "cpu" (the default), "cuda", "tensorrt", "nv-tensorrt-rtx" or "openvino"; or, together with
/// nvembed_model_options_set_provider_library(), the name that a plugin gives its provider. If the provider is not known or
/// cannot be used, opening the model fails; it never runs on the CPU instead.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_provider(struct nvembed_model_options *options,
                                                const char *name,
                                                size_t name_length,
                                                struct nvembed_error **error);

/// The ONNX Runtime library to load, a file or a folder. Not set, or of length 0: nvembed searches for it, as
/// docs/guides/c-and-cpp.md describes. A process loads one library: to name another one later is an error when a model opens.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_library(struct nvembed_model_options *options,
                                               const char *path,
                                               size_t path_length,
                                               struct nvembed_error **error);

/// The plugin that has the provider: the file of a library that is registered with ONNX Runtime. Not set, or of length 0: for
/// nv-tensorrt-rtx, nvembed searches for the one of its PyPI package, as docs/guides/c-and-cpp.md describes. Only for
/// providers that come as plugins.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_provider_library(struct nvembed_model_options *options,
                                                        const char *path,
                                                        size_t path_length,
                                                        struct nvembed_error **error);

/// Threads per run, 1 to 1,024. 0, the default: one per physical core that the process may use. CPU and OpenVINO only.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_intra_threads(struct nvembed_model_options *options,
                                                     size_t threads,
                                                     struct nvembed_error **error);

/// Whether (not 0) to compare the SHA-256 of every file with the manifest, which reads the whole model. Default: 0.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_verify_hashes(struct nvembed_model_options *options,
                                                     int32_t verify_hashes,
                                                     struct nvembed_error **error);

/// Whether (not 0) to run the golden rows of the model folder when a model opens, alone and in one batch, and to refuse to open
/// when an embedding is wrong. That is done once for each model, library, machine and options. Default: 1.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_self_check(struct nvembed_model_options *options,
                                                  int32_t self_check,
                                                  struct nvembed_error **error);

/// The folder where the command `nvembed prepare` stores optimized graphs and TensorRT engines, and where nvembed_model_open()
/// looks for them and remembers that it checked a model. Not set, or of length 0: the folder `cache` in the model folder.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_cache(struct nvembed_model_options *options,
                                             const char *path,
                                             size_t path_length,
                                             struct nvembed_error **error);

/// Whether (not 0) all threads rearrange the weights for the processor when a model opens. That is faster, but until it is
/// done resident memory shows up to twice the model. Default: 0. CPU only.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_parallel_prepacking(struct nvembed_model_options *options,
                                                           int32_t parallel_prepacking,
                                                           struct nvembed_error **error);

/// Whether (not 0) to return the memory of each node of the graph to the system as soon as it is free. That is slower, and a
/// text of many thousand tokens takes about a third less memory. Default: 0. CPU only.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_low_memory(struct nvembed_model_options *options,
                                                  int32_t low_memory,
                                                  struct nvembed_error **error);

/// Creates call options with their defaults.
///
/// Thread-safe.
nvembed_code nvembed_embed_options_new(struct nvembed_embed_options **options, struct nvembed_error **error);

/// Closes options. NULL is allowed. A call uses the options as they were when it started.
///
/// Thread-safe.
nvembed_code nvembed_embed_options_free(struct nvembed_embed_options *options);

/// The longest row in tokens, including `<s>`, the instruction and `</s>`: 1 to nvembed_model_max_length(). 0, the default:
/// the model's own limit. The call that uses the options checks this and the other ranges.
///
/// Thread-safe.
nvembed_code nvembed_embed_options_set_max_length(struct nvembed_embed_options *options,
                                                  size_t max_length,
                                                  struct nvembed_error **error);

/// What happens to a text that is too long: an NVEMBED_TRUNCATION_... constant.
///
/// Thread-safe.
nvembed_code nvembed_embed_options_set_truncation(struct nvembed_embed_options *options,
                                                  int32_t truncation,
                                                  struct nvembed_error **error);

/// How special tokens written in a prompt are read: an NVEMBED_SPECIAL_TOKENS_... constant.
///
/// Thread-safe.
nvembed_code nvembed_embed_options_set_special_tokens(struct nvembed_embed_options *options,
                                                      int32_t special_tokens,
                                                      struct nvembed_error **error);

/// The most padded tokens per batch, rows x longest row: 1 to 1,048,576. Default: 1,024 on the CPU, 4,096 on a GPU. A single
/// longer row runs in a batch of its own.
///
/// Thread-safe.
nvembed_code nvembed_embed_options_set_max_batch_tokens(struct nvembed_embed_options *options,
                                                        size_t max_batch_tokens,
                                                        struct nvembed_error **error);

/// The most rows per batch: 1 to 8,192. Default: 256.
///
/// Thread-safe.
nvembed_code nvembed_embed_options_set_max_batch_size(struct nvembed_embed_options *options,
                                                      size_t max_batch_size,
                                                      struct nvembed_error **error);

/// How many of the embedding's numbers are returned: the first ones, brought back to unit length. 1 to nvembed_model_dimension();
/// 0, the default: all. It takes the place of the dimension in nvembed_output. NV-Embed was not trained for it, so measure what
/// it costs on your texts.
///
/// Thread-safe.
nvembed_code nvembed_embed_options_set_dimensions(struct nvembed_embed_options *options,
                                                  size_t dimensions,
                                                  struct nvembed_error **error);

/// The most time that a call may take, in milliseconds from its start; it then fails with NVEMBED_DEADLINE_EXCEEDED. 0, the
/// default: no deadline. It is checked where cancellation is, except that a run on the CPU that has started finishes first.
///
/// Thread-safe.
nvembed_code nvembed_embed_options_set_deadline(struct nvembed_embed_options *options,
                                                uint64_t milliseconds,
                                                struct nvembed_error **error);

/// The GPUs to open the model on, as CUDA numbers them: 1 to 64 different numbers. Each GPU gets the whole model. Not set:
/// GPU 0. nvembed_model_open() checks this and the other ranges. GPU providers only.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_device_ids(struct nvembed_model_options *options,
                                                  const size_t *device_ids,
                                                  size_t count,
                                                  struct nvembed_error **error);

/// The most memory that ONNX Runtime allocates on each GPU, in bytes. 0, the default: no limit. CUDA only.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_memory_limit(struct nvembed_model_options *options,
                                                    size_t memory_limit,
                                                    struct nvembed_error **error);

/// A CUstream of the caller for copies and runs, if the model is on one GPU. NULL, the default: the model creates its own. GPU
/// providers only.
///
/// The caller promises that the stream belongs to the GPU's primary context, that nothing captures it while the model runs,
/// and that it exists until the model and all of its nvembed_device_embeddings are closed and no call uses them.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_stream(struct nvembed_model_options *options,
                                              void *stream,
                                              struct nvembed_error **error);

/// Whether (not 0) to record the kernels of a run once per shape and replay them with one call. Default: 1. CUDA only.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_cuda_graphs(struct nvembed_model_options *options,
                                                   int32_t cuda_graphs,
                                                   struct nvembed_error **error);

/// How many results of one shape can be held on a GPU at once, see nvembed_embed_on_device(): 1 to 256. Default: 2. GPU
/// providers only.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_buffer_sets(struct nvembed_model_options *options,
                                                   size_t buffer_sets,
                                                   struct nvembed_error **error);

/// The row lengths in tokens that batches are padded to: up to 256 numbers, strictly increasing, up to the model's limit. A
/// longer text is an error. Empty, the default: 16, 32, 48, 64, 96, 128 and so on, up to the model's limit (for TensorRT, up
/// to 512). GPU providers only.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_sequence_buckets(struct nvembed_model_options *options,
                                                        const size_t *lengths,
                                                        size_t count,
                                                        struct nvembed_error **error);

/// The row counts that batches are padded to: up to 256 numbers, strictly increasing. Empty, the default: 1, 2, 4 and so on,
/// up to 64. GPU providers only.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_batch_buckets(struct nvembed_model_options *options,
                                                     const size_t *rows,
                                                     size_t count,
                                                     struct nvembed_error **error);

/// How hard TensorRT looks for fast kernels when it builds an engine: 0 to 5. Default: 3, TensorRT's own. TensorRT only.
///
/// The command `nvembed prepare` builds engines. A model that opens with the same options finds them.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_builder_optimization_level(struct nvembed_model_options *options,
                                                                  size_t level,
                                                                  struct nvembed_error **error);

/// The most scratch memory that TensorRT's kernels may use, in bytes. 0, the default: the GPU's memory. TensorRT only.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_workspace(struct nvembed_model_options *options,
                                                 size_t workspace,
                                                 struct nvembed_error **error);

/// Whether (not 0) TensorRT builds the engines that were not prepared when a model opens: minutes each time, and nothing is
/// kept. Default: 0, which makes opening such a model an error. TensorRT only.
///
/// Thread-safe.
nvembed_code nvembed_model_options_set_build_on_open(struct nvembed_model_options *options,
                                                     int32_t build_on_open,
                                                     struct nvembed_error **error);

/// Opens a model folder written by nvembed-export. `options` may be NULL. After a failure there is nothing to close.
///
/// Thread-safe. The first calls of a process load ONNX Runtime one after the other.
nvembed_code nvembed_model_open(const char *folder,
                                size_t folder_length,
                                const struct nvembed_model_options *options,
                                struct nvembed_model **model,
                                struct nvembed_error **error);

/// Closes a model. NULL is allowed. Calls that use it in other threads finish normally, and the last one frees it.
///
/// Thread-safe.
nvembed_code nvembed_model_close(struct nvembed_model *model);

/// Writes D, the number of elements of an embedding, to `*dimension`.
///
/// Thread-safe.
nvembed_code nvembed_model_dimension(const struct nvembed_model *model,
                                     size_t *dimension,
                                     struct nvembed_error **error);

/// Writes the longest row that the model accepts, in tokens, to `*max_length`.
///
/// Thread-safe.
nvembed_code nvembed_model_max_length(const struct nvembed_model *model,
                                      size_t *max_length,
                                      struct nvembed_error **error);

/// Allocates memory and records CUDA graphs on each GPU for every shape that calls with these options can need, so that no
/// call has to. Writes the number of shapes to `*shapes`; on the CPU it is 0. `options`, `cancel` and `shapes` may be NULL.
/// After a failure some shapes are ready, and the model can be used.
///
/// Thread-safe. Runs of other calls are executed between two shapes.
nvembed_code nvembed_model_warm_up(const struct nvembed_model *model,
                                   const struct nvembed_embed_options *options,
                                   const struct nvembed_cancel *cancel,
                                   size_t *shapes,
                                   struct nvembed_error **error);

/// Copies a property of the model and a NUL to `buffer`: `field` is an NVEMBED_METADATA_... constant. Writes the length without
/// the NUL to `*length`, even if the buffer is too small. A NULL buffer asks for the length only; `length` may be NULL if
/// `buffer` is not.
///
/// Thread-safe.
nvembed_code nvembed_model_metadata(const struct nvembed_model *model,
                                    int32_t field,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length,
                                    struct nvembed_error **error);

/// Copies the instruction of a query to `buffer`, given its task in one English sentence: "Instruct: {task}\nQuery: ".
/// `buffer`, `capacity` and `length` are as in nvembed_model_metadata().
///
/// Thread-safe.
nvembed_code nvembed_query_instruction(const char *task,
                                       size_t task_length,
                                       char *buffer,
                                       size_t capacity,
                                       size_t *length,
                                       struct nvembed_error **error);

/// Creates a token. Many calls can share it, at the same time or one after the other.
///
/// Thread-safe.
nvembed_code nvembed_cancel_new(struct nvembed_cancel **cancel, struct nvembed_error **error);

/// Cancels the calls that have this token, and every call that gets it later; they return NVEMBED_CANCELLED. This function
/// returns at once. Calls check their token before they tokenize and before each run of the graph. A run that has begun ends
/// between two nodes of the graph on the CPU and finishes first on OpenVINO; a call on a GPU does not wait for it. A token
/// cannot be reset: create a new one.
///
/// Thread-safe, but not for signal handlers.
nvembed_code nvembed_cancel_request(const struct nvembed_cancel *cancel,
                                    struct nvembed_error **error);

/// Closes a token without cancelling: calls that have it continue. NULL is allowed.
///
/// Thread-safe.
nvembed_code nvembed_cancel_free(struct nvembed_cancel *cancel);

/// Embeds `count` prompts: row i of the output belongs to prompt i. `options` and `cancel` may be NULL. A call that fails
/// writes nothing to the output.
///
/// Thread-safe, even on one model: calls tokenize at the same time and take turns on the graph. Each call needs its own output.
nvembed_code nvembed_embed(const struct nvembed_model *model,
                           const struct nvembed_prompt *prompts,
                           size_t count,
                           const struct nvembed_embed_options *options,
                           const struct nvembed_output *output,
                           const struct nvembed_cancel *cancel,
                           struct nvembed_error **error);

/// Embeds `count` texts with the same instruction, which may be empty; otherwise as nvembed_embed().
///
/// Thread-safe, as nvembed_embed().
nvembed_code nvembed_embed_texts(const struct nvembed_model *model,
                                 const char *instruction,
                                 size_t instruction_length,
                                 const struct nvembed_string *texts,
                                 size_t count,
                                 const struct nvembed_embed_options *options,
                                 const struct nvembed_output *output,
                                 const struct nvembed_cancel *cancel,
                                 struct nvembed_error **error);

/// Counts tokens as nvembed_embed() would, without running the graph. `token_counts` and `truncated`, each NULL or an array
/// of `count` numbers, are filled as in nvembed_output. A prompt that cannot be embedded is an error.
///
/// Thread-safe.
nvembed_code nvembed_count_tokens(const struct nvembed_model *model,
                                  const struct nvembed_prompt *prompts,
                                  size_t count,
                                  const struct nvembed_embed_options *options,
                                  size_t *token_counts,
                                  uint8_t *truncated,
                                  struct nvembed_error **error);

/// Embeds `count` prompts on a GPU and leaves the rows there, for a search on that GPU. `options` and `cancel` may be NULL.
/// After a failure there is nothing to release.
///
/// The prompts run as one batch. NVEMBED_OPTION if there are none, or more than fit in one batch within max_batch_tokens,
/// max_batch_size and the model's buckets, or if the model is on the CPU. The call returns when the computation has started,
/// not when it is done: see nvembed_device_embeddings_event(). NVEMBED_DEVICE if as many results of that shape are already
/// held as nvembed_model_options_set_buffer_sets() allows.
///
/// Thread-safe, even on one model: calls take turns on the GPU.
nvembed_code nvembed_embed_on_device(const struct nvembed_model *model,
                                     const struct nvembed_prompt *prompts,
                                     size_t count,
                                     const struct nvembed_embed_options *options,
                                     const struct nvembed_cancel *cancel,
                                     struct nvembed_device_embeddings **embeddings,
                                     struct nvembed_error **error);

/// Writes the address of the first element in the GPU's memory, a CUdeviceptr, to `*pointer`. The address and the elements do
/// not change until the rows are released.
///
/// Thread-safe.
nvembed_code nvembed_device_embeddings_pointer(const struct nvembed_device_embeddings *embeddings,
                                               uint64_t *pointer,
                                               struct nvembed_error **error);

/// Writes the CUstream that the rows are computed on, in the GPU's primary context, to `*stream`. It belongs to the model; do
/// not destroy it.
///
/// Thread-safe.
nvembed_code nvembed_device_embeddings_stream(const struct nvembed_device_embeddings *embeddings,
                                              void **stream,
                                              struct nvembed_error **error);

/// Writes the CUevent that is recorded after the computation to `*event`: the rows are complete when it has passed. Let your
/// stream (cuStreamWaitEvent) or the host (cuEventSynchronize) wait for it before the rows are read. The event belongs to the
/// model, and to this result until the rows are released; do not destroy or record it.
///
/// Thread-safe.
nvembed_code nvembed_device_embeddings_event(const struct nvembed_device_embeddings *embeddings,
                                             void **event,
                                             struct nvembed_error **error);

/// Writes the GPU's number, as CUDA numbers it, to `*device_id`.
///
/// Thread-safe.
nvembed_code nvembed_device_embeddings_device_id(const struct nvembed_device_embeddings *embeddings,
                                                 size_t *device_id,
                                                 struct nvembed_error **error);

/// Writes the element type of the rows, NVEMBED_F32 or NVEMBED_F16, to `*dtype`: 16-bit floats for an fp16 model.
///
/// Thread-safe.
nvembed_code nvembed_device_embeddings_dtype(const struct nvembed_device_embeddings *embeddings,
                                             int32_t *dtype,
                                             struct nvembed_error **error);

/// Writes the number of rows, which is the number of prompts, to `*rows`.
///
/// Thread-safe.
nvembed_code nvembed_device_embeddings_rows(const struct nvembed_device_embeddings *embeddings,
                                            size_t *rows,
                                            struct nvembed_error **error);

/// Writes D, the number of elements of a row, to `*dimension`.
///
/// Thread-safe.
nvembed_code nvembed_device_embeddings_dimension(const struct nvembed_device_embeddings *embeddings,
                                                 size_t *dimension,
                                                 struct nvembed_error **error);

/// Copies the token count of each row, and whether it was truncated: `token_counts` and `truncated`, each NULL or an array of
/// `capacity` numbers, are filled as in nvembed_output. NVEMBED_BUFFER_TOO_SMALL if `capacity` is below the number of rows.
///
/// Thread-safe.
nvembed_code nvembed_device_embeddings_tokens(const struct nvembed_device_embeddings *embeddings,
                                              size_t *token_counts,
                                              uint8_t *truncated,
                                              size_t capacity,
                                              struct nvembed_error **error);

/// Closes the handle and returns the memory to the model. NULL is allowed. Everything that reads the rows must be done, on the
/// GPU too.
///
/// Thread-safe. If several threads release the same rows, one succeeds.
nvembed_code nvembed_device_embeddings_release(struct nvembed_device_embeddings *embeddings);

/// Closes the handle and returns the memory to runs of the model after `event`, a CUevent that you recorded after everything
/// that reads the rows. Returns at once: the GPU waits, not the host.
///
/// The caller promises that the event belongs to the GPU's primary context, and that it exists until a later call of
/// nvembed_embed_on_device() on the same GPU has returned, or until the model and its results are closed.
///
/// Thread-safe. If several threads release the same rows, one succeeds.
nvembed_code nvembed_device_embeddings_release_after(struct nvembed_device_embeddings *embeddings,
                                                     void *event,
                                                     struct nvembed_error **error);

/// Sets the process's callback for log messages up to `level`, instead of the previous one; NULL removes it. When this
/// function returns, the previous callback is not running and will not be called again, so its user data may be freed.
///
/// Thread-safe. It waits for callbacks that are running, so do not hold a lock that the callback takes.
nvembed_code nvembed_set_log_callback(nvembed_log_callback callback,
                                      void *user_data,
                                      int32_t level,
                                      struct nvembed_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* NVEMBED_H */
