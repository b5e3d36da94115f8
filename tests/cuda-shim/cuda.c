/* Stand-in for libcuda.so.1, the driver: a device that can be counted, and what the CUDA provider is linked to. */
#include "cuda.h"
#include "shim.h"

#pragma GCC diagnostic ignored "-Wattribute-alias" /* SHIM_SUCCEEDS means it */

CUresult cuDriverGetVersion(int *version) { return *version = SHIM_CUDA_VERSION, CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { return *count = 1, CUDA_SUCCESS; }

static __attribute__((unused)) CUresult shim_success(void) { return CUDA_SUCCESS; }
SHIM_SUCCEEDS(cuInit)
SHIM_SUCCEEDS(cuTensorMapEncodeTiled)
