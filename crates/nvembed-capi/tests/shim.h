/* The CUDA shim's own functions, for programs that run on it: tests/cuda-shim/README.md. */
#ifndef SHIM_H
#define SHIM_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* The beginning of the shim's own struct, in its order. */
struct shim_counts {
    long to_device, to_host, on_device;
    long launches;
    long live_allocations, allocations, live_handles;
    long captures, graph_launches, synchronizations;
};

/* A function of the driver that this process has; the program ends when that is no shim. */
static inline void *shim_function(const char *name) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    void *function = library ? dlsym(library, name) : NULL;
    if (function == NULL) {
        fprintf(stderr, "%s: %s\n", name, dlerror());
        exit(3);
    }
    return function;
}

/* C++ and ISO C convert no object pointer to a function pointer without a cast that both accept. */
#define SHIM_FUNCTION(type, name) ((type)(uintptr_t)shim_function(name))

static inline struct shim_counts shim_counts_now(void) {
    union {
        struct shim_counts counts;
        long room[64]; /* for what the shim counts beside these */
    } all;
    SHIM_FUNCTION(void (*)(struct shim_counts *), "cuda_shim_counts")(&all.counts);
    return all.counts;
}

static inline void shim_hold(int hold) { SHIM_FUNCTION(void (*)(int), "cuda_shim_hold")(hold); }

/* How often a stream was told to wait for an event, and for which one last: its first two words, see cuda.c. */
static inline long shim_waited(void *stream, void **event) {
    *event = ((void **)stream)[1];
    return *(long *)stream;
}

/* Streams and events that the program makes and destroys itself. */
static inline void *shim_create(const char *name) {
    void *handle = NULL;
    SHIM_FUNCTION(int (*)(void **, unsigned), name)(&handle, 0);
    return handle;
}

static inline void shim_destroy(const char *name, void *handle) { SHIM_FUNCTION(int (*)(void *), name)(handle); }

#endif
