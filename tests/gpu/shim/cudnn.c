/* Stand-in for libcudnn.so.9: what ONNX Runtime's reductions call. ONNX Runtime opens the library with dlopen and looks
   up one symbol at a time, so for a model that needs more, the error names the missing symbol. */
#include "shim.h"

size_t cudnnGetVersion(void);
size_t cudnnGetVersion(void) { return 91300; }
const char *cudnnGetErrorString(int status);
const char *cudnnGetErrorString(int status) { return status ? "an error of the CUDA shim" : "success"; }

SHIM_CREATE(cudnnCreate)
SHIM_DESTROY(cudnnDestroy)
SHIM_STUB(cudnnSetStream)
SHIM_CREATE(cudnnCreateTensorDescriptor)
SHIM_DESTROY(cudnnDestroyTensorDescriptor)
SHIM_STUB(cudnnSetTensorNdDescriptor)
SHIM_CREATE(cudnnCreateReduceTensorDescriptor)
SHIM_DESTROY(cudnnDestroyReduceTensorDescriptor)
SHIM_STUB(cudnnSetReduceTensorDescriptor)
SHIM_STUB(cudnnReduceTensor)

int cudnnGetReductionWorkspaceSize(void *handle, void *operation, void *from, void *to, size_t *bytes);
int cudnnGetReductionWorkspaceSize(void *handle, void *operation, void *from, void *to, size_t *bytes) {
  (void)handle, (void)operation, (void)from, (void)to;
  return *bytes = 0, 0;
}
int cudnnGetReductionIndicesSize(void *handle, void *operation, void *from, void *to, size_t *bytes);
int cudnnGetReductionIndicesSize(void *handle, void *operation, void *from, void *to, size_t *bytes) {
  return cudnnGetReductionWorkspaceSize(handle, operation, from, to, bytes);
}
