/* What the stand-ins have in common: device memory that is host memory, and functions with nothing to do. */
#ifndef NVEMBED_CUDA_SHIM_H
#define NVEMBED_CUDA_SHIM_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* One device. The sizes are a large consumer card's; only the compute capability can be chosen. */
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

/* 10 * major + minor. */
static inline int shim_compute_capability(void) {
  const char *text = getenv("CUDA_SHIM_CC");
  return text ? atoi(text) : 89;
}

/* As aligned as cudaMalloc's. Every byte is 0xFF, which as a float of any size is NaN: no kernel runs, and what was
   never written must not look like a result. */
static inline void *shim_allocate(size_t bytes) {
  size_t rounded = (bytes + 511) & ~(size_t)255;
  void *memory = aligned_alloc(256, rounded);
  if (memory) memset(memory, 0xFF, rounded);
  return memory;
}

/* Streams, events, graphs, descriptors: an address of its own for each, with nothing behind it. */
static inline int shim_create_handle(void **handle) {
  *handle = calloc(1, 64);
  return 0;
}

/* A function that the header declares and that has nothing to do. One body of the right return type stands for all of
   them: on x86-64 a callee may ignore its arguments. */
#define SHIM_SUCCEEDS(name) extern __typeof__(name) name __attribute__((alias("shim_success")));

/* The same for libraries whose headers are not at hand; 0 is success in all of them. */
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

#endif
