/* Stand-in for libcublas.so.13: handles, and matrix products that compute nothing. */
#include "shim.h"

SHIM_CREATE(cublasCreate_v2)
SHIM_DESTROY(cublasDestroy_v2)
SHIM_STUB(cublasSetStream_v2)
SHIM_STUB(cublasSetMathMode)

int cublasGetMathMode(void *handle, int *mode);
int cublasGetMathMode(void *handle __attribute__((unused)), int *mode) { return *mode = 0; }

const char *cublasGetStatusName(int status);
const char *cublasGetStatusName(int status) { return status ? "CUBLAS_STATUS_OF_SHIM" : "CUBLAS_STATUS_SUCCESS"; }
const char *cublasGetStatusString(int status);
const char *cublasGetStatusString(int status) { return status ? "an error of the CUDA shim" : "success"; }

SHIM_STUB(cublasDgeam)
SHIM_STUB(cublasDgemm_v2)
SHIM_STUB(cublasDgemmBatched)
SHIM_STUB(cublasDgemmStridedBatched)
SHIM_STUB(cublasDgetrfBatched)
SHIM_STUB(cublasDgetriBatched)
SHIM_STUB(cublasGemmBatchedEx)
SHIM_STUB(cublasGemmEx)
SHIM_STUB(cublasGemmStridedBatchedEx)
SHIM_STUB(cublasScopy_v2)
SHIM_STUB(cublasSgeam)
SHIM_STUB(cublasSgemm_v2)
SHIM_STUB(cublasSgemmBatched)
SHIM_STUB(cublasSgemmStridedBatched)
SHIM_STUB(cublasSgetrfBatched)
SHIM_STUB(cublasSgetriBatched)
SHIM_STUB(cublasSscal_v2)
