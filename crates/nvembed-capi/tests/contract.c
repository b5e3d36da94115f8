/* Every promise of docs/guides/c-and-cpp.md about results, handles, strings and outputs, in one thread.
 *
 * contract MODEL DAMAGED: DAMAGED is a folder without a manifest. */
#include "check.h"

#include <math.h>

enum { DIMENSION = 256, ROWS = 3, STRIDE = DIMENSION + 5, GUARD = 12345 };

static void versions(void) {
    CHECK(nvembed_abi_version() >= NVEMBED_ABI_VERSION);
    CHECK(strchr(nvembed_version(), '.') != NULL);
    CHECK(strcmp(nvembed_code_name(NVEMBED_OK), "NVEMBED_OK") == 0);
    CHECK(strcmp(nvembed_code_name(NVEMBED_INTERNAL), "NVEMBED_INTERNAL") == 0);
    CHECK(strcmp(nvembed_code_name(-1), "unknown code") == 0);
    /* Append-only: programs are already compiled with these numbers. */
    CHECK(NVEMBED_LIBRARY == 1 && NVEMBED_PROVIDER == 2 && NVEMBED_MODEL == 3 && NVEMBED_INPUT == 4);
    CHECK(NVEMBED_TOO_LONG == 5 && NVEMBED_OPTION == 6 && NVEMBED_INFERENCE == 7 && NVEMBED_CANCELLED == 8);
    CHECK(NVEMBED_CACHE == 9 && NVEMBED_DEVICE == 10 && NVEMBED_DEADLINE_EXCEEDED == 11);
    CHECK(NVEMBED_INVALID_HANDLE == 100 && NVEMBED_NULL_POINTER == 101 && NVEMBED_INVALID_ARGUMENT == 102);
    CHECK(NVEMBED_INVALID_UTF8 == 103 && NVEMBED_BUFFER_TOO_SMALL == 104 && NVEMBED_STRUCT_SIZE == 105);
    CHECK(NVEMBED_IN_CALLBACK == 106 && NVEMBED_INTERNAL == 199);
}

static void handles(nvembed_model *model) {
    nvembed_cancel *cancel = NULL, *unused = NULL;
    nvembed_embed_options *options = NULL;
    nvembed_error *stale = NULL;
    size_t number = 0;
    int on_stack = 0;

    OK(nvembed_cancel_new(&cancel, &error));
    OK(nvembed_embed_options_new(&options, &error));
    EXPECT(nvembed_model_dimension(NULL, &number, &error), NVEMBED_INVALID_HANDLE, "nvembed_model handle is NULL");
    EXPECT(nvembed_model_dimension((nvembed_model *)cancel, &number, &error), NVEMBED_INVALID_HANDLE, "closed, or not");
    EXPECT(nvembed_model_dimension((nvembed_model *)(void *)&on_stack, &number, &error), NVEMBED_INVALID_HANDLE, "");
    EXPECT(nvembed_cancel_request((nvembed_cancel *)model, &error), NVEMBED_INVALID_HANDLE, "nvembed_cancel handle");
    CHECK(nvembed_model_close((nvembed_model *)cancel) == NVEMBED_INVALID_HANDLE);
    CHECK(nvembed_cancel_free(cancel) == NVEMBED_OK);
    CHECK(nvembed_cancel_free(cancel) == NVEMBED_INVALID_HANDLE);
    EXPECT(nvembed_cancel_request(cancel, &error), NVEMBED_INVALID_HANDLE, "closed");
    CHECK(nvembed_embed_options_free(options) == NVEMBED_OK);
    EXPECT(nvembed_embed_options_set_max_length(options, 8, &error), NVEMBED_INVALID_HANDLE, "closed");
    EXPECT(nvembed_embed(model, NULL, 0, options, NULL, NULL, &error), NVEMBED_INVALID_HANDLE, "embed_options");

    CHECK(nvembed_model_close(NULL) == NVEMBED_OK && nvembed_error_free(NULL) == NVEMBED_OK);
    CHECK(nvembed_cancel_free(NULL) == NVEMBED_OK && nvembed_embed_options_free(NULL) == NVEMBED_OK);
    CHECK(nvembed_model_options_free(NULL) == NVEMBED_OK);
    CHECK(nvembed_error_code(NULL) == NVEMBED_INVALID_HANDLE);
    CHECK(strcmp(nvembed_error_message(NULL), "not an open nvembed_error") == 0);

    CHECK(nvembed_cancel_request(NULL, &stale) == NVEMBED_INVALID_HANDLE && stale != NULL);
    CHECK(nvembed_error_free(stale) == NVEMBED_OK && nvembed_error_free(stale) == NVEMBED_INVALID_HANDLE);
    CHECK(nvembed_error_code(stale) == NVEMBED_INVALID_HANDLE);
    CHECK(strcmp(nvembed_error_message(stale), "not an open nvembed_error") == 0);

    /* Without an error object; with one that is misaligned. */
    CHECK(nvembed_cancel_request(NULL, NULL) == NVEMBED_INVALID_HANDLE);
    CHECK(nvembed_cancel_new(&unused, (nvembed_error **)((char *)&stale + 1)) == NVEMBED_INVALID_ARGUMENT);
    CHECK(unused == NULL);
    EXPECT(nvembed_cancel_new(NULL, &error), NVEMBED_NULL_POINTER, "cancel is NULL");
    EXPECT(nvembed_embed_options_new(NULL, &error), NVEMBED_NULL_POINTER, "options is NULL");
    EXPECT(nvembed_model_options_new(NULL, &error), NVEMBED_NULL_POINTER, "options is NULL");
    EXPECT(nvembed_model_dimension(model, NULL, &error), NVEMBED_NULL_POINTER, "dimension is NULL");
    EXPECT(nvembed_model_dimension(model, (size_t *)((char *)&number + 1), &error), NVEMBED_INVALID_ARGUMENT, "aligned");
}

static void opening(const char *folder, const char *damaged) {
    nvembed_model_options *options = NULL;
    nvembed_model *model = NULL;

    EXPECT(nvembed_model_open(folder, strlen(folder), NULL, NULL, &error), NVEMBED_NULL_POINTER, "model is NULL");
    EXPECT(nvembed_model_open(NULL, 3, NULL, &model, &error), NVEMBED_NULL_POINTER, "the folder's path is NULL");
    EXPECT(nvembed_model_open(NULL, 0, NULL, &model, &error), NVEMBED_MODEL, "nvembed.json");
    EXPECT(nvembed_model_open("a\xff", 2, NULL, &model, &error), NVEMBED_INVALID_UTF8, "path is not valid UTF-8 at byte 2");
    EXPECT(nvembed_model_open("a\0b", 3, NULL, &model, &error), NVEMBED_MODEL, "");
    EXPECT(nvembed_model_open(damaged, strlen(damaged), NULL, &model, &error), NVEMBED_MODEL, "is not a model folder");
    CHECK(model == NULL);

    OK(nvembed_model_options_new(&options, &error));
    EXPECT(nvembed_model_options_set_provider(options, "g p u", 5, &error), NVEMBED_OPTION,
           "nvembed_model_options_set_provider() must have 1 to 64 letters");
    OK(nvembed_model_options_set_provider(options, "gpu", 3, &error));
    EXPECT(nvembed_model_open(folder, strlen(folder), options, &model, &error), NVEMBED_OPTION,
           "nvembed_model_options_set_provider() must be one of cpu, cuda");
    OK(nvembed_model_options_set_provider_library(options, "/no/such/plugin.so", 18, &error));
    EXPECT(nvembed_model_open(folder, strlen(folder), options, &model, &error), NVEMBED_PROVIDER, "/no/such/plugin.so");
    OK(nvembed_model_options_set_provider(options, "cpu", 3, &error));
    EXPECT(nvembed_model_open(folder, strlen(folder), options, &model, &error), NVEMBED_OPTION,
           "provider cpu ignores nvembed_model_options_set_provider_library()");
    EXPECT(nvembed_model_options_set_provider_library(options, NULL, 1, &error), NVEMBED_NULL_POINTER, "the plugin's path");
    OK(nvembed_model_options_set_provider_library(options, "", 0, &error));
    EXPECT(nvembed_model_options_set_provider(options, NULL, 3, &error), NVEMBED_NULL_POINTER, "provider's name");
    OK(nvembed_model_options_set_provider(options, "cuda", 4, &error));
    EXPECT(nvembed_model_open(folder, strlen(folder), options, &model, &error), NVEMBED_PROVIDER, "cuda");
    OK(nvembed_model_options_set_provider(options, "cpu", 3, &error));
    OK(nvembed_model_options_set_intra_threads(options, 1025, &error));
    EXPECT(nvembed_model_open(folder, strlen(folder), options, &model, &error), NVEMBED_OPTION,
           "nvembed_model_options_set_intra_threads() must be 1 to 1024, got 1025");
    OK(nvembed_model_options_set_intra_threads(options, 1, &error));
    OK(nvembed_model_options_set_verify_hashes(options, 1, &error));
    OK(nvembed_model_options_set_self_check(options, 0, &error));
    OK(nvembed_model_options_set_parallel_prepacking(options, 1, &error));
    OK(nvembed_model_options_set_low_memory(options, 1, &error));
    OK(nvembed_model_options_set_cache(options, "/no/such/cache", 14, &error));
    EXPECT(nvembed_model_options_set_cache(options, NULL, 1, &error), NVEMBED_NULL_POINTER, "the cache's path");
    OK(nvembed_model_options_set_library(options, "/no/such/library.so", 19, &error));
    EXPECT(nvembed_model_open(folder, strlen(folder), options, &model, &error), NVEMBED_LIBRARY, "/no/such/library.so");
    OK(nvembed_model_options_set_library(options, "", 0, &error));
    OK(nvembed_model_open(folder, strlen(folder), options, &model, &error));
    CHECK(nvembed_model_options_free(options) == NVEMBED_OK);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
    CHECK(nvembed_model_close(model) == NVEMBED_INVALID_HANDLE);
}

static void metadata(nvembed_model *model) {
    char buffer[64];
    size_t length = 0, dimension = 0, max_length = 0;
    int32_t field;

    OK(nvembed_model_dimension(model, &dimension, &error));
    OK(nvembed_model_max_length(model, &max_length, &error));
    CHECK(dimension == DIMENSION && max_length >= 16);
    OK(nvembed_model_metadata(model, NVEMBED_METADATA_NAME, NULL, 0, &length, &error));
    CHECK(length == strlen("nv-embed-mini"));
    memset(buffer, 'x', sizeof buffer);
    EXPECT(nvembed_model_metadata(model, NVEMBED_METADATA_NAME, buffer, length, NULL, &error), NVEMBED_BUFFER_TOO_SMALL,
           "the buffer must have at least 14 bytes, got 13");
    CHECK(buffer[0] == 'x');
    OK(nvembed_model_metadata(model, NVEMBED_METADATA_NAME, buffer, length + 1, NULL, &error));
    CHECK(strcmp(buffer, "nv-embed-mini") == 0 && buffer[length + 1] == 'x');
    OK(nvembed_model_metadata(model, NVEMBED_METADATA_PRECISION, buffer, sizeof buffer, &length, &error));
    CHECK(strcmp(buffer, "fp32") == 0 && length == 4);
    for (field = NVEMBED_METADATA_NAME; field <= NVEMBED_METADATA_LIBRARY_PATH; ++field) {
        length = 0;
        OK(nvembed_model_metadata(model, field, NULL, 0, &length, &error));
        CHECK(length > 0);
    }
    EXPECT(nvembed_model_metadata(model, field, NULL, 0, &length, &error), NVEMBED_INVALID_ARGUMENT, "got 7");
    EXPECT(nvembed_model_metadata(model, 0, NULL, 0, NULL, &error), NVEMBED_NULL_POINTER, "both NULL; pass");

    OK(nvembed_query_instruction("find it", 7, buffer, sizeof buffer, &length, &error));
    CHECK(strcmp(buffer, "Instruct: find it\nQuery: ") == 0 && length == strlen(buffer));
    EXPECT(nvembed_query_instruction("\xc3", 1, buffer, sizeof buffer, NULL, &error), NVEMBED_INVALID_UTF8, "the task");
}

static void outputs(nvembed_model *model) {
    static float values[ROWS * STRIDE], again[ROWS * DIMENSION];
    static uint16_t halves[ROWS * DIMENSION];
    static int8_t integers[ROWS * DIMENSION];
    static uint8_t bits[ROWS * DIMENSION / 8 + 1];
    float scales[ROWS + 1] = {GUARD, GUARD, GUARD, GUARD};
    nvembed_prompt prompts[ROWS] = {passage("Homer."), passage(""), passage("rain falls on the plain")};
    nvembed_string texts[ROWS];
    size_t counts[ROWS + 1] = {GUARD, GUARD, GUARD, GUARD}, counted[ROWS];
    uint8_t truncated[ROWS + 1] = {7, 7, 7, 7};
    nvembed_output output = host_output(values, (ROWS - 1) * STRIDE + DIMENSION, NVEMBED_F32);
    nvembed_output bad;
    size_t index, row;

    output.row_stride = STRIDE;
    output.token_counts = counts;
    output.truncated = truncated;
    for (index = 0; index < ROWS * STRIDE; ++index) values[index] = GUARD;

    /* What is refused; nothing is written. */
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, NULL, NULL, &error), NVEMBED_NULL_POINTER, "output is NULL");
    EXPECT(nvembed_embed(model, NULL, ROWS, NULL, &output, NULL, &error), NVEMBED_NULL_POINTER, "prompts is NULL");
    EXPECT(nvembed_embed(model, prompts, SIZE_MAX, NULL, &output, NULL, &error), NVEMBED_INVALID_ARGUMENT, "must be at most");
    bad = output, bad.struct_size = sizeof bad - 1;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_STRUCT_SIZE, "must be 64, got 63");
    bad = output, bad.struct_size = 0;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_STRUCT_SIZE, "must be 64, got 0");
    bad = output, bad.struct_size = SIZE_MAX;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_STRUCT_SIZE, "");
    bad = output, bad.capacity -= 1;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_BUFFER_TOO_SMALL,
           "capacity must be at least 778 elements for 3 rows, got 777");
    bad = output, bad.row_stride = DIMENSION - 1;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_INVALID_ARGUMENT, "256, got 255");
    bad = output, bad.row_stride = SIZE_MAX;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_INVALID_ARGUMENT, "do not fit");
    bad = output, bad.data = NULL;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_NULL_POINTER, "output's data is NULL");
    bad = output, bad.data = (char *)values + 1;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_INVALID_ARGUMENT, "aligned");
    bad = output, bad.token_counts = (size_t *)(void *)((char *)counts + 4);
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_INVALID_ARGUMENT, "token_counts");
    bad = output, bad.dtype = 4;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_INVALID_ARGUMENT, "(3), got 4");
    bad = output, bad.scales = scales;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_INVALID_ARGUMENT, "must be NULL unless");
    bad = host_output(integers, ROWS * DIMENSION, NVEMBED_INT8), bad.scales = (float *)(void *)((char *)scales + 1);
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_INVALID_ARGUMENT, "the output's scales");
    bad = output, bad.memory = 1;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_INVALID_ARGUMENT, "(0), got 1");
    prompts[1].text.length = SIZE_MAX;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &output, NULL, &error), NVEMBED_INVALID_ARGUMENT, "prompt 1: the text");
    prompts[1].text = string("ab\x80");
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &output, NULL, &error), NVEMBED_INVALID_UTF8,
           "prompt 1: the text is not valid UTF-8 at byte 3");
    prompts[1].text.data = NULL;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &output, NULL, &error), NVEMBED_NULL_POINTER, "prompt 1: the text");
    for (index = 0; index < ROWS * STRIDE; ++index) CHECK(values[index] == GUARD);
    CHECK(counts[0] == GUARD && truncated[0] == 7);

    /* A NULL string of length 0 is empty; rows are unit vectors at their stride, and the gaps are not written. */
    prompts[1].text.data = NULL;
    prompts[1].text.length = 0;
    OK(nvembed_embed(model, prompts, ROWS, NULL, &output, NULL, &error));
    for (row = 0; row < ROWS; ++row) {
        double squares = 0;
        for (index = 0; index < STRIDE; ++index) {
            float value = values[row * STRIDE + index];
            if (index < DIMENSION) squares += (double)value * value;
            else CHECK(value == GUARD);
        }
        CHECK(fabs(squares - 1) < 1e-5);
    }
    CHECK(counts[1] == 2 && counts[0] > 2 && counts[ROWS] == GUARD);
    CHECK(truncated[0] == 0 && truncated[2] == 0 && truncated[ROWS] == 7);

    /* The other forms of the call return the same rows. */
    for (row = 0; row < ROWS; ++row) texts[row] = prompts[row].text;
    bad = host_output(again, ROWS * DIMENSION, NVEMBED_F32);
    OK(nvembed_embed_texts(model, NULL, 0, texts, ROWS, NULL, &bad, NULL, &error));
    for (row = 0; row < ROWS; ++row) {
        CHECK(memcmp(again + row * DIMENSION, values + row * STRIDE, DIMENSION * sizeof(float)) == 0);
    }
    OK(nvembed_embed_texts(model, "Say it: ", 8, texts, ROWS, NULL, &bad, NULL, &error));
    CHECK(memcmp(again, values, DIMENSION * sizeof(float)) != 0);
    EXPECT(nvembed_embed_texts(model, "\xff", 1, texts, ROWS, NULL, &bad, NULL, &error), NVEMBED_INVALID_UTF8, "instruction");
    bad = host_output(halves, ROWS * DIMENSION, NVEMBED_F16);
    OK(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error));
    for (index = 0; index < DIMENSION; ++index) {
        /* The sign bits are equal, and both are zero or neither is, down to the smallest half. */
        CHECK((halves[index] >> 15) == (values[index] < 0));
        CHECK(((halves[index] & 0x7fff) != 0) == (fabsf(values[index]) > 2.9e-8f));
    }
    bad = host_output(integers, ROWS * DIMENSION, NVEMBED_INT8);
    bad.scales = scales;
    OK(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error));
    CHECK(scales[ROWS] == GUARD);
    bad = host_output(bits, ROWS * DIMENSION / 8, NVEMBED_BINARY);
    bits[ROWS * DIMENSION / 8] = 77;
    OK(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error));
    CHECK(bits[ROWS * DIMENSION / 8] == 77);
    for (index = 0; index < ROWS * DIMENSION; ++index) {
        float value = values[index / DIMENSION * STRIDE + index % DIMENSION], scale = scales[index / DIMENSION];
        CHECK(fabsf((float)integers[index] * scale - value) <= 0.501f * scale);
        CHECK((bits[index / 8] >> (7 - index % 8) & 1) == (value > 0));
    }
    bad.capacity -= 1;
    EXPECT(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error), NVEMBED_BUFFER_TOO_SMALL, "96 elements");
    /* A program that was compiled before there were scales: nothing behind its struct is read. */
    bad = host_output(again, ROWS * DIMENSION, NVEMBED_F32);
    bad.struct_size = offsetof(nvembed_output, scales);
    bad.scales = (float *)1;
    OK(nvembed_embed(model, prompts, ROWS, NULL, &bad, NULL, &error));
    CHECK(memcmp(again, values, DIMENSION * sizeof(float)) == 0);
    OK(nvembed_count_tokens(model, prompts, ROWS, NULL, counted, NULL, &error));
    CHECK(memcmp(counted, counts, sizeof counted) == 0);
    OK(nvembed_count_tokens(model, prompts, ROWS, NULL, NULL, NULL, &error));
    bad = host_output(NULL, 0, NVEMBED_F32);
    OK(nvembed_embed(model, NULL, 0, NULL, &bad, NULL, &error));
}

static void call_options(nvembed_model *model) {
    static float values[DIMENSION];
    nvembed_output output = host_output(values, DIMENSION, NVEMBED_F32);
    nvembed_prompt prompt = passage("one two three four five six seven eight nine ten </s>");
    nvembed_embed_options *options = NULL;
    uint8_t truncated = 9;
    size_t parsed = 0, literal = 0, count = 0;

    output.truncated = &truncated;
    output.token_counts = &count;
    OK(nvembed_embed_options_new(&options, &error));
    OK(nvembed_embed_options_set_max_length(options, 8, &error));
    OK(nvembed_embed(model, &prompt, 1, options, &output, NULL, &error));
    CHECK(truncated == 1 && count == 8);
    OK(nvembed_embed_options_set_truncation(options, NVEMBED_TRUNCATION_ERROR, &error));
    EXPECT(nvembed_embed(model, &prompt, 1, options, &output, NULL, &error), NVEMBED_TOO_LONG, "prompt 0");
    EXPECT(nvembed_count_tokens(model, &prompt, 1, options, &count, NULL, &error), NVEMBED_TOO_LONG, "prompt 0");
    EXPECT(nvembed_embed_options_set_truncation(options, 4, &error), NVEMBED_INVALID_ARGUMENT, "constant, got 4");
    OK(nvembed_embed_options_set_truncation(options, NVEMBED_TRUNCATION_START, &error));
    OK(nvembed_embed(model, &prompt, 1, options, &output, NULL, &error));
    CHECK(truncated == 1 && count == 8);
    OK(nvembed_embed_options_set_dimensions(options, DIMENSION + 1, &error));
    EXPECT(nvembed_embed(model, &prompt, 1, options, &output, NULL, &error), NVEMBED_OPTION,
           "nvembed_embed_options_set_dimensions() must be 1 to 256, got 257");
    OK(nvembed_embed_options_set_dimensions(options, 2, &error));
    output.capacity = 2;
    values[2] = 5;
    OK(nvembed_embed(model, &prompt, 1, options, &output, NULL, &error));
    CHECK(fabsf(values[0] * values[0] + values[1] * values[1] - 1) < 1e-6f && values[2] == 5);
    output.capacity = DIMENSION;
    OK(nvembed_embed_options_set_dimensions(options, 0, &error));
    OK(nvembed_embed_options_set_truncation(options, NVEMBED_TRUNCATION_KEEP_EOS, &error));
    OK(nvembed_embed_options_set_max_length(options, SIZE_MAX, &error));
    EXPECT(nvembed_embed(model, &prompt, 1, options, &output, NULL, &error), NVEMBED_OPTION,
           "nvembed_embed_options_set_max_length() must be 1 to");
    OK(nvembed_embed_options_set_max_length(options, 0, &error));
    OK(nvembed_embed_options_set_max_batch_tokens(options, 0, &error));
    EXPECT(nvembed_embed(model, &prompt, 1, options, &output, NULL, &error), NVEMBED_OPTION,
           "nvembed_embed_options_set_max_batch_tokens() must be 1 to 1048576, got 0");
    OK(nvembed_embed_options_set_max_batch_tokens(options, 64, &error));
    OK(nvembed_embed_options_set_max_batch_size(options, 8193, &error));
    EXPECT(nvembed_embed(model, &prompt, 1, options, &output, NULL, &error), NVEMBED_OPTION,
           "nvembed_embed_options_set_max_batch_size() must be 1 to 8192, got 8193");
    OK(nvembed_embed_options_set_max_batch_size(options, 4, &error));
    OK(nvembed_count_tokens(model, &prompt, 1, options, &parsed, &truncated, &error));
    CHECK(truncated == 0);
    OK(nvembed_embed_options_set_special_tokens(options, NVEMBED_SPECIAL_TOKENS_LITERAL, &error));
    OK(nvembed_count_tokens(model, &prompt, 1, options, &literal, NULL, &error));
    CHECK(literal > parsed);
    EXPECT(nvembed_embed_options_set_special_tokens(options, -1, &error), NVEMBED_INVALID_ARGUMENT, "constant, got -1");
    OK(nvembed_embed_options_set_max_length(options, 4, &error));
    prompt.instruction = string("a long instruction that fills the row: ");
    EXPECT(nvembed_embed(model, &prompt, 1, options, &output, NULL, &error), NVEMBED_INPUT, "nothing is left to pool");
    CHECK(nvembed_embed_options_free(options) == NVEMBED_OK);
}

static void cancelling(nvembed_model *model) {
    static float values[DIMENSION];
    nvembed_output output = host_output(values, DIMENSION, NVEMBED_F32);
    nvembed_prompt prompt = passage("Homer.");
    nvembed_cancel *cancel = NULL;

    OK(nvembed_cancel_new(&cancel, &error));
    OK(nvembed_embed(model, &prompt, 1, NULL, &output, cancel, &error));
    OK(nvembed_cancel_request(cancel, &error));
    EXPECT(nvembed_embed(model, &prompt, 1, NULL, &output, cancel, &error), NVEMBED_CANCELLED, "cancelled");
    CHECK(nvembed_cancel_free(cancel) == NVEMBED_OK);
    EXPECT(nvembed_embed(model, &prompt, 1, NULL, &output, cancel, &error), NVEMBED_INVALID_HANDLE, "nvembed_cancel");
    OK(nvembed_embed(model, &prompt, 1, NULL, &output, NULL, &error));
}

static int logged, refused, secret_seen, of_onnxruntime;

static void on_log(int32_t level, const char *target, size_t target_length, const char *message, size_t message_length,
                   void *user_data) {
    size_t index;
    nvembed_cancel *cancel = NULL;
    CHECK(level >= NVEMBED_LOG_ERROR && level <= NVEMBED_LOG_TRACE && target_length > 0);
    CHECK(user_data == &logged && target != NULL);
    /* Its INFO is our DEBUG: a service at INFO hears nothing of its workings. */
    if (target_length >= 3 && memcmp(target, "ort", 3) == 0) {
        CHECK(level != NVEMBED_LOG_INFO);
        of_onnxruntime += level == NVEMBED_LOG_DEBUG;
    }
    for (index = 0; index + 6 <= message_length; ++index) secret_seen |= memcmp(message + index, "secret", 6) == 0;
    refused += nvembed_cancel_new(&cancel, NULL) == NVEMBED_IN_CALLBACK;
    logged += 1;
}

static void logs(const char *folder) {
    static float values[DIMENSION];
    nvembed_output output = host_output(values, DIMENSION, NVEMBED_F32);
    nvembed_prompt prompt = passage("a secret text");
    nvembed_model *model;
    int before;

    EXPECT(nvembed_set_log_callback(on_log, NULL, 0, &error), NVEMBED_INVALID_ARGUMENT, "got 0");
    EXPECT(nvembed_set_log_callback(on_log, NULL, 6, &error), NVEMBED_INVALID_ARGUMENT, "got 6");
    OK(nvembed_set_log_callback(on_log, NULL, NVEMBED_LOG_TRACE, &error));
    OK(nvembed_set_log_callback(on_log, &logged, NVEMBED_LOG_TRACE, &error));
    model = open_model(folder, 0);
    OK(nvembed_embed(model, &prompt, 1, NULL, &output, NULL, &error));
    CHECK(logged > 0 && refused == logged && !secret_seen && of_onnxruntime > 0);
    before = logged;
    OK(nvembed_set_log_callback(on_log, &logged, NVEMBED_LOG_ERROR, &error));
    OK(nvembed_embed(model, &prompt, 1, NULL, &output, NULL, &error));
    CHECK(logged == before);
    OK(nvembed_set_log_callback(on_log, &logged, NVEMBED_LOG_TRACE, &error));
    OK(nvembed_set_log_callback(NULL, NULL, 0, &error));
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
    model = open_model(folder, 0);
    CHECK(logged == before);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
}

/* A call of three runs. At most the first starts before the deadline, and it takes longer. */
static void deadlines(nvembed_model *model) {
    static float values[ROWS * DIMENSION];
    static char text[600];
    nvembed_prompt prompts[ROWS];
    nvembed_output output = host_output(values, ROWS * DIMENSION, NVEMBED_F32);
    nvembed_embed_options *options = NULL;
    size_t index;

    for (index = 0; index + 6 < sizeof text; index += 6) memcpy(text + index, "plain ", 6);
    for (index = 0; index < ROWS; ++index) prompts[index] = passage(text);
    for (index = 0; index < ROWS * DIMENSION; ++index) values[index] = GUARD;
    OK(nvembed_embed_options_new(&options, &error));
    OK(nvembed_embed_options_set_max_batch_size(options, 1, &error));
    OK(nvembed_embed_options_set_deadline(options, 1, &error));
    EXPECT(nvembed_embed(model, prompts, ROWS, options, &output, NULL, &error), NVEMBED_DEADLINE_EXCEEDED, "deadline");
    for (index = 0; index < ROWS * DIMENSION; ++index) CHECK(values[index] == GUARD);
    /* It counts from the start of each call, not from when it was set: two calls, each well within a minute. */
    OK(nvembed_embed_options_set_deadline(options, 60000, &error));
    OK(nvembed_embed(model, prompts, 1, options, &output, NULL, &error));
    OK(nvembed_embed_options_set_deadline(options, UINT64_MAX, &error));
    OK(nvembed_embed(model, prompts, 1, options, &output, NULL, &error));
    OK(nvembed_embed_options_set_deadline(options, 1, &error));
    OK(nvembed_embed_options_set_deadline(options, 0, &error));
    OK(nvembed_embed(model, prompts, 3, options, &output, NULL, &error));
    CHECK(nvembed_embed_options_free(options) == NVEMBED_OK);
    EXPECT(nvembed_embed_options_set_deadline(options, 1, &error), NVEMBED_INVALID_HANDLE, "closed");
}

/* The first setter sets an option that a model on the CPU ignores, the second sets its default again. */
#define IGNORED(setter, restore) \
    do { \
        const char *name = "nvembed_model_options_" #setter; \
        char wanted[128]; \
        snprintf(wanted, sizeof wanted, "provider cpu ignores %.*s()", (int)strcspn(name, "("), name); \
        OK(nvembed_model_options_##setter); \
        EXPECT(nvembed_model_open(folder, strlen(folder), options, &other, &error), NVEMBED_OPTION, wanted); \
        OK(nvembed_model_options_##restore); \
    } while (0)

/* What can be tested without a GPU; device.c tests the rest. */
static void without_a_gpu(const char *folder, nvembed_model *model) {
    nvembed_prompt prompt = passage("Homer.");
    nvembed_model_options *options = NULL;
    nvembed_embed_options *call = NULL;
    nvembed_device_embeddings *rows = (nvembed_device_embeddings *)model;
    nvembed_cancel *cancel = NULL;
    nvembed_model *other = NULL;
    size_t numbers[2] = {0, 7}, shapes = GUARD;
    void *address = &shapes;
    uint64_t pointer = GUARD;
    int32_t dtype = GUARD;

    EXPECT(nvembed_embed_on_device(model, &prompt, 1, NULL, NULL, &rows, &error), NVEMBED_OPTION, "open on cpu");
    CHECK(rows == NULL);
    EXPECT(nvembed_embed_on_device(model, &prompt, 1, NULL, NULL, NULL, &error), NVEMBED_NULL_POINTER, "embeddings is NULL");
    EXPECT(nvembed_embed_on_device(model, NULL, 1, NULL, NULL, &rows, &error), NVEMBED_NULL_POINTER, "prompts is NULL");
    EXPECT(nvembed_embed_on_device(NULL, &prompt, 1, NULL, NULL, &rows, &error), NVEMBED_INVALID_HANDLE, "nvembed_model");
    EXPECT(nvembed_embed_on_device(model, &prompt, 1, NULL, (nvembed_cancel *)model, &rows, &error), NVEMBED_INVALID_HANDLE,
           "nvembed_cancel");
    prompt.text = string("\xff");
    EXPECT(nvembed_embed_on_device(model, &prompt, 1, NULL, NULL, &rows, &error), NVEMBED_INVALID_UTF8, "prompt 0");

    /* Handles of another type. */
    rows = (nvembed_device_embeddings *)model;
    EXPECT(nvembed_device_embeddings_pointer(NULL, &pointer, &error), NVEMBED_INVALID_HANDLE, "embeddings handle is NULL");
    EXPECT(nvembed_device_embeddings_pointer(rows, &pointer, &error), NVEMBED_INVALID_HANDLE, "nvembed_device_embeddings");
    EXPECT(nvembed_device_embeddings_stream(rows, &address, &error), NVEMBED_INVALID_HANDLE, "");
    EXPECT(nvembed_device_embeddings_event(rows, &address, &error), NVEMBED_INVALID_HANDLE, "");
    EXPECT(nvembed_device_embeddings_device_id(rows, numbers, &error), NVEMBED_INVALID_HANDLE, "");
    EXPECT(nvembed_device_embeddings_dtype(rows, &dtype, &error), NVEMBED_INVALID_HANDLE, "");
    EXPECT(nvembed_device_embeddings_rows(rows, numbers, &error), NVEMBED_INVALID_HANDLE, "");
    EXPECT(nvembed_device_embeddings_dimension(rows, numbers, &error), NVEMBED_INVALID_HANDLE, "");
    EXPECT(nvembed_device_embeddings_tokens(rows, numbers, NULL, 1, &error), NVEMBED_INVALID_HANDLE, "");
    EXPECT(nvembed_device_embeddings_release_after(rows, address, &error), NVEMBED_INVALID_HANDLE, "");
    EXPECT(nvembed_device_embeddings_release_after(NULL, address, &error), NVEMBED_INVALID_HANDLE, "is NULL");
    EXPECT(nvembed_device_embeddings_release_after(rows, NULL, &error), NVEMBED_NULL_POINTER, "event is NULL");
    CHECK(nvembed_device_embeddings_release(rows) == NVEMBED_INVALID_HANDLE);
    CHECK(nvembed_device_embeddings_release(NULL) == NVEMBED_OK);
    CHECK(pointer == GUARD && dtype == GUARD && address == &shapes && numbers[0] == 0);

    /* There is nothing to warm up, but the arguments are checked. */
    OK(nvembed_model_warm_up(model, NULL, NULL, &shapes, &error));
    CHECK(shapes == 0);
    OK(nvembed_model_warm_up(model, NULL, NULL, NULL, &error));
    EXPECT(nvembed_model_warm_up(NULL, NULL, NULL, &shapes, &error), NVEMBED_INVALID_HANDLE, "nvembed_model");
    EXPECT(nvembed_model_warm_up(model, NULL, NULL, (size_t *)(void *)((char *)&shapes + 1), &error),
           NVEMBED_INVALID_ARGUMENT, "aligned");
    OK(nvembed_embed_options_new(&call, &error));
    OK(nvembed_embed_options_set_max_batch_size(call, 0, &error));
    EXPECT(nvembed_model_warm_up(model, call, NULL, &shapes, &error), NVEMBED_OPTION, "max_batch_size() must be");
    CHECK(nvembed_embed_options_free(call) == NVEMBED_OK);
    EXPECT(nvembed_model_warm_up(model, call, NULL, &shapes, &error), NVEMBED_INVALID_HANDLE, "embed_options");
    OK(nvembed_cancel_new(&cancel, &error));
    CHECK(nvembed_cancel_free(cancel) == NVEMBED_OK);
    EXPECT(nvembed_model_warm_up(model, NULL, cancel, &shapes, &error), NVEMBED_INVALID_HANDLE, "nvembed_cancel");

    /* The options of GPUs: what the setters refuse. */
    OK(nvembed_model_options_new(&options, &error));
    OK(nvembed_model_options_set_self_check(options, 0, &error));
    EXPECT(nvembed_model_options_set_device_ids(options, NULL, 1, &error), NVEMBED_NULL_POINTER, "device_ids is NULL");
    EXPECT(nvembed_model_options_set_device_ids(options, numbers, SIZE_MAX, &error), NVEMBED_INVALID_ARGUMENT, "device_ids");
    EXPECT(nvembed_model_options_set_device_ids(options, (size_t *)(void *)((char *)numbers + 1), 1, &error),
           NVEMBED_INVALID_ARGUMENT, "aligned");
    EXPECT(nvembed_model_options_set_sequence_buckets(options, NULL, 2, &error), NVEMBED_NULL_POINTER, "lengths is NULL");
    EXPECT(nvembed_model_options_set_batch_buckets(options, NULL, 2, &error), NVEMBED_NULL_POINTER, "rows is NULL");
    EXPECT(nvembed_model_options_set_builder_optimization_level(options, 256, &error), NVEMBED_OPTION,
           "nvembed_model_options_set_builder_optimization_level() must be 0 to 5, got 256");

    /* A model on the CPU refuses each of them by its setter's name, and accepts them with their defaults. */
    IGNORED(set_device_ids(options, numbers, 2, &error), set_device_ids(options, numbers, 1, &error));
    IGNORED(set_memory_limit(options, SIZE_MAX, &error), set_memory_limit(options, 0, &error));
    IGNORED(set_stream(options, &shapes, &error), set_stream(options, NULL, &error));
    IGNORED(set_cuda_graphs(options, 0, &error), set_cuda_graphs(options, 1, &error));
    IGNORED(set_buffer_sets(options, 1, &error), set_buffer_sets(options, 2, &error));
    IGNORED(set_sequence_buckets(options, numbers, 2, &error), set_sequence_buckets(options, NULL, 0, &error));
    IGNORED(set_batch_buckets(options, numbers, 2, &error), set_batch_buckets(options, NULL, 0, &error));
    IGNORED(set_builder_optimization_level(options, 255, &error), set_builder_optimization_level(options, 3, &error));
    IGNORED(set_workspace(options, 1, &error), set_workspace(options, 0, &error));
    IGNORED(set_build_on_open(options, 1, &error), set_build_on_open(options, 0, &error));
    CHECK(other == NULL);
    OK(nvembed_model_open(folder, strlen(folder), options, &other, &error));
    CHECK(nvembed_model_close(other) == NVEMBED_OK);
    CHECK(nvembed_model_options_free(options) == NVEMBED_OK);
    EXPECT(nvembed_model_options_set_device_ids(options, numbers, 2, &error), NVEMBED_INVALID_HANDLE, "closed");
    EXPECT(nvembed_model_options_set_memory_limit(options, 1, &error), NVEMBED_INVALID_HANDLE, "closed");
    EXPECT(nvembed_model_options_set_stream(options, NULL, &error), NVEMBED_INVALID_HANDLE, "closed");
    EXPECT(nvembed_model_options_set_cuda_graphs(options, 1, &error), NVEMBED_INVALID_HANDLE, "closed");
    EXPECT(nvembed_model_options_set_buffer_sets(options, 1, &error), NVEMBED_INVALID_HANDLE, "closed");
    EXPECT(nvembed_model_options_set_sequence_buckets(options, numbers, 2, &error), NVEMBED_INVALID_HANDLE, "closed");
    EXPECT(nvembed_model_options_set_batch_buckets(options, numbers, 2, &error), NVEMBED_INVALID_HANDLE, "closed");
    EXPECT(nvembed_model_options_set_builder_optimization_level(options, 1, &error), NVEMBED_INVALID_HANDLE, "closed");
    EXPECT(nvembed_model_options_set_workspace(options, 1, &error), NVEMBED_INVALID_HANDLE, "closed");
    EXPECT(nvembed_model_options_set_build_on_open(options, 1, &error), NVEMBED_INVALID_HANDLE, "closed");
}

int main(int argument_count, char **arguments) {
    nvembed_model *model;
    if (argument_count != 3) return 2;
    versions();
    opening(arguments[1], arguments[2]);
    model = open_model(arguments[1], 0);
    handles(model);
    metadata(model);
    outputs(model);
    call_options(model);
    cancelling(model);
    deadlines(model);
    without_a_gpu(arguments[1], model);
    logs(arguments[1]);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
    return outcome();
}
