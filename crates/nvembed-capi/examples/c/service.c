/* A minimal service. Requests arrive on stdin, one text per line; workers embed the waiting ones as a batch and answer on stdout
 * with "LINE TOKENS FIRST-NUMBER". All workers share one model. SIGINT cancels running calls and ends the program.
 *
 * service MODEL [WORKERS] */
#define _POSIX_C_SOURCE 200809L

#include <nvembed.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_LENGTH = 256, BATCH = 32, MAX_WORKERS = 64 };

typedef struct {
    size_t line;
    char *text;
} request;

typedef struct {
    const nvembed_model *model;
    nvembed_cancel *cancel;
    size_t dimension;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    request queue[QUEUE_LENGTH];
    size_t first, length;
    int is_closed, has_failed;
} service;

/* Waits for room, then appends. A request after the queue is closed is dropped. */
static void push(service *self, request one) {
    pthread_mutex_lock(&self->lock);
    while (self->length == QUEUE_LENGTH && !self->is_closed) pthread_cond_wait(&self->changed, &self->lock);
    if (self->is_closed) {
        free(one.text);
    } else {
        self->queue[(self->first + self->length++) % QUEUE_LENGTH] = one;
    }
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
}

/* Takes the waiting requests, up to a batch; returns 0 at the end. */
static size_t take(service *self, request *batch) {
    size_t count = 0;
    pthread_mutex_lock(&self->lock);
    while (self->length == 0 && !self->is_closed) pthread_cond_wait(&self->changed, &self->lock);
    for (; count < BATCH && self->length > 0; ++count, --self->length) {
        batch[count] = self->queue[self->first];
        self->first = (self->first + 1) % QUEUE_LENGTH;
    }
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
    return count;
}

static void close_queue(service *self, int has_failed) {
    pthread_mutex_lock(&self->lock);
    self->is_closed = 1;
    self->has_failed |= has_failed;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
}

static void *work(void *argument) {
    service *self = argument;
    request batch[BATCH];
    nvembed_string texts[BATCH];
    size_t token_counts[BATCH], count;
    float *rows = malloc(BATCH * self->dimension * sizeof *rows);
    nvembed_output output = {
        .struct_size = sizeof output,
        .data = rows,
        .capacity = BATCH * self->dimension,
        .dtype = NVEMBED_F32,
        .token_counts = token_counts,
    };
    while ((count = take(self, batch)) > 0) {
        nvembed_error *error = NULL;
        for (size_t index = 0; index < count; ++index) {
            texts[index].data = batch[index].text;
            texts[index].length = strlen(batch[index].text);
        }
        nvembed_code code =
            nvembed_embed_texts(self->model, NULL, 0, texts, count, NULL, &output, self->cancel, &error);
        if (code != NVEMBED_OK) {
            fprintf(stderr, "%zu requests failed: %s\n", count, nvembed_error_message(error));
            nvembed_error_free(error);
            close_queue(self, 1);
        }
        for (size_t index = 0; index < count; ++index) {
            if (code == NVEMBED_OK) {
                printf("%zu %zu %.9g\n", batch[index].line, token_counts[index], rows[index * self->dimension]);
            }
            free(batch[index].text);
        }
        fflush(stdout);
    }
    free(rows);
    return NULL;
}

/* The handler only sets a flag and interrupts the reading: a signal handler must not call nvembed. */
static volatile sig_atomic_t is_interrupted;

static void on_interrupt(int number) {
    (void)number;
    is_interrupted = 1;
}

static int fail(const char *what, nvembed_error *error) {
    fprintf(stderr, "%s: %s\n", what, nvembed_error_message(error));
    nvembed_error_free(error);
    return EXIT_FAILURE;
}

int main(int argument_count, char **arguments) {
    static service self = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    int workers = argument_count > 2 ? atoi(arguments[2]) : 4;
    if (argument_count < 2 || workers < 1 || workers > MAX_WORKERS) {
        fprintf(stderr, "usage: %s MODEL [WORKERS, 1 to %d]\n", arguments[0], MAX_WORKERS);
        return 2;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);

    nvembed_error *error = NULL;
    nvembed_model *model = NULL;
    if (nvembed_model_open(arguments[1], strlen(arguments[1]), NULL, &model, &error) != NVEMBED_OK ||
        nvembed_model_dimension(model, &self.dimension, &error) != NVEMBED_OK ||
        nvembed_cancel_new(&self.cancel, &error) != NVEMBED_OK) {
        return fail("starting", error);
    }
    self.model = model;

    /* All threads, including ONNX Runtime's, leave the signal to this one. */
    pthread_t threads[MAX_WORKERS];
    for (int index = 0; index < workers; ++index) pthread_create(&threads[index], NULL, work, &self);
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL);

    char *line = NULL;
    size_t capacity = 0, number = 0;
    ssize_t length;
    while (!is_interrupted && (length = getline(&line, &capacity, stdin)) >= 0) {
        if (length > 0 && line[length - 1] == '\n') line[length - 1] = '\0';
        request one = {number++, strdup(line)};
        push(&self, one);
    }
    free(line);
    if (is_interrupted) nvembed_cancel_request(self.cancel, NULL);
    close_queue(&self, is_interrupted);

    /* No thread may be inside a call when main returns. */
    for (int index = 0; index < workers; ++index) pthread_join(threads[index], NULL);
    nvembed_cancel_free(self.cancel);
    nvembed_model_close(model);
    return self.has_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
