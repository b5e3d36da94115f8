/* The simulated device: host memory as device memory, counters, a log of copies, and faults on demand. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "shim.h"

enum { OUT_OF_MEMORY = 2, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, ILLEGAL_STATE = 401 }; /* as in cuda.h and driver_types.h */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- counters for tests, in the order of COUNTS in tests/gpu/graph/cuda_probe.py ---- */

struct shim_counts {
  long to_device, to_host, on_device; /* requested copies; kernels' own copies are not seen */
  long launches;                      /* including captured ones, without replays */
  long live_allocations;              /* device and pinned memory not freed yet */
  long allocations;                   /* all so far */
  long live_handles;                  /* streams, events, graphs */
  long captures, graph_launches;
  long synchronizations; /* of streams, events, contexts */
  long elsewhere;        /* copies, kernels, graphs on other streams than the watched one, if there is one */
};
static struct shim_counts counts;
void cuda_shim_counts(struct shim_counts *out);
void cuda_shim_counts(struct shim_counts *out) {
  pthread_mutex_lock(&lock);
  *out = counts;
  pthread_mutex_unlock(&lock);
}

static const void *watched;
void cuda_shim_watch(const void *stream);
void cuda_shim_watch(const void *stream) {
  pthread_mutex_lock(&lock);
  watched = stream;
  pthread_mutex_unlock(&lock);
}
void cuda_shim_used(const void *stream) {
  pthread_mutex_lock(&lock);
  if (watched && stream != watched) counts.elsewhere++;
  pthread_mutex_unlock(&lock);
}

struct shim_copied {
  const void *to, *from;
  size_t bytes;
  long kind; /* enum shim_copy */
};
enum { LOG = 4096 };
static struct shim_copied copied[LOG];
static size_t copied_count;

/* Takes the oldest entry of the log of copies; returns 0 if the log is empty. A full log takes no more entries. */
int cuda_shim_next_copy(struct shim_copied *out);
int cuda_shim_next_copy(struct shim_copied *out) {
  pthread_mutex_lock(&lock);
  int found = copied_count > 0;
  if (found) {
    *out = copied[0];
    memmove(copied, copied + 1, --copied_count * sizeof *copied);
  }
  pthread_mutex_unlock(&lock);
  return found;
}

/* Writes the symbol name of each kernel launched since the last call to the file, one per line. */
static const char **launched;
static size_t launched_count, launched_capacity;
int cuda_shim_launches(const char *path);
int cuda_shim_launches(const char *path) {
  FILE *file = fopen(path, "w");
  if (!file) return -1;
  pthread_mutex_lock(&lock);
  for (size_t index = 0; index < launched_count; index++) fprintf(file, "%s\n", launched[index]);
  launched_count = 0;
  pthread_mutex_unlock(&lock);
  return fclose(file);
}

/* ---- faults ---- */

enum fault { FAIL_ALLOCATION, FAIL_COPY, FAIL_LAUNCH, FAIL_GRAPH, FAIL_SYNCHRONIZE, FAULTS };
static struct {
  long countdown; /* 0: none */
  int error, sticky;
} faults[FAULTS];
static int poisoned;

/* The `after`th call of that kind from now fails with `error`; if `sticky`, so does every later call of any kind. */
void cuda_shim_fail(int kind, long after, int error, int sticky);
void cuda_shim_fail(int kind, long after, int error, int sticky) {
  pthread_mutex_lock(&lock);
  if (kind >= 0 && kind < FAULTS) {
    faults[kind].countdown = after;
    faults[kind].error = error;
    faults[kind].sticky = sticky;
  }
  pthread_mutex_unlock(&lock);
}

/* The error that this call returns, or 0. The caller holds the lock. */
static int outcome(enum fault kind) {
  if (poisoned) return poisoned;
  if (faults[kind].countdown == 0 || --faults[kind].countdown > 0) return 0;
  if (faults[kind].sticky) poisoned = faults[kind].error;
  return faults[kind].error;
}

int cuda_shim_error(void) {
  pthread_mutex_lock(&lock);
  int error = poisoned;
  pthread_mutex_unlock(&lock);
  return error;
}

/* ---- recordings ---- */

struct range {
  char *address;
  size_t bytes;
};
struct graph {
  struct range *writes;
  size_t count;
};
enum { CAPTURES = 16 };
static struct {
  const void *stream; /* NULL: free */
  pthread_t thread;
  enum shim_mode mode;
  int invalid;
  struct graph graph;
} captures[CAPTURES];
static __thread enum shim_mode thread_mode = SHIM_GLOBAL;

enum shim_mode cuda_shim_exchange_mode(enum shim_mode mode) {
  enum shim_mode before = thread_mode;
  thread_mode = mode;
  return before;
}

static int is_mine(int index) { return captures[index].stream && pthread_equal(captures[index].thread, pthread_self()); }

/* The caller holds the lock. CUDA's rule (cuThreadExchangeStreamCaptureMode): a thread in global mode must not make such a
   call while any thread records in global mode, and no thread while it records itself, unless in relaxed mode. A call that
   is made all the same fails, and spoils those recordings. */
static int unsafe(void) {
  int found = 0;
  for (int index = 0; index < CAPTURES; index++) {
    if (!captures[index].stream || captures[index].mode == SHIM_RELAXED) continue;
    int of_others = thread_mode == SHIM_GLOBAL && captures[index].mode == SHIM_GLOBAL;
    if (is_mine(index) ? thread_mode != SHIM_RELAXED : of_others) found = captures[index].invalid = 1;
  }
  return found ? CAPTURE_UNSUPPORTED : 0;
}
int cuda_shim_unsafe(void) {
  pthread_mutex_lock(&lock);
  int error = poisoned ? poisoned : unsafe();
  pthread_mutex_unlock(&lock);
  return error;
}

/* ---- memory ---- */

static size_t device_bytes;

/* Precedes each allocation, padded to the alignment, which is that of cudaMalloc. */
enum { ALIGNMENT = 256 };
struct header {
  size_t bytes;
  int device;
};

/* Fills memory with 0xFF, which reads as NaN in a float of any size: no kernel runs, and memory that was never written
   must not look like a result. CUDA_SHIM_FRESH chooses another byte. */
int cuda_shim_allocate(void **pointer, size_t bytes, int device) {
  *pointer = NULL;
  pthread_mutex_lock(&lock);
  int error = outcome(FAIL_ALLOCATION);
  if (!error) error = unsafe();
  if (!error && device && bytes > shim_memory() - device_bytes) error = OUT_OF_MEMORY;
  if (!error) {
    size_t rounded = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    char *memory = aligned_alloc(ALIGNMENT, rounded + ALIGNMENT);
    if (memory) {
      *(struct header *)memory = (struct header){.bytes = bytes, .device = device};
      memset(memory + ALIGNMENT, (int)shim_setting("CUDA_SHIM_FRESH", 0xFF), rounded);
      *pointer = memory + ALIGNMENT;
      counts.allocations++, counts.live_allocations++;
      if (device) device_bytes += bytes;
    } else {
      error = OUT_OF_MEMORY;
    }
  }
  pthread_mutex_unlock(&lock);
  return error;
}

int cuda_shim_release(void *pointer) {
  if (!pointer) return 0;
  struct header *header = (struct header *)((char *)pointer - ALIGNMENT);
  pthread_mutex_lock(&lock);
  counts.live_allocations--;
  if (header->device) device_bytes -= header->bytes;
  pthread_mutex_unlock(&lock);
  free(header);
  return cuda_shim_error();
}

int cuda_shim_memory_info(size_t *available, size_t *total) {
  pthread_mutex_lock(&lock);
  *total = shim_memory();
  *available = *total - device_bytes;
  pthread_mutex_unlock(&lock);
  return cuda_shim_error();
}

int cuda_shim_copy(void *to, const void *from, size_t bytes, enum shim_copy kind) {
  pthread_mutex_lock(&lock);
  int error = outcome(FAIL_COPY);
  if (!error) {
    if (kind == SHIM_TO_DEVICE) counts.to_device++;
    if (kind == SHIM_TO_HOST) counts.to_host++;
    if (kind == SHIM_ON_DEVICE) counts.on_device++;
    if (copied_count < LOG)
      copied[copied_count++] = (struct shim_copied){.to = to, .from = from, .bytes = bytes, .kind = kind};
    memmove(to, from, bytes);
  }
  pthread_mutex_unlock(&lock);
  return error;
}

/* ---- handles, kernels, graphs ---- */

static void count_handle(long change) {
  pthread_mutex_lock(&lock);
  counts.live_handles += change;
  pthread_mutex_unlock(&lock);
}

int cuda_shim_create(void **handle) {
  *handle = calloc(1, 64);
  count_handle(1);
  return cuda_shim_error();
}

int cuda_shim_destroy(void *handle) {
  if (handle) count_handle(-1);
  free(handle);
  return cuda_shim_error();
}

int cuda_shim_launch(const char *name) {
  pthread_mutex_lock(&lock);
  int error = outcome(FAIL_LAUNCH);
  if (!error) {
    counts.launches++;
    if (launched_count == launched_capacity) {
      launched_capacity = launched_capacity ? 2 * launched_capacity : 1024;
      launched = realloc(launched, launched_capacity * sizeof *launched);
      if (!launched) abort();
    }
    launched[launched_count++] = name ? name : "?";
  }
  pthread_mutex_unlock(&lock);
  return error;
}

int cuda_shim_begin_capture(const void *stream, enum shim_mode mode) {
  pthread_mutex_lock(&lock);
  int error = poisoned ? poisoned : CAPTURE_UNSUPPORTED;
  for (int index = 0; index < CAPTURES; index++)
    if (captures[index].stream == stream) error = ILLEGAL_STATE;
  for (int index = 0; index < CAPTURES && error == CAPTURE_UNSUPPORTED; index++)
    if (!captures[index].stream) {
      captures[index].stream = stream, captures[index].thread = pthread_self(), captures[index].mode = mode;
      captures[index].invalid = 0, captures[index].graph = (struct graph){0};
      counts.captures++;
      error = 0;
    }
  pthread_mutex_unlock(&lock);
  return error;
}

int cuda_shim_end_capture(const void *stream, void **graph) {
  *graph = NULL;
  pthread_mutex_lock(&lock);
  int error = CAPTURE_UNSUPPORTED;
  for (int index = 0; index < CAPTURES; index++)
    if (captures[index].stream == stream) {
      captures[index].stream = NULL;
      error = captures[index].invalid ? CAPTURE_INVALIDATED : poisoned;
      if (error) {
        free(captures[index].graph.writes);
      } else {
        *graph = calloc(1, sizeof(struct graph));
        *(struct graph *)*graph = captures[index].graph;
        counts.live_handles++;
      }
      break;
    }
  pthread_mutex_unlock(&lock);
  return error;
}

enum shim_capture cuda_shim_capturing(const void *stream) {
  enum shim_capture answer = SHIM_NO_CAPTURE;
  pthread_mutex_lock(&lock);
  for (int index = 0; index < CAPTURES; index++)
    if (captures[index].stream == stream) answer = captures[index].invalid ? SHIM_INVALIDATED : SHIM_ACTIVE;
  pthread_mutex_unlock(&lock);
  return stream ? answer : SHIM_NO_CAPTURE;
}

void cuda_shim_writes(void *address, size_t bytes) {
  pthread_mutex_lock(&lock);
  for (int index = 0; index < CAPTURES; index++)
    if (is_mine(index)) {
      struct graph *graph = &captures[index].graph;
      struct range *writes = realloc(graph->writes, (graph->count + 1) * sizeof *writes);
      if (!writes) abort();
      graph->writes = writes;
      graph->writes[graph->count++] = (struct range){address, bytes};
    }
  pthread_mutex_unlock(&lock);
}

int cuda_shim_instantiate(void *graph, void **executable) {
  struct graph *from = graph, *copy = calloc(1, sizeof *copy);
  size_t bytes = from->count * sizeof *from->writes;
  copy->writes = malloc(bytes + 1), copy->count = from->count;
  memcpy(copy->writes, from->writes ? (void *)from->writes : (void *)copy, bytes);
  *executable = copy;
  count_handle(1);
  return cuda_shim_error();
}

int cuda_shim_destroy_graph(void *graph) {
  if (graph) free(((struct graph *)graph)->writes);
  return cuda_shim_destroy(graph);
}

/* With a byte other than 0, replaying a graph fills the memory that it would write with that byte. */
static int poison;
void cuda_shim_poison(int byte);
void cuda_shim_poison(int byte) {
  pthread_mutex_lock(&lock);
  poison = byte;
  pthread_mutex_unlock(&lock);
}

int cuda_shim_launch_graph(void *executable) {
  struct graph *graph = executable;
  pthread_mutex_lock(&lock);
  int error = outcome(FAIL_GRAPH);
  if (!error) counts.graph_launches++;
  for (size_t index = 0; !error && poison && index < graph->count; index++)
    memset(graph->writes[index].address, poison, graph->writes[index].bytes);
  pthread_mutex_unlock(&lock);
  return error;
}

/* While held, synchronizations block, as behind a kernel that never finishes. */
static volatile int held;
void cuda_shim_hold(int hold);
void cuda_shim_hold(int hold) { held = hold; }

int cuda_shim_synchronize(void) {
  while (held) usleep(1000);
  pthread_mutex_lock(&lock);
  int error = outcome(FAIL_SYNCHRONIZE);
  if (!error) error = unsafe();
  if (!error) counts.synchronizations++;
  pthread_mutex_unlock(&lock);
  return error;
}

/* What a recorded stream does cannot be waited for: the call fails, and spoils the recording. */
int cuda_shim_spoil(const void *stream, int error) {
  pthread_mutex_lock(&lock);
  for (int index = 0; index < CAPTURES; index++)
    if (captures[index].stream == stream) captures[index].invalid = 1;
  pthread_mutex_unlock(&lock);
  return error;
}
int cuda_shim_synchronize_stream(const void *stream) {
  switch (cuda_shim_capturing(stream)) {
    case SHIM_ACTIVE: return cuda_shim_spoil(stream, CAPTURE_UNSUPPORTED);
    case SHIM_INVALIDATED: return CAPTURE_INVALIDATED;
    default: return cuda_shim_synchronize();
  }
}

int *cuda_shim_device(void) {
  static __thread int device;
  return &device;
}
