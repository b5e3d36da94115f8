/* The CUDA shim's own functions, for programs that run on it: tests/gpu/shim/README.md. */
#ifndef SHIM_H
#define SHIM_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* The first fields of the shim's own struct. */
struct shim_counts {
    long to_device, to_host, on_device;
    long launches;
    long live_allocations, allocations, live_handles;
    long captures, graph_launches, synchronizations;
};

/* A function of this process's driver; the program ends if the driver is not the shim. */
static inline void *shim_function(const char *name) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    void *function = library ? dlsym(library, name) : NULL;
    if (function == NULL) {
        fprintf(stderr, "%s: %s\n", name, dlerror());
        exit(3);
    }
    return function;
}

/* A conversion from an object pointer to a function pointer that C++ and ISO C both accept. */
#define SHIM_FUNCTION(type, name) ((type)(uintptr_t)shim_function(name))

static inline struct shim_counts shim_counts_now(void) {
    union {
        struct shim_counts counts;
        long room[64]; /* for the shim's other counters */
    } all;
    SHIM_FUNCTION(void (*)(struct shim_counts *), "cuda_shim_counts")(&all.counts);
    return all.counts;
}

static inline void shim_hold(int hold) { SHIM_FUNCTION(void (*)(int), "cuda_shim_hold")(hold); }

/* How many times a stream was told to wait for an event, and for which one last: its first two words, see cuda.c. */
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
