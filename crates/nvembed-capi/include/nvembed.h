/* nvembed: NV-Embed text embeddings on ONNX Runtime, for C and C++.
 *
 * The contract that holds for every function (errors, handles, strings, pointers, threads) is docs/c-api.md.
 *
 * Generated from src/capi by cbindgen: `make header` writes it, a test compares it. */

#ifndef NVEMBED_H
#define NVEMBED_H

#include <stddef.h>
#include <stdint.h>

/// The version of the interface that this header describes; compare with nvembed_abi_version().
///
/// Raised by one with each addition. Nothing is removed or changed while the shared library's name ends in ".so.0".
#define NVEMBED_ABI_VERSION 1

/// Done.
#define NVEMBED_OK 0

/// No usable ONNX Runtime library: none found, not loadable, or too old. The message lists where it was looked for.
#define NVEMBED_LIBRARY 1

/// The execution provider asked for is not in the library, or could not be started.
#define NVEMBED_PROVIDER 2

/// The model folder is missing, incomplete, damaged, or of another schema version.
#define NVEMBED_MODEL 3

/// A prompt cannot be embedded: for example, its instruction fills the whole row and nothing is left to pool.
#define NVEMBED_INPUT 4

/// A prompt is longer than allowed, or too long for the provider's memory.
#define NVEMBED_TOO_LONG 5

/// An option is out of its range.
#define NVEMBED_OPTION 6

/// ONNX Runtime failed during a run, or returned something that is not an embedding.
#define NVEMBED_INFERENCE 7

/// The call was cancelled.
#define NVEMBED_CANCELLED 8

/// The cache folder cannot be written.
#define NVEMBED_CACHE 9

/// A GPU failed: out of memory, an error of the driver, or one after which the device is useless for this process.
#define NVEMBED_DEVICE 10

/// The call's deadline passed before it was done.
#define NVEMBED_DEADLINE_EXCEEDED 11

/// A handle is NULL, closed, of another type, or never was one.
#define NVEMBED_INVALID_HANDLE 100

/// A pointer that is needed is NULL.
#define NVEMBED_NULL_POINTER 101

/// An argument is not one the function knows: a misaligned pointer, an impossible length, an unknown constant.
#define NVEMBED_INVALID_ARGUMENT 102

/// A string is not valid UTF-8.
#define NVEMBED_INVALID_UTF8 103

/// The caller's buffer is too small; the message says how large it must be.
#define NVEMBED_BUFFER_TOO_SMALL 104

/// The struct_size of a struct is none that this library knows: the header belongs to a newer library, or it was not set.
#define NVEMBED_STRUCT_SIZE 105

/// A function was called from inside the log callback.
#define NVEMBED_IN_CALLBACK 106

/// A bug in nvembed. The call ended; the handles are as they were.
#define NVEMBED_INTERNAL 199

/// A text that is too long is cut on the right; the closing `</s>` is lost. That is what NVIDIA's code does.
#define NVEMBED_TRUNCATION_REFERENCE 0

/// A text that is too long is cut on the right, and its last token becomes `</s>`.
#define NVEMBED_TRUNCATION_KEEP_EOS 1

/// A text that is too long is refused with NVEMBED_TOO_LONG.
#define NVEMBED_TRUNCATION_ERROR 2

/// A literal `<s>`, `</s>` or `<unk>` in a prompt is the special token. That is what NVIDIA's code does.
#define NVEMBED_SPECIAL_TOKENS_PARSE 0

/// A literal `<s>`, `</s>` or `<unk>` in a prompt is plain text: for texts from users who must not write special tokens.
#define NVEMBED_SPECIAL_TOKENS_LITERAL 1

/// The model's name, for example "NV-Embed-v2".
#define NVEMBED_METADATA_NAME 0

/// Where the checkpoint says it comes from, for example "nvidia/NV-Embed-v2".
#define NVEMBED_METADATA_SOURCE 1

/// The licence of the weights, for example "cc-by-nc-4.0": not for commercial use.
#define NVEMBED_METADATA_LICENSE 2

/// The arithmetic of the graph: "fp32", "fp16", "bf16", "int8", "int4" or "w8a8".
#define NVEMBED_METADATA_PRECISION 3

/// The version of the exporter that made the folder.
#define NVEMBED_METADATA_EXPORTER_VERSION 4

/// The version of the ONNX Runtime library in use, without its patch number, for example "1.32".
#define NVEMBED_METADATA_LIBRARY_VERSION 5

/// The file of the ONNX Runtime library in use.
#define NVEMBED_METADATA_LIBRARY_PATH 6

/// Elements are 32-bit floats: `data` is a float *.
#define NVEMBED_F32 0

/// Elements are 16-bit floats (IEEE half precision): `data` is a uint16_t *.
#define NVEMBED_F16 1

/// `data` is memory of the host. For rows that stay on a GPU there is nvembed_embed_on_device().
#define NVEMBED_MEMORY_HOST 0

/// Only what fails.
#define NVEMBED_LOG_ERROR 1

/// And what is suspicious.
#define NVEMBED_LOG_WARN 2

/// And what happens rarely, such as the loading of ONNX Runtime.
#define NVEMBED_LOG_INFO 3

/// And what helps to find a problem.
#define NVEMBED_LOG_DEBUG 4

/// And everything else.
#define NVEMBED_LOG_TRACE 5

/// Stops the calls it was given to. Closed with nvembed_cancel_free(), also while calls use it.
typedef struct nvembed_cancel nvembed_cancel;

/// Rows in a GPU's memory: a contiguous array of rows x dimension elements, row i of prompt i.
typedef struct nvembed_device_embeddings nvembed_device_embeddings;

/// Choices of a call. A new one has the defaults.
typedef struct nvembed_embed_options nvembed_embed_options;

/// Why a call failed. Made by the call, freed by the caller with nvembed_error_free().
typedef struct nvembed_error nvembed_error;

/// An open model.
typedef struct nvembed_model nvembed_model;

/// Choices that are fixed while a model is open. A new one has the defaults.
typedef struct nvembed_model_options nvembed_model_options;

/// What a call returns: NVEMBED_OK, or why it failed. Later versions may return codes that are not listed here.
typedef int32_t nvembed_code;

/// A string of the caller's: UTF-8, `length` bytes, no NUL needed. NULL with length 0 is the empty string.
///
/// The layout of this struct is final.
typedef struct nvembed_string {
  /// The first byte.
  const char *data;
  /// The number of bytes.
  size_t length;
} nvembed_string;

/// A text and the literal instruction in front of it, empty for none. nvembed_query_instruction() makes that of a task.
///
/// The layout of this struct is final.
typedef struct nvembed_prompt {
  /// What the model reads before the text and does not pool.
  struct nvembed_string instruction;
  /// The text.
  struct nvembed_string text;
} nvembed_prompt;

/// Where a call puts its results. Set all of it to 0, then `struct_size` to sizeof(nvembed_output), then what is needed.
///
/// Later versions may append fields; `struct_size` tells the library which ones there are.
typedef struct nvembed_output {
  /// sizeof(nvembed_output).
  size_t struct_size;
  /// Row i of the result begins at element i * row_stride. Aligned to an element.
  void *data;
  /// Elements that `data` has room for: at least (rows - 1) * row_stride + dimension.
  size_t capacity;
  /// Elements from one row to the next, at least the dimension; 0: exactly the dimension. What is between rows is not
  /// written.
  size_t row_stride;
  /// NVEMBED_F32 or NVEMBED_F16.
  int32_t dtype;
  /// NVEMBED_MEMORY_HOST.
  int32_t memory;
  /// NULL, or room for one number a row: its tokens, `<s>` and instruction included.
  size_t *token_counts;
  /// NULL, or room for one number a row: 1 if tokens were cut off, else 0.
  uint8_t *truncated;
} nvembed_output;

/// Receives a log message: its NVEMBED_LOG_... level, the part it comes from ("nvembed...", "ort..." for ONNX Runtime), and
/// the message; both strings are UTF-8 without a NUL at their end, and live until the callback returns.
///
/// It is called from any thread, from several at the same time, and by threads of ONNX Runtime. It must not throw, must not
/// call functions of nvembed (they return NVEMBED_IN_CALLBACK), and should be quick.
typedef void (*nvembed_log_callback)(int32_t level,
                                     const char *target,
                                     size_t target_length,
                                     const char *message,
                                     size_t message_length,
                                     void *user_data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// The version of the interface that the library implements: everything in headers of this version and older.
///
/// Threads: any, at any time.
uint32_t nvembed_abi_version(void);

/// The library's version, for example "0.1.0"; a constant that is never freed.
///
/// Threads: any, at any time.
const char *nvembed_version(void);

/// The name of a code, for example "NVEMBED_MODEL"; "unknown code" for others. A constant that is never freed.
///
/// Threads: any, at any time.
const char *nvembed_code_name(nvembed_code code);

/// The code of an error, the same that the call returned; NVEMBED_INVALID_HANDLE when this is no live error.
///
/// Threads: any, at the same time.
nvembed_code nvembed_error_code(const struct nvembed_error *error);

/// The message of an error: UTF-8, ended by NUL, with the offending value and the limit; never a user's text. It lives
/// until the error is freed. A constant message when this is no live error; never NULL.
///
/// Threads: any, at the same time; the message must not be read while another thread frees the error.
const char *nvembed_error_message(const struct nvembed_error *error);

/// Frees an error. NULL is fine.
///
/// Threads: any, at the same time.
nvembed_code nvembed_error_free(struct nvembed_error *error);

/// Makes options of a model, with the defaults.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_new(struct nvembed_model_options **options, struct nvembed_error **error);

/// Closes options. NULL is fine. Models opened with them are not affected.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_free(struct nvembed_model_options *options);

/// Where the computation runs: "cpu" (the default), "cuda", "tensorrt", "nv-tensorrt-rtx" or "openvino". A provider that the loaded
/// library does not have is an error when the model is opened, never a silent run on the CPU.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_provider(struct nvembed_model_options *options,
                                                const char *name,
                                                size_t name_length,
                                                struct nvembed_error **error);

/// The ONNX Runtime library to load, a file or a folder. Not set, or of length 0: it is looked for, see docs/c-api.md.
/// A process loads one; naming another one later is an error when a model is opened.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_library(struct nvembed_model_options *options,
                                               const char *path,
                                               size_t path_length,
                                               struct nvembed_error **error);

/// Threads of one run, 1 to 1,024; 0, the default: ONNX Runtime takes one for each physical core.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_intra_threads(struct nvembed_model_options *options,
                                                     size_t threads,
                                                     struct nvembed_error **error);

/// Whether (not 0) every file of the model is read and compared with the manifest when it is opened. Default: 0.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_verify_hashes(struct nvembed_model_options *options,
                                                     int32_t verify_hashes,
                                                     struct nvembed_error **error);

/// The folder in which the program's `nvembed prepare` keeps what it makes ahead, and in which opening looks for it. Not
/// set, or of length 0: the folder `cache` in the model folder.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_cache(struct nvembed_model_options *options,
                                             const char *path,
                                             size_t path_length,
                                             struct nvembed_error **error);

/// Whether (not 0) all threads rearrange the weights when a model is opened on the CPU: faster, and the process's resident
/// memory shows up to twice the model meanwhile. Default: 0.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_parallel_prepacking(struct nvembed_model_options *options,
                                                           int32_t parallel_prepacking,
                                                           struct nvembed_error **error);

/// Whether (not 0) the memory of each node of the graph goes back to the system as soon as it is free, on the CPU: a third
/// less memory for a text of many thousand tokens, and slower. Default: 0.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_low_memory(struct nvembed_model_options *options,
                                                  int32_t low_memory,
                                                  struct nvembed_error **error);

/// Makes options of a call, with the defaults.
///
/// Threads: any, at the same time.
nvembed_code nvembed_embed_options_new(struct nvembed_embed_options **options, struct nvembed_error **error);

/// Closes options. NULL is fine. A call that has them goes on with what they were when it began.
///
/// Threads: any, at the same time.
nvembed_code nvembed_embed_options_free(struct nvembed_embed_options *options);

/// The longest row in tokens, `<s>`, instruction and `</s>` included: 1 to nvembed_model_max_length(). 0, the default:
/// the model's own limit. Checked by the call that gets the options, as are the other ranges.
///
/// Threads: any, at the same time.
nvembed_code nvembed_embed_options_set_max_length(struct nvembed_embed_options *options,
                                                  size_t max_length,
                                                  struct nvembed_error **error);

/// What happens to a text that is too long: an NVEMBED_TRUNCATION_... constant.
///
/// Threads: any, at the same time.
nvembed_code nvembed_embed_options_set_truncation(struct nvembed_embed_options *options,
                                                  int32_t truncation,
                                                  struct nvembed_error **error);

/// How special tokens written in a prompt are read: an NVEMBED_SPECIAL_TOKENS_... constant.
///
/// Threads: any, at the same time.
nvembed_code nvembed_embed_options_set_special_tokens(struct nvembed_embed_options *options,
                                                      int32_t special_tokens,
                                                      struct nvembed_error **error);

/// Padded tokens of one batch, rows x longest row: 1 to 1,048,576. Default: 1,024 on the CPU, 4,096 on a GPU. A single
/// longer row runs alone.
///
/// Threads: any, at the same time.
nvembed_code nvembed_embed_options_set_max_batch_tokens(struct nvembed_embed_options *options,
                                                        size_t max_batch_tokens,
                                                        struct nvembed_error **error);

/// Rows of one batch: 1 to 8,192. Default: 256.
///
/// Threads: any, at the same time.
nvembed_code nvembed_embed_options_set_max_batch_size(struct nvembed_embed_options *options,
                                                      size_t max_batch_size,
                                                      struct nvembed_error **error);

/// The longest that a call may take, in milliseconds from its start; then it ends with NVEMBED_DEADLINE_EXCEEDED. 0, the
/// default: no deadline. A call looks at it where it looks for cancellation, but a run on the CPU that has begun ends first.
///
/// Threads: any, at the same time.
nvembed_code nvembed_embed_options_set_deadline(struct nvembed_embed_options *options,
                                                uint64_t milliseconds,
                                                struct nvembed_error **error);

/// The GPUs that a model is opened on, as CUDA numbers them: 1 to 64 numbers, none twice. Each GPU gets the whole model.
/// Not set: GPU 0. Checked when a model is opened on a GPU, as are the other ranges; on the CPU nothing reads them.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_device_ids(struct nvembed_model_options *options,
                                                  const size_t *device_ids,
                                                  size_t count,
                                                  struct nvembed_error **error);

/// The most memory that ONNX Runtime takes on each GPU, in bytes. 0, the default: no limit but the GPU's.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_memory_limit(struct nvembed_model_options *options,
                                                    size_t memory_limit,
                                                    struct nvembed_error **error);

/// A CUstream of the caller's that copies and runs are put on, of one GPU only. NULL, the default: one of the model's own.
///
/// The caller promises that it is a stream of the GPU's primary context, that nothing captures it while the model runs,
/// and that it exists until the model and every nvembed_device_embeddings of it are closed and no call uses them.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_stream(struct nvembed_model_options *options,
                                              void *stream,
                                              struct nvembed_error **error);

/// Whether (not 0) the kernels of a run are recorded once for each shape and replayed with one call. Default: 1.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_cuda_graphs(struct nvembed_model_options *options,
                                                   int32_t cuda_graphs,
                                                   struct nvembed_error **error);

/// How many results of one shape may be held on a GPU at once, see nvembed_embed_on_device(): 1 to 256. Default: 2.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_buffer_sets(struct nvembed_model_options *options,
                                                   size_t buffer_sets,
                                                   struct nvembed_error **error);

/// The lengths in tokens that batches are padded to on a GPU: up to 256 numbers that rise, none over the model's limit. A
/// longer text is an error. Of count 0, the default: 16, 32, 48, 64, 96, 128 and so on, up to the model's limit.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_sequence_buckets(struct nvembed_model_options *options,
                                                        const size_t *lengths,
                                                        size_t count,
                                                        struct nvembed_error **error);

/// The numbers of rows that batches are padded to on a GPU: up to 256 numbers that rise. Of count 0, the default: 1, 2,
/// 4 and so on, up to 64.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_batch_buckets(struct nvembed_model_options *options,
                                                     const size_t *rows,
                                                     size_t count,
                                                     struct nvembed_error **error);

/// How hard TensorRT looks for fast kernels when it builds an engine: 0 to 5. Default: 3, TensorRT's own.
///
/// Engines are built by the program's `nvembed prepare`, and one is found when a model is opened with the same options.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_builder_optimization_level(struct nvembed_model_options *options,
                                                                  size_t level,
                                                                  struct nvembed_error **error);

/// The most scratch memory that TensorRT's kernels may use, in bytes. 0, the default: TensorRT's own limit, the GPU's
/// memory.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_workspace(struct nvembed_model_options *options,
                                                 size_t workspace,
                                                 struct nvembed_error **error);

/// Whether (not 0) TensorRT builds an engine when a model is opened for which none was prepared: minutes each time, and
/// nothing is kept. Default: 0, which makes that an error.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_options_set_build_on_open(struct nvembed_model_options *options,
                                                     int32_t build_on_open,
                                                     struct nvembed_error **error);

/// Opens a model folder made by nvembed-export. `options` may be NULL. After a failure there is nothing to close.
///
/// Threads: any, at the same time; the first calls of a process load ONNX Runtime one after the other.
nvembed_code nvembed_model_open(const char *folder,
                                size_t folder_length,
                                const struct nvembed_model_options *options,
                                struct nvembed_model **model,
                                struct nvembed_error **error);

/// Closes a model. NULL is fine. Calls that use it in other threads end as usual, and the last one frees it.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_close(struct nvembed_model *model);

/// D, the numbers of an embedding.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_dimension(const struct nvembed_model *model,
                                     size_t *dimension,
                                     struct nvembed_error **error);

/// The longest row in tokens that the model accepts.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_max_length(const struct nvembed_model *model,
                                      size_t *max_length,
                                      struct nvembed_error **error);

/// Allocates memory and records CUDA graphs on each GPU for every shape that calls with these options can need, so that no
/// call waits for that. `*shapes` becomes their number; on the CPU there are none. `options`, `cancel` and `shapes` may be
/// NULL. After a failure some shapes are ready, and the model can be used.
///
/// Threads: any, at the same time; other calls' runs come between two shapes.
nvembed_code nvembed_model_warm_up(const struct nvembed_model *model,
                                   const struct nvembed_embed_options *options,
                                   const struct nvembed_cancel *cancel,
                                   size_t *shapes,
                                   struct nvembed_error **error);

/// What the model says of itself: `field` is an NVEMBED_METADATA_... constant. Copies the string and a NUL to `buffer`;
/// `*length` becomes its length without the NUL, also when the buffer is too small. A NULL buffer asks for the length only;
/// `length` may be NULL when `buffer` is not.
///
/// Threads: any, at the same time.
nvembed_code nvembed_model_metadata(const struct nvembed_model *model,
                                    int32_t field,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length,
                                    struct nvembed_error **error);

/// The instruction of a query whose task is described in one English sentence: "Instruct: {task}\nQuery: ". Buffer and
/// length as of nvembed_model_metadata().
///
/// Threads: any, at the same time.
nvembed_code nvembed_query_instruction(const char *task,
                                       size_t task_length,
                                       char *buffer,
                                       size_t capacity,
                                       size_t *length,
                                       struct nvembed_error **error);

/// Makes a token. One token may be given to many calls, at the same time and one after the other.
///
/// Threads: any, at the same time.
nvembed_code nvembed_cancel_new(struct nvembed_cancel **cancel, struct nvembed_error **error);

/// Ends the calls that have this token, with NVEMBED_CANCELLED, and every call that gets it later. Returns at once; a run
/// of the graph ends between two of its nodes. A token cannot be used again: make a new one.
///
/// Threads: any, at the same time; that is what it is for. Not for signal handlers.
nvembed_code nvembed_cancel_request(const struct nvembed_cancel *cancel,
                                    struct nvembed_error **error);

/// Closes a token. NULL is fine. It does not cancel: calls that have the token go on.
///
/// Threads: any, at the same time.
nvembed_code nvembed_cancel_free(struct nvembed_cancel *cancel);

/// Embeds `count` prompts: row i of the output belongs to prompt i. `options` and `cancel` may be NULL. When the call
/// fails, nothing was written to the output.
///
/// Threads: any, at the same time, also on one model: the calls tokenize side by side and take turns on the graph. Each
/// call has its own output.
nvembed_code nvembed_embed(const struct nvembed_model *model,
                           const struct nvembed_prompt *prompts,
                           size_t count,
                           const struct nvembed_embed_options *options,
                           const struct nvembed_output *output,
                           const struct nvembed_cancel *cancel,
                           struct nvembed_error **error);

/// Embeds `count` texts with the same instruction, which may be empty; else as nvembed_embed().
///
/// Threads: as nvembed_embed().
nvembed_code nvembed_embed_texts(const struct nvembed_model *model,
                                 const char *instruction,
                                 size_t instruction_length,
                                 const struct nvembed_string *texts,
                                 size_t count,
                                 const struct nvembed_embed_options *options,
                                 const struct nvembed_output *output,
                                 const struct nvembed_cancel *cancel,
                                 struct nvembed_error **error);

/// Counts tokens as nvembed_embed() would, without running the graph. `token_counts` and `truncated`, each NULL or with
/// room for `count` numbers, are filled as those of nvembed_output. A prompt that cannot be embedded is an error.
///
/// Threads: any, at the same time.
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
/// The prompts run as one batch: 1 or more, and no more than fit in one within max_batch_tokens, max_batch_size and the
/// model's buckets, else NVEMBED_OPTION; a model on the CPU is NVEMBED_OPTION too. The call returns when the computation
/// is on its way, not when it is done: see nvembed_device_embeddings_event(). While as many results of one shape are held
/// as nvembed_model_options_set_buffer_sets() allows, another one of that shape is NVEMBED_DEVICE.
///
/// Threads: any, at the same time, also on one model: they take turns on the GPU.
nvembed_code nvembed_embed_on_device(const struct nvembed_model *model,
                                     const struct nvembed_prompt *prompts,
                                     size_t count,
                                     const struct nvembed_embed_options *options,
                                     const struct nvembed_cancel *cancel,
                                     struct nvembed_device_embeddings **embeddings,
                                     struct nvembed_error **error);

/// The address of the first element in the memory of the GPU: a CUdeviceptr. It stays as it is, and so do the elements
/// behind it, until the rows are released.
///
/// Threads: any, at the same time.
nvembed_code nvembed_device_embeddings_pointer(const struct nvembed_device_embeddings *embeddings,
                                               uint64_t *pointer,
                                               struct nvembed_error **error);

/// The CUstream that the rows are computed on, of the GPU's primary context. It is the model's; do not destroy it.
///
/// Threads: any, at the same time.
nvembed_code nvembed_device_embeddings_stream(const struct nvembed_device_embeddings *embeddings,
                                              void **stream,
                                              struct nvembed_error **error);

/// The CUevent behind the computation: the rows are complete when it has passed. Let your stream wait for it
/// (cuStreamWaitEvent), or the host (cuEventSynchronize), before the rows are read. It is the model's; do not destroy or
/// record it. It is this result's until the rows are released.
///
/// Threads: any, at the same time.
nvembed_code nvembed_device_embeddings_event(const struct nvembed_device_embeddings *embeddings,
                                             void **event,
                                             struct nvembed_error **error);

/// The GPU, as CUDA numbers it.
///
/// Threads: any, at the same time.
nvembed_code nvembed_device_embeddings_device_id(const struct nvembed_device_embeddings *embeddings,
                                                 size_t *device_id,
                                                 struct nvembed_error **error);

/// NVEMBED_F32 or NVEMBED_F16: what the model's graph computes, fp16 graphs in 16-bit floats.
///
/// Threads: any, at the same time.
nvembed_code nvembed_device_embeddings_dtype(const struct nvembed_device_embeddings *embeddings,
                                             int32_t *dtype,
                                             struct nvembed_error **error);

/// The number of rows, which is that of the prompts.
///
/// Threads: any, at the same time.
nvembed_code nvembed_device_embeddings_rows(const struct nvembed_device_embeddings *embeddings,
                                            size_t *rows,
                                            struct nvembed_error **error);

/// D, the elements of a row.
///
/// Threads: any, at the same time.
nvembed_code nvembed_device_embeddings_dimension(const struct nvembed_device_embeddings *embeddings,
                                                 size_t *dimension,
                                                 struct nvembed_error **error);

/// Copies out what happened to each row: `token_counts` and `truncated`, each NULL or with room for `capacity` numbers,
/// are filled as those of nvembed_output. A capacity below the number of rows is NVEMBED_BUFFER_TOO_SMALL.
///
/// Threads: any, at the same time.
nvembed_code nvembed_device_embeddings_tokens(const struct nvembed_device_embeddings *embeddings,
                                              size_t *token_counts,
                                              uint8_t *truncated,
                                              size_t capacity,
                                              struct nvembed_error **error);

/// Closes the handle and gives the memory back to the model's next calls. NULL is fine. All that reads the rows must be
/// done, on the GPU too.
///
/// Threads: any, at the same time; of several that release the same rows, one succeeds.
nvembed_code nvembed_device_embeddings_release(struct nvembed_device_embeddings *embeddings);

/// Closes the handle and gives the memory back to calls that come after `event`, a CUevent that was recorded behind what
/// reads the rows. Returns at once: the GPU waits, not the host.
///
/// The caller promises that it is an event of the GPU's primary context, and that it exists until a later call of
/// nvembed_embed_on_device() on the same GPU has returned, or until the model and its results are closed.
///
/// Threads: any, at the same time; of several that release the same rows, one succeeds.
nvembed_code nvembed_device_embeddings_release_after(struct nvembed_device_embeddings *embeddings,
                                                     void *event,
                                                     struct nvembed_error **error);

/// Sets the callback for log messages up to `level`, of the whole process; NULL unsets it. A second call replaces the first.
/// When it returns, the former callback is not running and will not be called again: its user data may be freed.
///
/// Threads: any, at the same time; the last one stays. It waits for callbacks that are running: it must not be called with a
/// lock that the callback takes.
nvembed_code nvembed_set_log_callback(nvembed_log_callback callback,
                                      void *user_data,
                                      int32_t level,
                                      struct nvembed_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* NVEMBED_H */
