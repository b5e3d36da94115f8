/* Stand-in for libcudart.so.13. Allocations and copies happen, in host memory; kernels are counted and not run. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

#include "cuda_runtime_api.h"
#include "shim.h"

#pragma GCC diagnostic ignored "-Wattribute-alias" /* SHIM_SUCCEEDS means it */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- what a test may ask; the order is that of the fields in shim.py ---- */

struct shim_counts {
  long to_device, to_host, on_device; /* copies asked for, not copies made by kernels */
  long launches;
  long live_allocations; /* device and pinned memory not freed yet */
};
static struct shim_counts counts;
void cuda_shim_counts(struct shim_counts *out);
void cuda_shim_counts(struct shim_counts *out) {
  pthread_mutex_lock(&lock);
  *out = counts;
  pthread_mutex_unlock(&lock);
}

/* The symbol names of all kernels launched since the last call are written to the file, a line each. */
int cuda_shim_launches(const char *path);

/* ---- device ---- */

cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaDriverGetVersion(int *version) { return *version = SHIM_CUDA_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = SHIM_CUDA_VERSION, cudaSuccess; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  *properties = (struct cudaDeviceProp){
      .name = SHIM_DEVICE_NAME,
      .totalGlobalMem = SHIM_MEMORY,
      .major = shim_compute_capability() / 10,
      .minor = shim_compute_capability() % 10,
      .multiProcessorCount = SHIM_MULTIPROCESSORS,
      .warpSize = SHIM_WARP,
      .maxThreadsPerBlock = SHIM_THREADS_PER_BLOCK,
      .maxThreadsPerMultiProcessor = SHIM_THREADS_PER_MULTIPROCESSOR,
      .maxBlocksPerMultiProcessor = SHIM_BLOCKS_PER_MULTIPROCESSOR,
      .maxThreadsDim = {SHIM_THREADS_PER_BLOCK, SHIM_THREADS_PER_BLOCK, SHIM_BLOCK_Z},
      .maxGridSize = {SHIM_GRID_X, SHIM_GRID_YZ, SHIM_GRID_YZ},
      .regsPerBlock = SHIM_REGISTERS,
      .regsPerMultiprocessor = SHIM_REGISTERS,
      .sharedMemPerBlock = SHIM_SHARED_PER_BLOCK,
      .sharedMemPerBlockOptin = SHIM_SHARED_PER_BLOCK_OPTIN,
      .sharedMemPerMultiprocessor = SHIM_SHARED_PER_MULTIPROCESSOR,
      .l2CacheSize = SHIM_L2_CACHE,
      .unifiedAddressing = 1,
      .managedMemory = 1,
      .concurrentManagedAccess = 1,
      .memoryPoolsSupported = 1,
  };
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = shim_compute_capability() / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = shim_compute_capability() % 10; break;
    case cudaDevAttrMultiProcessorCount: *value = SHIM_MULTIPROCESSORS; break;
    case cudaDevAttrWarpSize: *value = SHIM_WARP; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = SHIM_THREADS_PER_BLOCK; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = SHIM_THREADS_PER_MULTIPROCESSOR; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = SHIM_BLOCKS_PER_MULTIPROCESSOR; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = SHIM_SHARED_PER_BLOCK; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = SHIM_SHARED_PER_BLOCK_OPTIN; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = SHIM_SHARED_PER_MULTIPROCESSOR; break;
    case cudaDevAttrMaxRegistersPerBlock: *value = SHIM_REGISTERS; break;
    case cudaDevAttrMaxGridDimX: *value = SHIM_GRID_X; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = SHIM_GRID_YZ; break;
    default: *value = 1; /* yes, it has that feature */
  }
  return cudaSuccess;
}

/* ---- memory ---- */

static cudaError_t allocate(void **pointer, size_t bytes) {
  *pointer = shim_allocate(bytes);
  if (!*pointer) return cudaErrorMemoryAllocation;
  pthread_mutex_lock(&lock);
  counts.live_allocations++;
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

static cudaError_t release(void *pointer) {
  if (!pointer) return cudaSuccess;
  free(pointer);
  pthread_mutex_lock(&lock);
  counts.live_allocations--;
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

#define UNUSED __attribute__((unused))

cudaError_t cudaMalloc(void **pointer, size_t bytes) { return allocate(pointer, bytes); }
cudaError_t cudaMallocHost(void **pointer, size_t bytes) { return allocate(pointer, bytes); }
cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags UNUSED) { return allocate(pointer, bytes); }
cudaError_t cudaMallocFromPoolAsync(void **pointer, size_t bytes, cudaMemPool_t pool UNUSED,
                                    cudaStream_t stream UNUSED) {
  return allocate(pointer, bytes);
}
cudaError_t cudaFree(void *pointer) { return release(pointer); }
cudaError_t cudaFreeHost(void *pointer) { return release(pointer); }
cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream UNUSED) { return release(pointer); }

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  *available = *total = SHIM_MEMORY;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
  memset(attributes, 0, sizeof *attributes);
  attributes->type = cudaMemoryTypeDevice;
  attributes->devicePointer = attributes->hostPointer = (void *)(uintptr_t)pointer;
  return cudaSuccess;
}

static void count_copy(enum cudaMemcpyKind kind) {
  pthread_mutex_lock(&lock);
  if (kind == cudaMemcpyHostToDevice) counts.to_device++;
  if (kind == cudaMemcpyDeviceToHost) counts.to_host++;
  if (kind == cudaMemcpyDeviceToDevice) counts.on_device++;
  pthread_mutex_unlock(&lock);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  count_copy(kind);
  memmove(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream UNUSED) {
  return cudaMemcpy(to, from, bytes, kind);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream UNUSED) {
  count_copy(kind);
  for (size_t row = 0; row < height; row++)
    memmove((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
  return cudaSuccess;
}

/* Device symbols are not kept. */
cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol UNUSED, size_t bytes, size_t offset UNUSED,
                                 enum cudaMemcpyKind kind UNUSED) {
  memset(to, 0, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemset(void *pointer, int value, size_t bytes) {
  memset(pointer, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *pointer, int value, size_t bytes, cudaStream_t stream UNUSED) {
  return cudaMemset(pointer, value, bytes);
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *properties UNUSED) {
  return shim_create_handle((void **)pool);
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) { return free(pool), cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool UNUSED, enum cudaMemPoolAttr attribute UNUSED, void *value) {
  *(uint64_t *)value = 0;
  return cudaSuccess;
}

/* ---- streams, events, graphs: everything is done when the call returns ---- */

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return shim_create_handle((void **)stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags UNUSED) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return free(stream), cudaSuccess; }
cudaError_t cudaLaunchHostFunc(cudaStream_t stream UNUSED, cudaHostFn_t function, void *argument) {
  return function(argument), cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return shim_create_handle((void **)event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags UNUSED) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return free(event), cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start UNUSED, cudaEvent_t end UNUSED) {
  return *milliseconds = 0.001f, cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream UNUSED, enum cudaStreamCaptureStatus *status) {
  return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream UNUSED, cudaGraph_t *graph) {
  return shim_create_handle((void **)graph);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph UNUSED,
                                 unsigned long long flags UNUSED) {
  return shim_create_handle((void **)executable);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return free(graph), cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return free(executable), cudaSuccess; }

/* ---- kernels: compiled code registers them by the address of a host function, and launches them by it ---- */

enum { SLOTS = 1 << 17 };
static struct {
  const void *function;
  const char *name;
} kernels[SLOTS];

static size_t slot_of(const void *function) {
  size_t slot = (((uintptr_t)function >> 2) * 2654435761u) % SLOTS;
  while (kernels[slot].function && kernels[slot].function != function) slot = (slot + 1) % SLOTS;
  return slot;
}

static const char **launched;
static size_t launched_count, launched_capacity;

static cudaError_t launch(const void *function) {
  pthread_mutex_lock(&lock);
  counts.launches++;
  if (launched_count == launched_capacity) {
    launched_capacity = launched_capacity ? 2 * launched_capacity : 1024;
    launched = realloc(launched, launched_capacity * sizeof *launched);
    if (!launched) abort();
  }
  const char *name = kernels[slot_of(function)].name;
  launched[launched_count++] = name ? name : "?";
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

int cuda_shim_launches(const char *path) {
  FILE *file = fopen(path, "w");
  if (!file) return -1;
  pthread_mutex_lock(&lock);
  for (size_t index = 0; index < launched_count; index++) fprintf(file, "%s\n", launched[index]);
  launched_count = 0;
  pthread_mutex_unlock(&lock);
  return fclose(file);
}

cudaError_t cudaLaunchKernel(const void *function, dim3 grid UNUSED, dim3 block UNUSED, void **arguments UNUSED,
                             size_t shared UNUSED, cudaStream_t stream UNUSED) {
  return launch(function);
}
cudaError_t cudaLaunchCooperativeKernel(const void *function, dim3 grid UNUSED, dim3 block UNUSED,
                                        void **arguments UNUSED, size_t shared UNUSED, cudaStream_t stream UNUSED) {
  return launch(function);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config UNUSED, const void *function,
                                void **arguments UNUSED) {
  return launch(function);
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function UNUSED) {
  memset(attributes, 0, sizeof *attributes);
  attributes->maxThreadsPerBlock = SHIM_THREADS_PER_BLOCK;
  attributes->numRegs = 32;
  attributes->binaryVersion = attributes->ptxVersion = shim_compute_capability();
  attributes->maxDynamicSharedSizeBytes = SHIM_SHARED_PER_BLOCK_OPTIN;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function UNUSED,
                                                                   int block UNUSED, size_t shared UNUSED,
                                                                   unsigned flags UNUSED) {
  return *blocks = 1, cudaSuccess;
}

cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code UNUSED, enum cudaJitOption *options UNUSED,
                                void **values UNUSED, unsigned count UNUSED,
                                enum cudaLibraryOption *library_options UNUSED, void **library_values UNUSED,
                                unsigned library_count UNUSED) {
  return shim_create_handle((void **)library);
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t library, const char *name UNUSED) {
  return *kernel = (cudaKernel_t)(void *)library, cudaSuccess;
}

/* The driver's entry points are optional to those who ask for them this way. */
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol UNUSED, void **function, unsigned version UNUSED,
                                             unsigned long long flags UNUSED,
                                             enum cudaDriverEntryPointQueryResult *result) {
  *function = NULL;
  if (result) *result = cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

/* What nvcc's generated code calls; its header is C++ and declares these for itself. */
void **__cudaRegisterFatBinary(void *binary);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
void __cudaRegisterFunction(void **handle, const char *function, char *device_function, const char *name, ...);
void __cudaRegisterVar(void **handle, ...);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream);
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                               cudaStream_t stream);

void **__cudaRegisterFatBinary(void *binary UNUSED) {
  static void *handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void **handle UNUSED) {}
void __cudaUnregisterFatBinary(void **handle UNUSED) {}
void __cudaRegisterVar(void **handle UNUSED, ...) {}
void __cudaRegisterFunction(void **handle UNUSED, const char *function, char *device_function UNUSED, const char *name,
                            ...) {
  pthread_mutex_lock(&lock);
  static size_t registered;
  size_t slot = slot_of(function);
  if (!kernels[slot].function && ++registered == SLOTS) abort(); /* a full table would never end a search */
  kernels[slot].function = function;
  kernels[slot].name = name;
  pthread_mutex_unlock(&lock);
}
unsigned __cudaPushCallConfiguration(dim3 grid UNUSED, dim3 block UNUSED, size_t shared UNUSED, void *stream UNUSED) {
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  *grid = *block = (dim3){1, 1, 1};
  *shared = 0;
  *(void **)stream = NULL;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
  return *kernel = (cudaKernel_t)(uintptr_t)function, cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid UNUSED, dim3 block UNUSED, void **arguments UNUSED,
                               size_t shared UNUSED, cudaStream_t stream UNUSED) {
  return launch(kernel);
}

/* ---- errors, and all that has nothing to do ---- */

const char *cudaGetErrorName(cudaError_t error) { return error ? "cudaErrorOfShim" : "cudaSuccess"; }
const char *cudaGetErrorString(cudaError_t error) { return error ? "an error of the CUDA shim" : "no error"; }

static UNUSED cudaError_t shim_success(void) { return cudaSuccess; }
SHIM_SUCCEEDS(cudaDeviceSynchronize)
SHIM_SUCCEEDS(cudaEventQuery)
SHIM_SUCCEEDS(cudaEventRecord)
SHIM_SUCCEEDS(cudaEventRecordWithFlags)
SHIM_SUCCEEDS(cudaEventSynchronize)
SHIM_SUCCEEDS(cudaFuncSetAttribute)
SHIM_SUCCEEDS(cudaGetLastError)
SHIM_SUCCEEDS(cudaGraphLaunch)
SHIM_SUCCEEDS(cudaKernelSetAttributeForDevice)
SHIM_SUCCEEDS(cudaLibraryUnload)
SHIM_SUCCEEDS(cudaMemPoolSetAttribute)
SHIM_SUCCEEDS(cudaMemPoolTrimTo)
SHIM_SUCCEEDS(cudaPeekAtLastError)
SHIM_SUCCEEDS(cudaStreamBeginCapture)
SHIM_SUCCEEDS(cudaStreamQuery)
SHIM_SUCCEEDS(cudaStreamSynchronize)
SHIM_SUCCEEDS(cudaStreamWaitEvent)
