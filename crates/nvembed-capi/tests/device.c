/* What docs/guides/c-and-cpp.md says about GPUs, on the CUDA shim: no kernel runs, so nothing here is about results.
 *
 * device MODEL_FP16 MODEL_FP32, with two devices. Fresh memory is filled with bytes of 60, so these are the "results". */
#include "check.h"
#include "shim.h"

#include <pthread.h>

enum { DIMENSION = 256, THREADS = 4, FRESH = 60 };

static const char *folder, *folder_fp32;
static nvembed_prompt two[2];

static nvembed_model_options *cuda_options(void) {
    nvembed_model_options *options = NULL;
    OK(nvembed_model_options_new(&options, &error));
    OK(nvembed_model_options_set_provider(options, "cuda", 4, &error));
    OK(nvembed_model_options_set_self_check(options, 0, &error)); /* the shim computes nothing */
    return options;
}

/* Opens a model and frees the options. */
static nvembed_model *open_with(const char *path, nvembed_model_options *options) {
    nvembed_model *model = NULL;
    OK(nvembed_model_open(path, strlen(path), options, &model, &error));
    CHECK(nvembed_model_options_free(options) == NVEMBED_OK);
    return model;
}

static nvembed_device_embeddings *hold(nvembed_model *model) {
    nvembed_device_embeddings *rows = NULL;
    OK(nvembed_embed_on_device(model, two, 2, NULL, NULL, &rows, &error));
    return rows;
}

static uint64_t pointer_of(nvembed_device_embeddings *rows) {
    uint64_t pointer = 0;
    OK(nvembed_device_embeddings_pointer(rows, &pointer, &error));
    return pointer;
}

/* Checks that everything allocated since `before` is freed. */
static void check_free(struct shim_counts before) {
    struct shim_counts after = shim_counts_now();
    CHECK(after.live_allocations == before.live_allocations);
    CHECK(after.live_handles == before.live_handles);
}

static void getters(const char *path, int32_t wanted_dtype) {
    nvembed_model *model = open_with(path, cuda_options());
    nvembed_device_embeddings *rows = hold(model), *again;
    nvembed_embed_options *options = NULL;
    struct shim_counts before, after;
    size_t number = 99, index, counts[3] = {7, 7, 7}, wanted[2] = {0, 0};
    uint8_t truncated[3] = {9, 9, 9};
    void *stream = NULL, *event = NULL;
    int32_t dtype = -1;
    const unsigned char *bytes;

    CHECK(nvembed_device_embeddings_release(rows) == NVEMBED_OK);
    before = shim_counts_now();
    rows = hold(model);
    after = shim_counts_now();
    /* The inputs are copied to the device, and no row is copied back. */
    CHECK(after.to_device == before.to_device + 3 && after.to_host == before.to_host);
    CHECK(after.allocations == before.allocations);

    /* The host can read device memory of the shim: there is as much as the getters say. */
    OK(nvembed_device_embeddings_dtype(rows, &dtype, &error));
    CHECK(dtype == wanted_dtype);
    bytes = (const unsigned char *)(uintptr_t)pointer_of(rows);
    for (index = 0; index < 2 * DIMENSION * (dtype == NVEMBED_F16 ? 2u : 4u); ++index) CHECK(bytes[index] == FRESH);
    OK(nvembed_device_embeddings_rows(rows, &number, &error));
    CHECK(number == 2);
    OK(nvembed_device_embeddings_dimension(rows, &number, &error));
    CHECK(number == DIMENSION);
    OK(nvembed_device_embeddings_device_id(rows, &number, &error));
    CHECK(number == 0);
    OK(nvembed_device_embeddings_stream(rows, &stream, &error));
    OK(nvembed_device_embeddings_event(rows, &event, &error));
    CHECK(stream != NULL && event != NULL && stream != event);
    EXPECT(nvembed_device_embeddings_pointer(rows, NULL, &error), NVEMBED_NULL_POINTER, "pointer is NULL");
    EXPECT(nvembed_device_embeddings_rows(rows, (size_t *)(void *)((char *)counts + 1), &error), NVEMBED_INVALID_ARGUMENT,
           "rows must be aligned");

    /* With max_length, the second prompt is cut and the first is not. */
    OK(nvembed_device_embeddings_tokens(rows, counts, truncated, 3, &error));
    OK(nvembed_count_tokens(model, two, 2, NULL, wanted, NULL, &error));
    CHECK(counts[0] == wanted[0] && counts[1] == wanted[1] && counts[2] == 7);
    CHECK(truncated[0] == 0 && truncated[1] == 0 && truncated[2] == 9);
    OK(nvembed_embed_options_new(&options, &error));
    OK(nvembed_embed_options_set_max_length(options, wanted[0], &error));
    OK(nvembed_embed_on_device(model, two, 2, options, NULL, &again, &error));
    OK(nvembed_device_embeddings_tokens(again, NULL, truncated, 2, &error));
    OK(nvembed_device_embeddings_tokens(again, counts, NULL, 2, &error));
    CHECK(truncated[0] == 0 && truncated[1] == 1 && counts[1] == wanted[0] && counts[1] < wanted[1]);
    OK(nvembed_device_embeddings_tokens(again, NULL, NULL, 2, &error));
    counts[0] = 7;
    EXPECT(nvembed_device_embeddings_tokens(again, counts, truncated, 1, &error), NVEMBED_BUFFER_TOO_SMALL, "at least 2 numbers for 2 rows, got 1");
    CHECK(counts[0] == 7);
    CHECK(nvembed_embed_options_free(options) == NVEMBED_OK);
    CHECK(nvembed_device_embeddings_release(again) == NVEMBED_OK);

    CHECK(nvembed_device_embeddings_release(rows) == NVEMBED_OK);
    CHECK(nvembed_device_embeddings_release(rows) == NVEMBED_INVALID_HANDLE);
    EXPECT(nvembed_device_embeddings_rows(rows, &number, &error), NVEMBED_INVALID_HANDLE, "closed");
    EXPECT(nvembed_device_embeddings_release_after(rows, event, &error), NVEMBED_INVALID_HANDLE, "closed");
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
}

static void refusals(void) {
    nvembed_model *model = open_with(folder, cuda_options());
    nvembed_device_embeddings *rows = (nvembed_device_embeddings *)model;
    nvembed_embed_options *options = NULL;
    nvembed_cancel *cancel = NULL;
    nvembed_output output;
    float values[2 * DIMENSION];

    EXPECT(nvembed_embed_on_device(model, NULL, 0, NULL, NULL, &rows, &error), NVEMBED_OPTION, "got 0");
    CHECK(rows == NULL);
    OK(nvembed_embed_options_new(&options, &error));
    OK(nvembed_embed_options_set_max_batch_size(options, 1, &error));
    EXPECT(nvembed_embed_on_device(model, two, 2, options, NULL, &rows, &error), NVEMBED_OPTION,
           "of 1 to 1 rows (nvembed_embed_options_set_max_batch_size())");
    OK(nvembed_embed_options_set_max_batch_size(options, 2, &error));
    OK(nvembed_embed_options_set_max_length(options, 2, &error));
    OK(nvembed_embed_options_set_truncation(options, NVEMBED_TRUNCATION_ERROR, &error));
    EXPECT(nvembed_embed_on_device(model, two, 2, options, NULL, &rows, &error), NVEMBED_TOO_LONG, "prompt 0");
    CHECK(nvembed_embed_options_free(options) == NVEMBED_OK);

    OK(nvembed_cancel_new(&cancel, &error));
    OK(nvembed_embed_on_device(model, two, 2, NULL, cancel, &rows, &error));
    CHECK(nvembed_device_embeddings_release(rows) == NVEMBED_OK);
    OK(nvembed_cancel_request(cancel, &error));
    EXPECT(nvembed_embed_on_device(model, two, 2, NULL, cancel, &rows, &error), NVEMBED_CANCELLED, "cancelled");
    EXPECT(nvembed_model_warm_up(model, NULL, cancel, NULL, &error), NVEMBED_CANCELLED, "cancelled");
    CHECK(nvembed_cancel_free(cancel) == NVEMBED_OK);

    /* A device that does not answer: the deadline ends the call, and the model works when the device continues. */
    OK(nvembed_embed_options_new(&options, &error));
    OK(nvembed_embed_options_set_deadline(options, 200, &error));
    output = host_output(values, 2 * DIMENSION, NVEMBED_F32);
    shim_hold(1);
    EXPECT(nvembed_embed(model, two, 2, options, &output, NULL, &error), NVEMBED_DEADLINE_EXCEEDED, "deadline");
    shim_hold(0);
    OK(nvembed_embed(model, two, 2, NULL, &output, NULL, &error));
    CHECK(nvembed_embed_options_free(options) == NVEMBED_OK);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
}

static void buffer_sets(void) {
    nvembed_model *model = open_with(folder, cuda_options());
    nvembed_model_options *options = cuda_options();
    nvembed_device_embeddings *first = hold(model), *second = hold(model), *third = NULL;
    uint64_t pointer = pointer_of(first);

    CHECK(pointer_of(second) != pointer);
    EXPECT(nvembed_embed_on_device(model, two, 2, NULL, NULL, &third, &error), NVEMBED_DEVICE, "raise nvembed_model_options_set_buffer_sets()");
    CHECK(third == NULL);
    CHECK(nvembed_device_embeddings_release(first) == NVEMBED_OK);
    third = hold(model);
    CHECK(pointer_of(third) == pointer);
    CHECK(nvembed_device_embeddings_release(second) == NVEMBED_OK);
    CHECK(nvembed_device_embeddings_release(third) == NVEMBED_OK);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);

    OK(nvembed_model_options_set_buffer_sets(options, 1, &error));
    model = open_with(folder, options);
    first = hold(model);
    EXPECT(nvembed_embed_on_device(model, two, 2, NULL, NULL, &third, &error), NVEMBED_DEVICE, "all 1 outputs");
    CHECK(nvembed_device_embeddings_release(first) == NVEMBED_OK);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
}

static void release_after(void) {
    struct shim_counts before = shim_counts_now();
    nvembed_model *model = open_with(folder, cuda_options());
    nvembed_device_embeddings *rows = hold(model);
    void *event = shim_create("cuEventCreate"), *waited = NULL, *stream = NULL;
    long waits;
    uint64_t pointer = pointer_of(rows);

    OK(nvembed_device_embeddings_stream(rows, &stream, &error));
    waits = shim_waited(stream, &waited);
    EXPECT(nvembed_device_embeddings_release_after(rows, NULL, &error), NVEMBED_NULL_POINTER, "event is NULL");
    CHECK(pointer_of(rows) == pointer); /* still held */
    OK(nvembed_device_embeddings_release_after(rows, event, &error));
    EXPECT(nvembed_device_embeddings_release_after(rows, event, &error), NVEMBED_INVALID_HANDLE, "closed");
    CHECK(nvembed_device_embeddings_release(rows) == NVEMBED_INVALID_HANDLE);
    rows = hold(model);
    /* Before that run the stream waited for the event, once. */
    CHECK(pointer_of(rows) == pointer);
    CHECK(shim_waited(stream, &waited) == waits + 1 && waited == event);
    CHECK(nvembed_device_embeddings_release(rows) == NVEMBED_OK);
    rows = hold(model);
    CHECK(shim_waited(stream, &waited) == waits + 1);
    CHECK(nvembed_device_embeddings_release(rows) == NVEMBED_OK);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
    shim_destroy("cuEventDestroy_v2", event);
    check_free(before);
}

/* Rows outlive the model's handle, and the last of them frees the model. */
static void closed_while_held(void) {
    struct shim_counts before = shim_counts_now();
    nvembed_model *model = open_with(folder, cuda_options());
    nvembed_device_embeddings *first = hold(model), *second = hold(model), *none = NULL;
    const unsigned char *bytes = (const unsigned char *)(uintptr_t)pointer_of(second);
    size_t rows = 0;

    CHECK(nvembed_model_close(model) == NVEMBED_OK);
    EXPECT(nvembed_embed_on_device(model, two, 2, NULL, NULL, &none, &error), NVEMBED_INVALID_HANDLE, "closed");
    CHECK(nvembed_device_embeddings_release(first) == NVEMBED_OK);
    OK(nvembed_device_embeddings_rows(second, &rows, &error));
    CHECK(rows == 2 && pointer_of(second) == (uint64_t)(uintptr_t)bytes);
    CHECK(bytes[0] == FRESH && bytes[2 * DIMENSION * 2 - 1] == FRESH);
    CHECK(shim_counts_now().live_allocations > before.live_allocations);
    CHECK(nvembed_device_embeddings_release(second) == NVEMBED_OK);
    check_free(before);
}

static void own_stream(void) {
    struct shim_counts before = shim_counts_now();
    void *stream = shim_create("cuStreamCreate"), *found = NULL;
    nvembed_model_options *options = cuda_options();
    nvembed_model *model = NULL;
    nvembed_device_embeddings *rows;
    const size_t both[2] = {0, 1};

    OK(nvembed_model_options_set_stream(options, stream, &error));
    OK(nvembed_model_options_set_device_ids(options, both, 2, &error));
    EXPECT(nvembed_model_open(folder, strlen(folder), options, &model, &error), NVEMBED_OPTION, "nvembed_model_options_set_stream() is a stream of one");
    OK(nvembed_model_options_set_device_ids(options, both, 1, &error));
    model = open_with(folder, options);
    rows = hold(model);
    OK(nvembed_device_embeddings_stream(rows, &found, &error));
    CHECK(found == stream);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
    CHECK(nvembed_device_embeddings_release(rows) == NVEMBED_OK);
    CHECK(shim_counts_now().live_handles == before.live_handles + 1);
    shim_destroy("cuStreamDestroy_v2", stream);
    check_free(before);

    options = cuda_options();
    OK(nvembed_model_options_set_stream(options, &found, &error));
    OK(nvembed_model_options_set_stream(options, NULL, &error));
    OK(nvembed_model_options_set_device_ids(options, both + 1, 1, &error));
    model = open_with(folder, options);
    rows = hold(model);
    OK(nvembed_device_embeddings_stream(rows, &found, &error));
    CHECK(found != NULL && found != &found);
    {
        size_t device = 99;
        OK(nvembed_device_embeddings_device_id(rows, &device, &error));
        CHECK(device == 1);
    }
    CHECK(nvembed_device_embeddings_release(rows) == NVEMBED_OK);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
}

static void shapes_and_graphs(void) {
    static const size_t lengths[2] = {16, 64}, rows[2] = {1, 4};
    nvembed_model_options *options = cuda_options();
    nvembed_model *model;
    nvembed_device_embeddings *held;
    struct shim_counts before, after;
    size_t shapes = 99;

    OK(nvembed_model_options_set_sequence_buckets(options, lengths, 2, &error));
    OK(nvembed_model_options_set_batch_buckets(options, rows, 2, &error));
    model = open_with(folder, options);
    OK(nvembed_model_warm_up(model, NULL, NULL, &shapes, &error));
    CHECK(shapes == 4);
    before = shim_counts_now();
    held = hold(model);
    after = shim_counts_now();
    CHECK(after.captures == before.captures && after.allocations == before.allocations);
    CHECK(after.graph_launches == before.graph_launches + 1);
    CHECK(nvembed_device_embeddings_release(held) == NVEMBED_OK);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);

    options = cuda_options();
    OK(nvembed_model_options_set_cuda_graphs(options, 0, &error));
    model = open_with(folder, options);
    before = shim_counts_now();
    CHECK(nvembed_device_embeddings_release(hold(model)) == NVEMBED_OK);
    CHECK(shim_counts_now().captures == before.captures);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
}

static void bad_options(void) {
    static const size_t twice[2] = {1, 1}, far[1] = {64}, falling[2] = {64, 16}, zero[1] = {0}, long_row[1] = {1 << 20};
    nvembed_model_options *options = cuda_options();
    nvembed_model *model = NULL;
#define REFUSED(setting, code, part) \
    OK(setting); \
    EXPECT(nvembed_model_open(folder, strlen(folder), options, &model, &error), code, part)
    REFUSED(nvembed_model_options_set_device_ids(options, NULL, 0, &error), NVEMBED_OPTION, "the number of nvembed_model_options_set_device_ids() must");
    REFUSED(nvembed_model_options_set_device_ids(options, twice, 2, &error), NVEMBED_OPTION, "names device 1 twice");
    REFUSED(nvembed_model_options_set_device_ids(options, far, 1, &error), NVEMBED_OPTION, "got 64");
    OK(nvembed_model_options_set_device_ids(options, zero, 1, &error));
    REFUSED(nvembed_model_options_set_buffer_sets(options, 0, &error), NVEMBED_OPTION, "buffer_sets() must be 1 to 256, got 0");
    REFUSED(nvembed_model_options_set_buffer_sets(options, 257, &error), NVEMBED_OPTION, "got 257");
    OK(nvembed_model_options_set_buffer_sets(options, 2, &error));
    REFUSED(nvembed_model_options_set_sequence_buckets(options, falling, 2, &error), NVEMBED_OPTION, "must be strictly increasing");
    REFUSED(nvembed_model_options_set_sequence_buckets(options, long_row, 1, &error), NVEMBED_OPTION, "each of nvembed_model_options_set_sequence_buckets()");
    OK(nvembed_model_options_set_sequence_buckets(options, NULL, 0, &error));
    REFUSED(nvembed_model_options_set_batch_buckets(options, zero, 1, &error), NVEMBED_OPTION, "got 0");
    OK(nvembed_model_options_set_batch_buckets(options, NULL, 0, &error));
    REFUSED(nvembed_model_options_set_builder_optimization_level(options, 2, &error), NVEMBED_OPTION,
            "provider cuda ignores nvembed_model_options_set_builder_optimization_level()");
    OK(nvembed_model_options_set_builder_optimization_level(options, 3, &error));
    OK(nvembed_model_options_set_memory_limit(options, 1, &error));
    CHECK(nvembed_model_open(folder, strlen(folder), options, &model, NULL) != NVEMBED_OK);
    OK(nvembed_model_options_set_memory_limit(options, 0, &error));
    CHECK(model == NULL);
    model = open_with(folder, options);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static nvembed_device_embeddings *shared;
static void *shared_event;
static int released, closing;

/* All threads release the same rows, in both ways, while others read their properties: one succeeds. */
static void *release_shared(void *with_event) {
    uint64_t pointer = 0;
    const nvembed_code asked = nvembed_device_embeddings_pointer(shared, &pointer, NULL);
    const nvembed_code code = with_event ? nvembed_device_embeddings_release_after(shared, shared_event, NULL)
                                         : nvembed_device_embeddings_release(shared);
    pthread_mutex_lock(&lock);
    CHECK(code == NVEMBED_OK || code == NVEMBED_INVALID_HANDLE);
    CHECK(asked == NVEMBED_OK ? pointer != 0 : asked == NVEMBED_INVALID_HANDLE);
    released += code == NVEMBED_OK;
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Embeds, reads and releases until the model is closed. Too many results held at once are not a failure here. */
static void *hold_until_closed(void *model) {
    for (;;) {
        nvembed_device_embeddings *rows = NULL;
        size_t count = 0;
        nvembed_code code = nvembed_embed_on_device(model, two, 2, NULL, NULL, &rows, NULL), asked = NVEMBED_OK;
        if (code == NVEMBED_OK) {
            asked = nvembed_device_embeddings_rows(rows, &count, NULL);
            if (nvembed_device_embeddings_release(rows) != NVEMBED_OK) asked = NVEMBED_INTERNAL;
        }
        pthread_mutex_lock(&lock);
        CHECK(code == NVEMBED_OK || code == NVEMBED_DEVICE || (closing && code == NVEMBED_INVALID_HANDLE));
        CHECK(asked == NVEMBED_OK && (code != NVEMBED_OK || count == 2));
        pthread_mutex_unlock(&lock);
        if (code == NVEMBED_INVALID_HANDLE) return NULL;
    }
}

static void threads(void) {
    struct shim_counts before = shim_counts_now();
    pthread_t thread[THREADS];
    nvembed_model *model = open_with(folder, cuda_options());
    int round, index;

    shared_event = shim_create("cuEventCreate");
    for (round = 0; round < 50; ++round) {
        released = 0;
        shared = hold(model);
        for (index = 0; index < THREADS; ++index) {
            if (pthread_create(&thread[index], NULL, release_shared, index % 2 ? &lock : NULL) != 0) abort();
        }
        for (index = 0; index < THREADS; ++index) pthread_join(thread[index], NULL);
        CHECK(released == 1);
    }
    for (index = 0; index < THREADS; ++index) {
        if (pthread_create(&thread[index], NULL, hold_until_closed, model) != 0) abort();
    }
    for (round = 0; round < 50; ++round) {
        nvembed_output output;
        float values[2 * DIMENSION];
        output = host_output(values, 2 * DIMENSION, NVEMBED_F32);
        /* Rows for the host also need a buffer of that shape. */
        if (nvembed_embed(model, two, 2, NULL, &output, NULL, NULL) == NVEMBED_INVALID_HANDLE) abort();
    }
    pthread_mutex_lock(&lock);
    closing = 1;
    pthread_mutex_unlock(&lock);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
    for (index = 0; index < THREADS; ++index) pthread_join(thread[index], NULL);
    shim_destroy("cuEventDestroy_v2", shared_event);
    check_free(before);
}

int main(int argument_count, char **arguments) {
    struct shim_counts before;
    if (argument_count != 3) return 2;
    folder = arguments[1];
    folder_fp32 = arguments[2];
    two[0] = passage("Homer.");
    two[1] = passage("rain falls on the plain in Spain");
    /* After the first time, the libraries have allocated what they keep for the process. */
    CHECK(nvembed_model_close(open_with(folder, cuda_options())) == NVEMBED_OK);
    before = shim_counts_now();
    getters(folder, NVEMBED_F16);
    getters(folder_fp32, NVEMBED_F32);
    check_free(before);
    refusals();
    buffer_sets();
    release_after();
    closed_while_held();
    own_stream();
    shapes_and_graphs();
    bad_options();
    threads();
    check_free(before);
    return outcome();
}
