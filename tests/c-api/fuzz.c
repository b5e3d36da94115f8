/* Random calls in random order from several threads: any code is fine, a crash, a hang or a write where none belongs is not.
 *
 * fuzz MODEL SECONDS SEED
 *
 * Handles are live, closed, of another type, or noise; strings are random bytes of random length; pointers may be NULL or
 * misaligned, counts and sizes wrong. What the contract leaves to the caller (a pointer that is not NULL points to what the
 * call says) is kept. A thread of a given seed makes the same choices, but threads interleave as they like. */
#include "check.h"

#include <pthread.h>
#include <time.h>

enum { THREADS = 4, SLOTS = 24, DIMENSION = 256, ROWS = 4, STRIDE = DIMENSION + 3, TEXT = 300 };

static const char *folder;
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

/* Some handle: mostly one that somebody made, live or not. */
static void *handle(rng *random) {
    void *value;
    if (one_in(random, 12)) return NULL;
    if (one_in(random, 12)) return (void *)(uintptr_t)next(random);
    pthread_mutex_lock(&lock);
    value = slots[below(random, SLOTS)];
    pthread_mutex_unlock(&lock);
    return value;
}

/* A handle of the model's kind, so that embedding is reached often. */
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

/* Bytes of a text: noise, UTF-8, or ASCII with special tokens. */
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

    if (passed > ROWS && passed < SIZE_MAX / 32) passed = ROWS; /* else it must be refused before it is read */
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
        fprintf(stderr, "written where nothing belongs\n");
        abort();
    }
    free(texts);
    free(values);
    return code;
}

static nvembed_code one_call(rng *random, nvembed_error **error) {
    char buffer[TEXT], small[40];
    nvembed_string string = text(random, buffer);
    size_t number = 0, length = 0;
    void *made = NULL;
    nvembed_code code;
    switch (below(random, 24)) {
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
        code = nvembed_model_open(string.data, string.length, one_in(random, 2) ? NULL : handle(random),
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
    case 18: return nvembed_model_options_set_library(handle(random), string.data, string.length, error);
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
            keep(&random, error, 0); /* errors are handles too; the table frees none for us, see the end */
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
    if (argument_count != 4) return 2;
    folder = arguments[1];
    deadline = time(NULL) + atoi(arguments[2]);
    seed = strtoull(arguments[3], NULL, 10);
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    slots[0] = open_model(folder);
    slots[1] = open_model(folder);
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
    return outcome();
}
