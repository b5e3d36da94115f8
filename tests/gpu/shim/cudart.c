/* Stand-in for libcudart.so.13, which uses the state in libcuda.so.1. Allocations and copies are done in host memory;
   kernels are counted and not run. */
#include <pthread.h>
#include <stdint.h>

#include "cuda_runtime_api.h"
#include "shim.h"

#pragma GCC diagnostic ignored "-Wattribute-alias" /* intended in SHIM_SUCCEEDS */

/* The runtime keeps each thread's last error until it is read, since kernel launches are statements that return
   nothing. */
static __thread cudaError_t last_error;
static cudaError_t noted(int error) {
  if (error) last_error = (cudaError_t)error;
  return (cudaError_t)error;
}
cudaError_t cudaPeekAtLastError(void) { return cuda_shim_error() ? (cudaError_t)cuda_shim_error() : last_error; }
cudaError_t cudaGetLastError(void) {
  cudaError_t error = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return error;
}

/* ---- device ---- */

static int exists(int device) { return device >= 0 && device < shim_devices(); }
static cudaError_t driver_is_new_enough(void) {
  return shim_driver_version() < SHIM_CUDA_VERSION ? cudaErrorInsufficientDriver : (cudaError_t)cuda_shim_error();
}

cudaError_t cudaGetDeviceCount(int *count) { return *count = shim_devices(), driver_is_new_enough(); }
cudaError_t cudaDeviceGetByPCIBusId(int *device, const char *bus UNUSED) {
  return *device = 0, shim_devices() ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaGetDevice(int *device) { return *device = *cuda_shim_device(), (cudaError_t)cuda_shim_error(); }
cudaError_t cudaSetDevice(int device) {
  if (!exists(device)) return cudaErrorInvalidDevice;
  return *cuda_shim_device() = device, driver_is_new_enough();
}
cudaError_t cudaDriverGetVersion(int *version) { return *version = shim_driver_version(), cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = SHIM_CUDA_VERSION, cudaSuccess; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
  if (!exists(device)) return cudaErrorInvalidDevice;
  *properties = (struct cudaDeviceProp){
      .name = SHIM_DEVICE_NAME,
      .totalGlobalMem = shim_memory(),
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
  if (!exists(device)) return cudaErrorInvalidDevice;
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
    default: *value = 1; /* the device has that feature */
  }
  return cudaSuccess;
}

/* ---- memory ---- */

static cudaError_t allocate(void **pointer, size_t bytes, int device) {
  return noted(cuda_shim_allocate(pointer, bytes, device));
}
static cudaError_t release(void *pointer) { return (cudaError_t)cuda_shim_release(pointer); }

cudaError_t cudaMalloc(void **pointer, size_t bytes) { return allocate(pointer, bytes, 1); }
cudaError_t cudaMallocHost(void **pointer, size_t bytes) { return allocate(pointer, bytes, 0); }
cudaError_t cudaHostGetDevicePointer(void **pointer, void *host, unsigned flags UNUSED) {
  return *pointer = host, cudaSuccess;
}
cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags UNUSED) { return allocate(pointer, bytes, 0); }
cudaError_t cudaMallocFromPoolAsync(void **pointer, size_t bytes, cudaMemPool_t pool UNUSED,
                                    cudaStream_t stream UNUSED) {
  return allocate(pointer, bytes, 1);
}
cudaError_t cudaFree(void *pointer) { return release(pointer); }
cudaError_t cudaFreeHost(void *pointer) { return release(pointer); }
cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream UNUSED) { return release(pointer); }

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  return (cudaError_t)cuda_shim_memory_info(available, total);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
  memset(attributes, 0, sizeof *attributes);
  attributes->type = cudaMemoryTypeDevice;
  attributes->devicePointer = attributes->hostPointer = (void *)(uintptr_t)pointer;
  return cudaSuccess;
}

static enum shim_copy direction(enum cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToDevice: return SHIM_TO_DEVICE;
    case cudaMemcpyDeviceToHost: return SHIM_TO_HOST;
    case cudaMemcpyDeviceToDevice: return SHIM_ON_DEVICE;
    default: return SHIM_ON_HOST;
  }
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  return noted(cuda_shim_copy(to, from, bytes, direction(kind)));
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
  cuda_shim_used(stream);
  return cudaMemcpy(to, from, bytes, kind);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
  cuda_shim_used(stream);
  if (height == 0) return cudaSuccess;
  /* Counted as one copy, with the first row. */
  for (size_t row = 1; row < height; row++)
    memmove((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
  return cudaMemcpy(to, from, width, kind);
}

/* The shim keeps no device symbols: they read as zeros. */
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

/* ---- streams, events, graphs: every call completes its work before it returns ---- */

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return (cudaError_t)cuda_shim_create((void **)stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags UNUSED) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return (cudaError_t)cuda_shim_destroy(stream); }
cudaError_t cudaLaunchHostFunc(cudaStream_t stream UNUSED, cudaHostFn_t function, void *argument) {
  return function(argument), cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return (cudaError_t)cuda_shim_create((void **)event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags UNUSED) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return (cudaError_t)cuda_shim_destroy(event); }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start UNUSED, cudaEvent_t end UNUSED) {
  return *milliseconds = 0.001f, cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
  cuda_shim_used(stream);
  return noted(cuda_shim_begin_capture(stream, (enum shim_mode)mode));
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  *status = (enum cudaStreamCaptureStatus)cuda_shim_capturing(stream);
  return (cudaError_t)cuda_shim_error();
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  return noted(cuda_shim_end_capture(stream, (void **)graph));
}
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) {
  *mode = (enum cudaStreamCaptureMode)cuda_shim_exchange_mode((enum shim_mode)*mode);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags UNUSED) {
  return (cudaError_t)cuda_shim_instantiate(graph, (void **)executable);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  cuda_shim_used(stream);
  return noted(cuda_shim_launch_graph(executable));
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return (cudaError_t)cuda_shim_destroy_graph(graph); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return (cudaError_t)cuda_shim_destroy_graph(executable);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return noted(cuda_shim_synchronize_stream(stream)); }
cudaError_t cudaEventSynchronize(cudaEvent_t event UNUSED) { return noted(cuda_shim_synchronize()); }
cudaError_t cudaDeviceSynchronize(void) { return noted(cuda_shim_synchronize()); }

/* ---- kernels: compiled code registers and launches each by the address of a host function ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
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

/* Notes what a kernel writes, of the two kinds of kernels whose parameters are known from ONNX Runtime's sources: those that
   compute one number from one other, (input, output, operation, count), and norms, (output, mean, deviation, input, rows,
   columns, ...), which write float32 or, at half the size, float16. */
static void note_writes(const char *name, void **arguments) {
  if (!name || !arguments) return;
  if (strstr(name, "_UnaryElementWise"))
    cuda_shim_writes(*(void **)arguments[1], (size_t)(*(int *)arguments[3]) * sizeof(uint16_t));
  if (strstr(name, "cuApplyLayerNorm"))
    cuda_shim_writes(*(void **)arguments[0], (size_t)(*(int *)arguments[4]) * (size_t)(*(int *)arguments[5]) * sizeof(uint16_t));
}

static cudaError_t launch(const void *function, void **arguments, cudaStream_t stream) {
  cuda_shim_used(stream);
  pthread_mutex_lock(&lock);
  const char *name = kernels[slot_of(function)].name;
  pthread_mutex_unlock(&lock);
  note_writes(name, arguments);
  return noted(cuda_shim_launch(name));
}

cudaError_t cudaLaunchKernel(const void *function, dim3 grid UNUSED, dim3 block UNUSED, void **arguments,
                             size_t shared UNUSED, cudaStream_t stream) {
  return launch(function, arguments, stream);
}
cudaError_t cudaLaunchCooperativeKernel(const void *function, dim3 grid UNUSED, dim3 block UNUSED, void **arguments,
                                        size_t shared UNUSED, cudaStream_t stream) {
  return launch(function, arguments, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **arguments) {
  return launch(function, arguments, config->stream);
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
static __thread struct {
  dim3 grid, block;
  size_t shared;
  void *stream;
} configuration;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
  configuration.grid = grid, configuration.block = block;
  configuration.shared = shared, configuration.stream = stream;
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  *grid = configuration.grid, *block = configuration.block;
  *shared = configuration.shared;
  *(void **)stream = configuration.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
  return *kernel = (cudaKernel_t)(uintptr_t)function, cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid UNUSED, dim3 block UNUSED, void **arguments,
                               size_t shared UNUSED, cudaStream_t stream) {
  return launch(kernel, arguments, stream);
}

/* ---- errors, and functions that do nothing ---- */

const char *cudaGetErrorName(cudaError_t error) { return error ? "cudaErrorOfShim" : "cudaSuccess"; }
const char *cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorInsufficientDriver) return "CUDA driver version is insufficient for CUDA runtime version";
  return error == cudaErrorMemoryAllocation ? "out of memory" : error ? "an error of the CUDA shim" : "no error";
}

cudaError_t cudaEventQuery(cudaEvent_t event UNUSED) { return noted(cuda_shim_unsafe()); }
cudaError_t cudaStreamQuery(cudaStream_t stream UNUSED) { return noted(cuda_shim_unsafe()); }

static UNUSED cudaError_t shim_success(void) { return (cudaError_t)cuda_shim_error(); }
SHIM_SUCCEEDS(cudaEventRecord)
SHIM_SUCCEEDS(cudaEventRecordWithFlags)
SHIM_SUCCEEDS(cudaFuncSetAttribute)
SHIM_SUCCEEDS(cudaKernelSetAttributeForDevice)
SHIM_SUCCEEDS(cudaLibraryUnload)
SHIM_SUCCEEDS(cudaMemPoolSetAttribute)
SHIM_SUCCEEDS(cudaMemPoolTrimTo)
SHIM_SUCCEEDS(cudaStreamWaitEvent)
