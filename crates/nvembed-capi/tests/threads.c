/* What docs/guides/c-and-cpp.md says about threads: several threads use, change and close a model, options, tokens and the
 * log callback at the same time.
 *
 * threads MODEL
 *
 * Compiled with WITH_A_RACE it has a race, to show that ThreadSanitizer would find it. */
#include "check.h"

#include <pthread.h>
#include <time.h>

enum { DIMENSION = 256, WORKERS = 4, ROUNDS = 40 };

static nvembed_model *model;
static nvembed_embed_options *options;
static float expected[DIMENSION];
static const char *folder;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int user_data_is_alive, embedding_is_over, late_calls, callback_calls;

static nvembed_prompt prompt(void) { return passage("Homer was a poet."); }

/* Embeds over and over; the result is always the same bits. */
static void *embed(void *argument) {
    int round;
    (void)argument;
    for (round = 0; round < ROUNDS; ++round) {
        float values[DIMENSION];
        nvembed_prompt one = prompt();
        nvembed_output output = host_output(values, DIMENSION, NVEMBED_F32);
        nvembed_error *error = NULL;
        nvembed_code code = nvembed_embed(model, &one, 1, options, &output, NULL, &error);
        pthread_mutex_lock(&lock);
        CHECK(code == NVEMBED_OK && error == NULL && memcmp(values, expected, sizeof values) == 0);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

/* Changes options at the same time, in ways that do not change the rows. */
static void *change(void *argument) {
    int round;
    (void)argument;
    for (round = 0; round < 2000; ++round) {
        nvembed_error *error = NULL;
        if (nvembed_embed_options_set_max_batch_tokens(options, 64 + round, &error) != NVEMBED_OK) abort();
    }
    return NULL;
}

/* Calls until the model is closed under it: each call succeeds or says that the handle is closed. */
static void *embed_until_closed(void *argument) {
    nvembed_model *closing = argument;
    for (;;) {
        float values[DIMENSION];
        nvembed_prompt one = prompt();
        nvembed_output output = host_output(values, DIMENSION, NVEMBED_F32);
        nvembed_code code = nvembed_embed(closing, &one, 1, NULL, &output, NULL, NULL);
        if (code == NVEMBED_INVALID_HANDLE) return NULL;
        pthread_mutex_lock(&lock);
        CHECK(code == NVEMBED_OK && memcmp(values, expected, sizeof values) == 0);
        pthread_mutex_unlock(&lock);
    }
}

/* A call that would take many seconds. */
static void *embed_until_cancelled(void *argument) {
    enum { ROWS = 200 };
    static char text[2400];
    nvembed_prompt *prompts = malloc(ROWS * sizeof *prompts);
    float *values = malloc(ROWS * DIMENSION * sizeof *values);
    nvembed_output output = host_output(values, ROWS * DIMENSION, NVEMBED_F32);
    nvembed_code code;
    size_t index;
    for (index = 0; index + 6 < sizeof text; index += 6) memcpy(text + index, "plain ", 6);
    for (index = 0; index < ROWS; ++index) prompts[index] = passage(text);
    for (index = 0; index < ROWS * DIMENSION; ++index) values[index] = 7;
    code = nvembed_embed(model, prompts, ROWS, NULL, &output, argument, NULL);
    pthread_mutex_lock(&lock);
    CHECK(code == NVEMBED_CANCELLED);
    for (index = 0; index < ROWS * DIMENSION; ++index) CHECK(values[index] == 7);
    pthread_mutex_unlock(&lock);
    free(prompts);
    free(values);
    return NULL;
}

static void on_log(int32_t level, const char *target, size_t target_length, const char *message, size_t message_length,
                   void *user_data) {
    const struct timespec moment = {0, 1000000};
    int is_slow;
    (void)level, (void)target, (void)target_length, (void)message, (void)message_length;
#ifdef WITH_A_RACE
    callback_calls += 1;
#endif
    pthread_mutex_lock(&lock);
    is_slow = ++callback_calls % 16 == 0;
    pthread_mutex_unlock(&lock);
    if (is_slow) nanosleep(&moment, NULL); /* long enough for the callback to be removed, if removing it did not wait */
    pthread_mutex_lock(&lock);
    late_calls += !*(int *)user_data;
    pthread_mutex_unlock(&lock);
}

/* Sets and removes the callback while others embed. Once it is removed, its user data is dead. */
static void *toggle(void *argument) {
    const struct timespec moment = {0, 2000000};
    int is_over = 0;
    (void)argument;
    while (!is_over) {
        pthread_mutex_lock(&lock);
        user_data_is_alive = 1;
        is_over = embedding_is_over;
        pthread_mutex_unlock(&lock);
        if (nvembed_set_log_callback(on_log, &user_data_is_alive, NVEMBED_LOG_TRACE, NULL) != NVEMBED_OK) abort();
        nanosleep(&moment, NULL);
        if (nvembed_set_log_callback(NULL, NULL, 0, NULL) != NVEMBED_OK) abort();
        pthread_mutex_lock(&lock);
        user_data_is_alive = 0;
        pthread_mutex_unlock(&lock);
        nanosleep(&moment, NULL);
    }
    return NULL;
}

/* Opens and closes models. */
static void *reopen(void *argument) {
    int round;
    (void)argument;
    for (round = 0; round < 2; ++round) {
        nvembed_model *other = open_model(folder, 1);
        if (nvembed_model_close(other) != NVEMBED_OK) abort();
    }
    return NULL;
}

/* All threads close the same handle: exactly one succeeds. */
static int closed;
static void *close_shared(void *argument) {
    if (nvembed_model_close(argument) == NVEMBED_OK) {
        pthread_mutex_lock(&lock);
        closed += 1;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void start(pthread_t *thread, void *(*run)(void *), void *argument) {
    if (pthread_create(thread, NULL, run, argument) != 0) abort();
}

int main(int argument_count, char **arguments) {
    pthread_t threads[WORKERS + 3];
    nvembed_prompt one = prompt();
    nvembed_output output = host_output(expected, DIMENSION, NVEMBED_F32);
    nvembed_cancel *cancel = NULL;
    const struct timespec moment = {0, 300000000};
    nvembed_model *closing;
    int index;

    if (argument_count != 2) return 2;
    folder = arguments[1];
    model = open_model(folder, 1);
    OK(nvembed_embed_options_new(&options, &error));
    OK(nvembed_embed(model, &one, 1, options, &output, NULL, &error));

    for (index = 0; index < WORKERS; ++index) start(&threads[index], embed, NULL);
    start(&threads[WORKERS], change, NULL);
    start(&threads[WORKERS + 1], toggle, NULL);
    start(&threads[WORKERS + 2], reopen, NULL);
    for (index = 0; index < WORKERS; ++index) pthread_join(threads[index], NULL);
    pthread_mutex_lock(&lock);
    embedding_is_over = 1;
    pthread_mutex_unlock(&lock);
    for (index = WORKERS; index < WORKERS + 3; ++index) pthread_join(threads[index], NULL);
    CHECK(callback_calls > 0);
    CHECK(late_calls == 0);

    closing = open_model(folder, 1);
    for (index = 0; index < WORKERS; ++index) start(&threads[index], embed_until_closed, closing);
    for (index = WORKERS; index < WORKERS + 3; ++index) start(&threads[index], close_shared, closing);
    for (index = 0; index < WORKERS + 3; ++index) pthread_join(threads[index], NULL);
    CHECK(closed == 1);

    OK(nvembed_cancel_new(&cancel, &error));
    start(&threads[0], embed_until_cancelled, cancel);
    start(&threads[1], embed_until_cancelled, cancel);
    nanosleep(&moment, NULL); /* by now one of them is running and the other waits for its turn */
    OK(nvembed_cancel_request(cancel, &error));
    for (index = 0; index < 2; ++index) pthread_join(threads[index], NULL);
    CHECK(nvembed_cancel_free(cancel) == NVEMBED_OK);

    CHECK(nvembed_embed_options_free(options) == NVEMBED_OK);
    CHECK(nvembed_model_close(model) == NVEMBED_OK);
    return outcome();
}
