/* What the plugin of TensorRT-RTX links to in libcuda.so.1 beyond the CUDA provider: contexts of its own, and memory of other
   graphics interfaces, which the shim does not have. */
#include "cuda.h"

#include "shim.h"

static char context_of_plugin; /* only its address matters */

CUresult cuCtxCreate(CUcontext *context, CUctxCreateParams *parameters UNUSED, unsigned flags UNUSED, CUdevice device UNUSED) {
  return *context = (CUcontext)(void *)&context_of_plugin, (CUresult)cuda_shim_error();
}
CUresult cuCtxDestroy(CUcontext context UNUSED) { return CUDA_SUCCESS; }
CUresult cuCtxPushCurrent(CUcontext context UNUSED) { return CUDA_SUCCESS; }
CUresult cuCtxPopCurrent(CUcontext *context) { return context ? cuCtxGetCurrent(context) : CUDA_SUCCESS; }
CUresult cuStreamGetCtx(CUstream stream UNUSED, CUcontext *context) { return cuCtxGetCurrent(context); }

#define NOT_HERE(name, ...) \
  CUresult name(__VA_ARGS__) { return CUDA_ERROR_NOT_SUPPORTED; }
NOT_HERE(cuDestroyExternalMemory, CUexternalMemory memory UNUSED)
NOT_HERE(cuDestroyExternalSemaphore, CUexternalSemaphore semaphore UNUSED)
NOT_HERE(cuExternalMemoryGetMappedBuffer, CUdeviceptr *pointer UNUSED, CUexternalMemory memory UNUSED,
         const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *buffer UNUSED)
NOT_HERE(cuImportExternalMemory, CUexternalMemory *memory UNUSED, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *handle UNUSED)
NOT_HERE(cuImportExternalSemaphore, CUexternalSemaphore *semaphore UNUSED,
         const CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC *handle UNUSED)
NOT_HERE(cuSignalExternalSemaphoresAsync, const CUexternalSemaphore *semaphores UNUSED,
         const CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS *parameters UNUSED, unsigned count UNUSED, CUstream stream UNUSED)
NOT_HERE(cuWaitExternalSemaphoresAsync, const CUexternalSemaphore *semaphores UNUSED,
         const CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS *parameters UNUSED, unsigned count UNUSED, CUstream stream UNUSED)
