/* Stand-in for libnvidia-ml.so.1, which the plugin of TensorRT-RTX asks for the driver's version: it is not loaded here. */
enum { NVML_ERROR_DRIVER_NOT_LOADED = 9 };

int nvmlInit_v2(void);
int nvmlInit_v2(void) { return NVML_ERROR_DRIVER_NOT_LOADED; }
int nvmlShutdown(void);
int nvmlShutdown(void) { return NVML_ERROR_DRIVER_NOT_LOADED; }
int nvmlSystemGetDriverVersion(char *version, unsigned length);
int nvmlSystemGetDriverVersion(char *version, unsigned length) {
  if (length) *version = '\0';
  return NVML_ERROR_DRIVER_NOT_LOADED;
}
const char *nvmlErrorString(int result);
const char *nvmlErrorString(int result) { return result ? "the shim has no NVML" : "success"; }
