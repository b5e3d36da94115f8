/* What the test programs share: checks that count failures instead of aborting, so that one run shows them all. */
#ifndef CHECK_H
#define CHECK_H

#include "nvembed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            failures += 1; \
        } \
    } while (0)

/* The call, whose last argument is `&error`, must return `wanted` and a message that contains `part`. */
#define EXPECT(call, wanted, part) \
    do { \
        nvembed_error *error = NULL; \
        nvembed_code code = (call); \
        expect(__FILE__, __LINE__, #call, code, error, (wanted), (part)); \
    } while (0)

#define OK(call) EXPECT(call, NVEMBED_OK, "")

static inline void expect(const char *file, int line, const char *call, nvembed_code code, nvembed_error *error,
                   nvembed_code wanted, const char *part) {
    const char *message = error ? nvembed_error_message(error) : "";
    int good = code == wanted && (error != NULL) == (wanted != NVEMBED_OK) && strstr(message, part) != NULL &&
               (error == NULL || nvembed_error_code(error) == code);
    if (!good) {
        fprintf(stderr, "%s:%d: %s is %s: %s; wanted %s: %s\n", file, line, call, nvembed_code_name(code), message,
                nvembed_code_name(wanted), part);
        failures += 1;
    }
    if (nvembed_error_free(error) != NVEMBED_OK) {
        fprintf(stderr, "%s:%d: the error cannot be freed\n", file, line);
        failures += 1;
    }
}

static inline nvembed_string string(const char *text) {
    nvembed_string value;
    value.data = text;
    value.length = strlen(text);
    return value;
}

static inline nvembed_prompt passage(const char *text) {
    nvembed_prompt prompt;
    prompt.instruction = string("");
    prompt.text = string(text);
    return prompt;
}

static inline nvembed_output host_output(void *data, size_t capacity, int32_t dtype) {
    nvembed_output output;
    memset(&output, 0, sizeof output);
    output.struct_size = sizeof output;
    output.data = data;
    output.capacity = capacity;
    output.dtype = dtype;
    output.memory = NVEMBED_MEMORY_HOST;
    return output;
}

/* The self-check costs minutes under Valgrind, whose processor is one that no earlier check was made on. */
static inline nvembed_model *open_model(const char *folder, int32_t self_check) {
    nvembed_model_options *options = NULL;
    nvembed_model *model = NULL;
    nvembed_error *error = NULL;
    if (nvembed_model_options_new(&options, &error) != NVEMBED_OK ||
        nvembed_model_options_set_self_check(options, self_check, &error) != NVEMBED_OK ||
        nvembed_model_open(folder, strlen(folder), options, &model, &error) != NVEMBED_OK) {
        fprintf(stderr, "%s\n", nvembed_error_message(error));
        exit(1);
    }
    nvembed_model_options_free(options);
    return model;
}

static inline int outcome(void) {
    if (failures > 0) {
        fprintf(stderr, "%d checks failed\n", failures);
        return 1;
    }
    puts("passed");
    return 0;
}

#endif
