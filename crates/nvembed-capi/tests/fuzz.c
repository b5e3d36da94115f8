/* Random calls in random order from several threads. Any code is fine; a crash, a hang or a stray write is a failure.
 *
 * fuzz MODEL SECONDS SEED [PROVIDER]
 *
 * Handles are open, closed, of another type, or random numbers; strings are random bytes of random length; pointers may be NULL
 * or misaligned, counts and sizes wrong. The caller's promises are kept: a pointer that is not NULL points to what the call says.
 * With the same seed, each thread makes the same choices, but threads interleave in any order. */
#include "check.h"

#include <pthread.h>
#include <time.h>

enum { THREADS = 4, SLOTS = 24, DIMENSION = 256, ROWS = 4, STRIDE = DIMENSION + 3, TEXT = 300 };

static const char *folder;
static nvembed_model_options *defaults;
static time_t deadline;
static void *slots[SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long calls, by_code[200], unknown_codes;

typedef struct {
    uint64_t state;
} rng;

static uint64_t next(rng *random) {
    random->state ^= random->state << 13;
    random->state ^= random->state >> 7;
    random->state ^= random->state << 17;
    return random->state;
}

static size_t below(rng *random, size_t end) { return (size_t)(next(random) % end); }
static int one_in(rng *random, size_t n) { return below(random, n) == 0; }

/* Some handle: usually one that a thread opened, closed or not. */
static void *handle(rng *random) {
    void *value;
    if (one_in(random, 12)) return NULL;
    if (one_in(random, 12)) return (void *)(uintptr_t)next(random);
    pthread_mutex_lock(&lock);
    value = slots[below(random, SLOTS)];
    pthread_mutex_unlock(&lock);
    return value;
}

/* Usually a model's handle, so that many calls get as far as embedding. */
static void *model_handle(rng *random) {
    void *value;
    if (one_in(random, 5)) return handle(random);
    pthread_mutex_lock(&lock);
    value = slots[below(random, 2)];
    pthread_mutex_unlock(&lock);
    return value;
}

static void keep(rng *random, void *value, int is_model) {
    pthread_mutex_lock(&lock);
    slots[is_model ? below(random, 2) : 2 + below(random, SLOTS - 2)] = value;
    pthread_mutex_unlock(&lock);
}

static size_t size(rng *random) {
    static const size_t odd[] = {0, 1, 2, 255, 256, 257, 4096, SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 8 + 1};
    return one_in(random, 2) ? below(random, 64) : odd[below(random, sizeof odd / sizeof *odd)];
}

/* The bytes of a text: random, UTF-8, or ASCII with special tokens. */
static nvembed_string text(rng *random, char *buffer) {
    static const char *pieces[] = {"the ", "</s>", "<s>", "\xe2\x82\xac", "\n", "Instruct: ", "rain", "\0", "\xf0\x9f\x98\x80"};
    nvembed_string value;
    size_t length = 0, index;
    if (one_in(random, 6)) {
        length = below(random, TEXT);
        for (index = 0; index < length; ++index) buffer[index] = (char)next(random);
    } else {
        size_t end = below(random, TEXT - 12);
        while (length < end) {
            const char *piece = pieces[below(random, sizeof pieces / sizeof *pieces)];
            size_t of_piece = *piece ? strlen(piece) : 1;
            memcpy(buffer + length, piece, of_piece);
            length += of_piece;
        }
    }
    value.data = one_in(random, 40) ? NULL : buffer;
    value.length = one_in(random, 60) && value.data == NULL ? SIZE_MAX : length;
    return value;
}

static void count_code(nvembed_code code) {
    pthread_mutex_lock(&lock);
    calls += 1;
    if (code >= 0 && code < 200 && strcmp(nvembed_code_name(code), "unknown code") != 0) by_code[code] += 1;
    else unknown_codes += 1;
    pthread_mutex_unlock(&lock);
}

static void on_log(int32_t level, const char *target, size_t target_length, const char *message, size_t message_length,
                   void *user_data) {
    volatile char last = 0;
    (void)level, (void)user_data;
    if (target_length) last = target[target_length - 1];
    if (message_length) last = message[message_length - 1];
    (void)last;
}

/* An embedding call whose output is surrounded by canaries. */
static nvembed_code embed(rng *random, nvembed_error **error) {
    static const size_t canary = 0xc0ffee;
    size_t count = 1 + below(random, ROWS), passed = one_in(random, 12) ? size(random) : count;
    char (*texts)[TEXT] = malloc(2 * ROWS * sizeof *texts);
    nvembed_prompt prompts[ROWS];
    nvembed_string plain[ROWS];
    size_t counts[ROWS + 1];
    uint8_t truncated[ROWS + 1];
    float *values = malloc((ROWS * STRIDE + 1) * sizeof *values);
    nvembed_output output = host_output(values, ROWS * STRIDE, one_in(random, 3) ? NVEMBED_F16 : NVEMBED_F32);
    const nvembed_output *passed_output = one_in(random, 20) ? NULL : &output;
    size_t index, form = below(random, 4);
    nvembed_code code;

    if (passed > ROWS && passed < SIZE_MAX / 32) passed = ROWS; /* otherwise it must be refused before it is read */
    for (index = 0; index < ROWS; ++index) {
        prompts[index].instruction = one_in(random, 2) ? string("") : text(random, texts[index]);
        prompts[index].text = plain[index] = text(random, texts[ROWS + index]);
    }
    memset(values, 0x5a, (ROWS * STRIDE + 1) * sizeof *values);
    counts[ROWS] = canary;
    truncated[ROWS] = 0x5a;
    if (!one_in(random, 3)) output.row_stride = one_in(random, 4) ? size(random) : DIMENSION + below(random, 4);
    if (one_in(random, 8)) output.capacity = below(random, ROWS * STRIDE + 1);
    if (one_in(random, 2)) output.token_counts = counts;
    if (one_in(random, 2)) output.truncated = truncated;
    if (one_in(random, 20)) output.struct_size = size(random);
    if (one_in(random, 20)) output.dtype = (int32_t)next(random);
    if (one_in(random, 20)) output.memory = (int32_t)next(random);
    if (one_in(random, 20)) output.data = NULL;
    if (one_in(random, 20)) output.data = (char *)values + 1;
    if (form == 0) {
        nvembed_string instruction = text(random, texts[0]);
        code = nvembed_embed_texts(model_handle(random), instruction.data, instruction.length, plain, passed,
                                   one_in(random, 2) ? NULL : handle(random), passed_output,
                                   one_in(random, 2) ? NULL : handle(random), error);
    } else if (form == 1) {
        code = nvembed_count_tokens(model_handle(random), prompts, passed, one_in(random, 2) ? NULL : handle(random),
                                    output.token_counts, output.truncated, error);
    } else {
        code = nvembed_embed(model_handle(random), one_in(random, 30) ? NULL : prompts, passed,
                             one_in(random, 2) ? NULL : handle(random), passed_output,
                             one_in(random, 2) ? NULL : handle(random), error);
    }
    if (counts[ROWS] != canary || truncated[ROWS] != 0x5a || ((unsigned char *)(values + ROWS * STRIDE))[0] != 0x5a ||
        (code != NVEMBED_OK && ((unsigned char *)values)[0] != 0x5a)) {
        fprintf(stderr, "a stray write\n");
        abort();
    }
    free(texts);
    free(values);
    return code;
}

/* Options of GPUs, valid and invalid. A stream is the caller's promise, so none is set. */
static nvembed_code gpu_option(rng *random, nvembed_error **error) {
    size_t numbers[4], index, count = one_in(random, 8) ? size(random) : below(random, 5);
    const size_t *passed = one_in(random, 10) ? NULL : numbers;
    nvembed_model_options *options = handle(random);
    for (index = 0; index < 4; ++index) numbers[index] = one_in(random, 4) ? size(random) : 16 * index;
    if (count > 4 && count < SIZE_MAX / 8) count = 4; /* otherwise it must be refused before it is read */
    if (one_in(random, 20)) passed = (const size_t *)(void *)((char *)numbers + 1), count = count > 3 ? 3 : count;
    switch (below(random, 10)) {
    case 0: return nvembed_model_options_set_device_ids(options, passed, count, error);
    case 1: return nvembed_model_options_set_sequence_buckets(options, passed, count, error);
    case 2: return nvembed_model_options_set_batch_buckets(options, passed, count, error);
    case 3: return nvembed_model_options_set_memory_limit(options, size(random), error);
    case 4: return nvembed_model_options_set_stream(options, NULL, error);
    case 5: return nvembed_model_options_set_cuda_graphs(options, (int32_t)next(random), error);
    case 6: return nvembed_model_options_set_buffer_sets(options, size(random), error);
    case 7: return nvembed_model_options_set_builder_optimization_level(options, size(random), error);
    case 8: return nvembed_model_options_set_workspace(options, size(random), error);
    default: return nvembed_model_options_set_build_on_open(options, (int32_t)next(random), error);
    }
}

/* Rows that stay on a GPU: usually released at once, otherwise kept for other threads to read and to release. */
static nvembed_code embed_on_device(rng *random, nvembed_error **error) {
    char texts[ROWS][TEXT];
    nvembed_prompt prompts[ROWS];
    nvembed_device_embeddings *rows = NULL;
    size_t index, count = below(random, ROWS + 1), held = 99;
    void *event = NULL;
    nvembed_code code;
    for (index = 0; index < ROWS; ++index) {
        prompts[index].instruction = string("");
        prompts[index].text = text(random, texts[index]);
    }
    code = nvembed_embed_on_device(model_handle(random), one_in(random, 30) ? NULL : prompts, count,
                                   one_in(random, 2) ? NULL : handle(random), one_in(random, 2) ? NULL : handle(random),
                                   one_in(random, 30) ? NULL : &rows, error);
    if (code != NVEMBED_OK) {
        if (rows != NULL) abort();
        return code;
    }
    if (nvembed_device_embeddings_rows(rows, &held, NULL) != NVEMBED_OK || held != count) abort();
    if (one_in(random, 4)) {
        keep(random, rows, 0);
    } else if (one_in(random, 2)) {
        /* The result's own event exists as long as the rows are held. */
        if (nvembed_device_embeddings_event(rows, &event, NULL) != NVEMBED_OK) abort();
        if (nvembed_device_embeddings_release_after(rows, event, NULL) != NVEMBED_OK) abort();
    } else if (nvembed_device_embeddings_release(rows) != NVEMBED_OK) {
        abort();
    }
    return code;
}

static nvembed_code ask_device(rng *random, nvembed_error **error) {
    nvembed_device_embeddings *rows = handle(random);
    size_t number, counts[ROWS + 1] = {0}, capacity = below(random, ROWS + 1);
    uint8_t truncated[ROWS + 1] = {0};
    uint64_t pointer;
    void *address;
    int32_t dtype;
    nvembed_code code;
    switch (below(random, 10)) {
    case 0: return nvembed_device_embeddings_pointer(rows, one_in(random, 9) ? NULL : &pointer, error);
    case 1: return nvembed_device_embeddings_stream(rows, one_in(random, 9) ? NULL : &address, error);
    case 2: return nvembed_device_embeddings_event(rows, one_in(random, 9) ? NULL : &address, error);
    case 3: return nvembed_device_embeddings_device_id(rows, one_in(random, 9) ? NULL : &number, error);
    case 4: return nvembed_device_embeddings_dtype(rows, one_in(random, 9) ? NULL : &dtype, error);
    case 5: return nvembed_device_embeddings_rows(rows, one_in(random, 9) ? NULL : &number, error);
    case 6: return nvembed_device_embeddings_dimension(rows, one_in(random, 9) ? NULL : &number, error);
    case 7: return nvembed_device_embeddings_release_after(rows, NULL, error);
    case 8: return nvembed_device_embeddings_release(rows);
    default:
        counts[capacity] = 0xc0ffee, truncated[capacity] = 0x5a;
        code = nvembed_device_embeddings_tokens(rows, one_in(random, 5) ? NULL : counts,
                                                one_in(random, 5) ? NULL : truncated, capacity, error);
        if (counts[capacity] != 0xc0ffee || truncated[capacity] != 0x5a) abort();
        return code;
    }
}

static nvembed_code one_call(rng *random, nvembed_error **error) {
    char buffer[TEXT], small[40];
    nvembed_string string = text(random, buffer);
    size_t number = 0, length = 0;
    void *made = NULL;
    nvembed_code code;
    switch (below(random, 32)) {
    case 0:
        code = nvembed_cancel_new(one_in(random, 9) ? NULL : (nvembed_cancel **)&made, error);
        break;
    case 1:
        code = nvembed_embed_options_new(one_in(random, 9) ? NULL : (nvembed_embed_options **)&made, error);
        break;
    case 2:
        code = nvembed_model_options_new(one_in(random, 9) ? NULL : (nvembed_model_options **)&made, error);
        break;
    case 3:
        if (!one_in(random, 20)) string.data = folder, string.length = strlen(folder);
        if (!one_in(random, 20)) return nvembed_model_max_length(model_handle(random), &number, error); /* opening is slow */
        code = nvembed_model_open(string.data, string.length, one_in(random, 2) ? defaults : handle(random),
                                  one_in(random, 9) ? NULL : (nvembed_model **)&made, error);
        if (code == NVEMBED_OK) keep(random, made, 1);
        return code;
    case 4: return one_in(random, 30) ? nvembed_model_close(handle(random)) : nvembed_model_close(NULL);
    case 5: return nvembed_cancel_free(handle(random));
    case 6: return nvembed_embed_options_free(handle(random));
    case 7: return nvembed_model_options_free(handle(random));
    case 8: return nvembed_error_free(handle(random));
    case 9:
        if (nvembed_error_message(handle(random)) == NULL) abort();
        return nvembed_error_code(handle(random));
    case 10: return nvembed_cancel_request(handle(random), error);
    case 11: return nvembed_embed_options_set_max_length(handle(random), size(random), error);
    case 12: return nvembed_embed_options_set_truncation(handle(random), (int32_t)below(random, 5) - 1, error);
    case 13: return nvembed_embed_options_set_special_tokens(handle(random), (int32_t)below(random, 4) - 1, error);
    case 14: return nvembed_embed_options_set_max_batch_tokens(handle(random), size(random), error);
    case 15: return nvembed_embed_options_set_max_batch_size(handle(random), size(random), error);
    case 16: return nvembed_model_options_set_intra_threads(handle(random), below(random, 3), error);
    case 17: return nvembed_model_options_set_provider(handle(random), string.data, string.length, error);
    case 18:
        return (one_in(random, 2) ? nvembed_model_options_set_library : nvembed_model_options_set_provider_library)(
            handle(random), string.data, string.length, error);
    case 19:
        length = below(random, sizeof small);
        small[length] = 0x5a;
        code = nvembed_query_instruction(string.data, string.length, one_in(random, 5) ? NULL : small, length,
                                         one_in(random, 5) ? NULL : &number, error);
        if (small[length] != 0x5a) abort();
        return code;
    case 20:
        return nvembed_model_metadata(model_handle(random), (int32_t)below(random, 9) - 1, small, below(random, sizeof small),
                                      &number, error);
    case 21:
        return nvembed_set_log_callback(one_in(random, 2) ? NULL : on_log, NULL, (int32_t)below(random, 8) - 1, error);
    case 22: return nvembed_embed_options_set_deadline(handle(random), one_in(random, 3) ? next(random) : below(random, 40), error);
    case 23: return gpu_option(random, error);
    case 24:
    case 25: return embed_on_device(random, error);
    case 26:
    case 27: return ask_device(random, error);
    case 28:
        /* All shapes take seconds on the shim, so this is rare, and has options and a token. */
        if (!one_in(random, 50)) return nvembed_model_dimension(model_handle(random), &number, error);
        return nvembed_model_warm_up(model_handle(random), handle(random), handle(random),
                                     one_in(random, 3) ? NULL : &number, error);
    default: return embed(random, error);
    }
    if (code == NVEMBED_OK) keep(random, made, 0);
    return code;
}

static void *run(void *argument) {
    rng random;
    random.state = (uint64_t)(uintptr_t)argument;
    while (time(NULL) < deadline) {
        nvembed_error *error = NULL;
        nvembed_code code = one_call(&random, one_in(&random, 3) ? NULL : &error);
        count_code(code);
        if (error != NULL && one_in(&random, 3)) {
            keep(&random, error, 0); /* errors are handles too; nobody frees these */
        } else {
            nvembed_error_free(error);
        }
    }
    return NULL;
}

int main(int argument_count, char **arguments) {
    pthread_t threads[THREADS];
    uint64_t seed;
    size_t index;
    if (argument_count != 4 && argument_count != 5) return 2;
    folder = arguments[1];
    deadline = time(NULL) + atoi(arguments[2]);
    seed = strtoull(arguments[3], NULL, 10);
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    if (argument_count == 5) {
        OK(nvembed_model_options_new(&defaults, &error));
        OK(nvembed_model_options_set_provider(defaults, arguments[4], strlen(arguments[4]), &error));
        OK(nvembed_model_options_set_self_check(defaults, 0, &error)); /* the shim computes nothing */
    }
    for (index = 0; index < 2; ++index) {
        OK(nvembed_model_open(folder, strlen(folder), defaults, (nvembed_model **)&slots[index], &error));
    }
    for (index = 0; index < THREADS; ++index) {
        if (pthread_create(&threads[index], NULL, run, (void *)(uintptr_t)(seed * THREADS + index + 1)) != 0) abort();
    }
    for (index = 0; index < THREADS; ++index) pthread_join(threads[index], NULL);
    printf("%lu calls\n", calls);
    for (index = 0; index < 200; ++index) {
        if (by_code[index]) printf("%8lu %s\n", by_code[index], nvembed_code_name((nvembed_code)index));
    }
    CHECK(unknown_codes == 0);
    CHECK(by_code[NVEMBED_INTERNAL] == 0);
    CHECK(by_code[NVEMBED_OK] > 0);
    CHECK(nvembed_model_options_free(defaults) == NVEMBED_OK);
    return outcome();
}
