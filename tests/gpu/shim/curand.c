/* Stand-in for libcurand.so.10, which the provider is linked to and takes nothing from. */
int curandGetVersion(int *version);
int curandGetVersion(int *version) { return *version = 10400, 0; }
