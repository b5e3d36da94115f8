/* Stand-in for libcurand.so.10, which the provider links to and does not use. */
int curandGetVersion(int *version);
int curandGetVersion(int *version) { return *version = 10400, 0; }
