/* Stand-in for libcuda.so.1, the driver: what cudarc calls and what the CUDA provider links to. */
#include "cuda.h"

#include <stdint.h>
#include <stdio.h>

#include "shim.h"

#pragma GCC diagnostic ignored "-Wattribute-alias" /* intended in SHIM_SUCCEEDS */

enum { MAX_DEVICES = 16 };
static char contexts[MAX_DEVICES]; /* only their addresses matter */

/* ---- devices and contexts ---- */

CUresult cuInit(unsigned flags UNUSED) { return shim_devices() ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE; }
CUresult cuDriverGetVersion(int *version) { return *version = shim_driver_version(), CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { return *count = shim_devices(), CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  if (ordinal < 0 || ordinal >= shim_devices() || ordinal >= MAX_DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  return *device = ordinal, CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char *name, int length, CUdevice device UNUSED) {
  return snprintf(name, (size_t)length, "%s", SHIM_DEVICE_NAME), CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device UNUSED) { return *bytes = shim_memory(), CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device UNUSED) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = shim_compute_capability() / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = shim_compute_capability() % 10; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = SHIM_MULTIPROCESSORS; break;
    default: *value = 1; /* the device has that feature */
  }
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  if (device == shim_setting("CUDA_SHIM_BUSY", -1)) return CUDA_ERROR_DEVICE_UNAVAILABLE;
  return *context = (CUcontext)(void *)&contexts[device], (CUresult)cuda_shim_error();
}
CUresult cuDevicePrimaryCtxRelease(CUdevice device UNUSED) { return CUDA_SUCCESS; }

static __thread CUcontext current;
CUresult cuCtxGetCurrent(CUcontext *context) { return *context = current, CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) {
  current = context;
  if (context) *cuda_shim_device() = (int)((char *)context - contexts);
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *device) { return *device = *cuda_shim_device(), CUDA_SUCCESS; }
CUresult cuCtxSynchronize(void) { return (CUresult)cuda_shim_synchronize(); }

/* ---- memory ---- */

CUresult cuMemGetInfo(size_t *available, size_t *total) { return (CUresult)cuda_shim_memory_info(available, total); }
CUresult cuMemAlloc(CUdeviceptr *pointer, size_t bytes) {
  return (CUresult)cuda_shim_allocate((void **)pointer, bytes, 1);
}
CUresult cuMemAllocAsync(CUdeviceptr *pointer, size_t bytes, CUstream stream UNUSED) {
  return cuMemAlloc(pointer, bytes);
}
CUresult cuMemFree(CUdeviceptr pointer) { return (CUresult)cuda_shim_release((void *)pointer); }
CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream stream UNUSED) { return cuMemFree(pointer); }
CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags UNUSED) {
  return (CUresult)cuda_shim_allocate(pointer, bytes, 0);
}
CUresult cuMemFreeHost(void *pointer) { return (CUresult)cuda_shim_release(pointer); }

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  cuda_shim_used(stream);
  return (CUresult)cuda_shim_copy((void *)to, from, bytes, SHIM_TO_DEVICE);
}
CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  cuda_shim_used(stream);
  return (CUresult)cuda_shim_copy(to, (const void *)from, bytes, SHIM_TO_HOST);
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  cuda_shim_used(stream);
  return (CUresult)cuda_shim_copy((void *)to, (const void *)from, bytes, SHIM_ON_DEVICE);
}

/* ---- streams and events: every call completes its work before it returns ---- */

CUresult cuStreamCreate(CUstream *stream, unsigned flags UNUSED) { return (CUresult)cuda_shim_create((void **)stream); }
CUresult cuStreamDestroy(CUstream stream) { return (CUresult)cuda_shim_destroy(stream); }
CUresult cuStreamSynchronize(CUstream stream) { return (CUresult)cuda_shim_synchronize_stream(stream); }
CUresult cuEventCreate(CUevent *event, unsigned flags UNUSED) { return (CUresult)cuda_shim_create((void **)event); }
CUresult cuEventDestroy(CUevent event) { return (CUresult)cuda_shim_destroy(event); }

/* The first word of an event counts how often it was recorded, and its second word is the stream if that was itself being
   recorded then. The first word of a stream counts how often it was told to wait for an event, and its second word is the
   last such event. */
static CUresult count(void *handle) {
  if (handle) __atomic_fetch_add((long *)handle, 1, __ATOMIC_RELAXED);
  return (CUresult)cuda_shim_error();
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
  cuda_shim_used(stream);
  if (event) ((CUstream *)event)[1] = cuda_shim_capturing(stream) ? stream : NULL;
  return count(event);
}
CUresult cuEventSynchronize(CUevent event) {
  CUstream recorded = ((CUstream *)event)[1];
  return (CUresult)(recorded ? cuda_shim_spoil(recorded, CUDA_ERROR_CAPTURED_EVENT) : cuda_shim_synchronize());
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags UNUSED) {
  if (stream) ((CUevent *)stream)[1] = event;
  return count(stream);
}

/* ---- recordings ---- */

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
  *mode = (CUstreamCaptureMode)cuda_shim_exchange_mode((enum shim_mode)*mode);
  return CUDA_SUCCESS;
}
CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
  return (CUresult)cuda_shim_begin_capture(stream, (enum shim_mode)mode);
}
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
  *status = (CUstreamCaptureStatus)cuda_shim_capturing(stream);
  return (CUresult)cuda_shim_error();
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  return (CUresult)cuda_shim_end_capture(stream, (void **)graph);
}
CUresult cuGraphDestroy(CUgraph graph) { return (CUresult)cuda_shim_destroy_graph(graph); }

/* ---- errors, and functions that fail only after a sticky fault ---- */

CUresult cuGetErrorName(CUresult error, const char **name) {
  return *name = error ? "CUDA_ERROR_OF_SHIM" : "CUDA_SUCCESS", CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
  return *text = error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : error ? "an error of the CUDA shim" : "no error",
         CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent event UNUSED) { return (CUresult)cuda_shim_unsafe(); }
CUresult cuStreamQuery(CUstream stream UNUSED) { return (CUresult)cuda_shim_unsafe(); }

static UNUSED CUresult shim_success(void) { return (CUresult)cuda_shim_error(); }
SHIM_SUCCEEDS(cuTensorMapEncodeTiled)
