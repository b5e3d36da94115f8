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
SHIM_STUB(cublasGemmStridedBatchedEx)
SHIM_STUB(cublasScopy_v2)
SHIM_STUB(cublasSgeam)
SHIM_STUB(cublasSgemm_v2)
SHIM_STUB(cublasSgemmBatched)
SHIM_STUB(cublasSgemmStridedBatched)
SHIM_STUB(cublasSgetrfBatched)
SHIM_STUB(cublasSgetriBatched)
SHIM_STUB(cublasSscal_v2)

/* Only what is written matters: C, m by n without gaps, of 4 bytes a number (CUDA_R_32F, 0) or 2. */
int cublasGemmEx(void *handle, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha, const void *a,
                 int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type, int ldc,
                 int compute, int algorithm);
int cublasGemmEx(void *handle UNUSED, int transpose_a UNUSED, int transpose_b UNUSED, int m, int n, int k UNUSED,
                 const void *alpha UNUSED, const void *a UNUSED, int a_type UNUSED, int lda UNUSED, const void *b UNUSED,
                 int b_type UNUSED, int ldb UNUSED, const void *beta UNUSED, void *c, int c_type, int ldc UNUSED,
                 int compute UNUSED, int algorithm UNUSED) {
  cuda_shim_writes(c, (size_t)m * (size_t)n * (c_type == 0 ? 4 : 2));
  return 0;
}
