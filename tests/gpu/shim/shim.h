/* What the stand-ins share: the device's sizes and state, and functions that do nothing. */
#ifndef NVEMBED_CUDA_SHIM_H
#define NVEMBED_CUDA_SHIM_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Sizes of a large consumer card. The environment can set compute capability, number of devices, memory and driver. */
enum {
  SHIM_CUDA_VERSION = 13000,
  SHIM_MULTIPROCESSORS = 108,
  SHIM_WARP = 32,
  SHIM_THREADS_PER_BLOCK = 1024,
  SHIM_THREADS_PER_MULTIPROCESSOR = 1536,
  SHIM_BLOCKS_PER_MULTIPROCESSOR = 24,
  SHIM_REGISTERS = 65536,
  SHIM_SHARED_PER_BLOCK = 48 << 10,
  SHIM_SHARED_PER_BLOCK_OPTIN = 99 << 10,
  SHIM_SHARED_PER_MULTIPROCESSOR = 100 << 10,
  SHIM_L2_CACHE = 40 << 20,
  SHIM_GRID_X = 0x7fffffff,
  SHIM_GRID_YZ = 65535,
  SHIM_BLOCK_Z = 64,
};
#define SHIM_DEVICE_NAME "CUDA shim: no GPU"
#define SHIM_MEMORY ((size_t)16 << 30)

static inline long shim_setting(const char *variable, long otherwise) {
  const char *text = getenv(variable);
  return text && *text ? atol(text) : otherwise;
}
/* 10 * major + minor */
static inline int shim_compute_capability(void) { return (int)shim_setting("CUDA_SHIM_CC", 89); }
static inline int shim_devices(void) { return (int)shim_setting("CUDA_SHIM_DEVICES", 1); }
static inline int shim_driver_version(void) { return (int)shim_setting("CUDA_SHIM_DRIVER", SHIM_CUDA_VERSION); }
static inline size_t shim_memory(void) { return (size_t)shim_setting("CUDA_SHIM_MEMORY", (long)SHIM_MEMORY); }

/* ---- state.c, in libcuda, for the driver's and the runtime's functions. Error numbers are the same in both. ---- */

enum shim_copy { SHIM_TO_DEVICE, SHIM_TO_HOST, SHIM_ON_DEVICE, SHIM_ON_HOST };

/* Memory and copies, counted. They return 0 or an error. With `device`, the memory counts as device memory. */
int cuda_shim_allocate(void **pointer, size_t bytes, int device);
int cuda_shim_release(void *pointer);
int cuda_shim_memory_info(size_t *available, size_t *total);
int cuda_shim_copy(void *to, const void *from, size_t bytes, enum shim_copy kind);
/* Streams, events, graphs: each is a unique address and nothing more. */
int cuda_shim_create(void **handle);
int cuda_shim_destroy(void *handle);
/* Notes that something was put on that stream. */
void cuda_shim_used(const void *stream);
/* Notes the launch of a kernel of that name. */
int cuda_shim_launch(const char *name);
/* Recordings ("captures"), as CUDA has them: each belongs to a stream and to the thread that began it. */
enum shim_mode { SHIM_GLOBAL, SHIM_THREAD_LOCAL, SHIM_RELAXED }; /* CUDA's numbers */
enum shim_capture { SHIM_NO_CAPTURE, SHIM_ACTIVE, SHIM_INVALIDATED };
int cuda_shim_begin_capture(const void *stream, enum shim_mode mode);
int cuda_shim_end_capture(const void *stream, void **graph);
enum shim_capture cuda_shim_capturing(const void *stream);
/* Sets the current thread's mode and returns the one before. */
enum shim_mode cuda_shim_exchange_mode(enum shim_mode mode);
/* Calls that would wait for the device, or may: not allowed while runs are recorded, as the modes say. Returns 0 or 900. */
int cuda_shim_unsafe(void);
/* Notes memory that a kernel or product of the recording in this thread will write. */
void cuda_shim_writes(void *address, size_t bytes);
int cuda_shim_instantiate(void *graph, void **executable);
int cuda_shim_launch_graph(void *executable);
int cuda_shim_destroy_graph(void *graph);
int cuda_shim_synchronize(void);
int cuda_shim_synchronize_stream(const void *stream);
/* Spoils that stream's recording, if there is one; returns the error. */
int cuda_shim_spoil(const void *stream, int error);
/* The error of a sticky fault that has happened, which every call then returns, or 0. */
int cuda_shim_error(void);
/* The current thread's device. */
int *cuda_shim_device(void);

/* Handles and descriptors of the other libraries, not counted. */
static inline int shim_create_handle(void **handle) {
  *handle = calloc(1, 64);
  return 0;
}

/* A function that NVIDIA's header declares and that does nothing. One body of the right return type serves all of them,
   since on x86-64 a callee may ignore its arguments. */
#define SHIM_SUCCEEDS(name) extern __typeof__(name) name __attribute__((alias("shim_success")));

/* The same for libraries whose headers are not available; 0 is success in all of them. */
#define SHIM_STUB(name) \
  int name(void);       \
  int name(void) { return 0; }
#define SHIM_CREATE(name)   \
  int name(void **handle);  \
  int name(void **handle) { return shim_create_handle(handle); }
#define SHIM_DESTROY(name) \
  int name(void *handle);  \
  int name(void *handle) { \
    free(handle);          \
    return 0;              \
  }

#define UNUSED __attribute__((unused))

#endif
