/* Embeds two questions and two passages, and prints how well each passage answers each question.
 *
 * score MODEL */
#include <nvembed.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char TASK[] = "Given a question, retrieve passages that answer the question";

static const char *const QUERIES[] = {"who wrote the odyssey?", "how do plants eat?"};

static const char *const PASSAGES[] = {
    "The Odyssey is attributed to Homer, a poet of ancient Greece.",
    "Plants make sugar from water and carbon dioxide with the energy of light, which is called photosynthesis.",
};

enum { QUERY_COUNT = 2, PASSAGE_COUNT = 2, COUNT = QUERY_COUNT + PASSAGE_COUNT };

/* Prints and frees an error. */
static int failed(const char *what, nvembed_error *error) {
    fprintf(stderr, "%s: %s: %s\n", what, nvembed_code_name(nvembed_error_code(error)), nvembed_error_message(error));
    nvembed_error_free(error);
    return EXIT_FAILURE;
}

static nvembed_string string(const char *text) {
    nvembed_string value = {text, strlen(text)};
    return value;
}

/* Embeddings are unit vectors, so their dot product is the cosine of the angle between them. */
static double dot(const float *one, const float *other, size_t dimension) {
    double sum = 0;
    for (size_t index = 0; index < dimension; ++index) sum += (double)one[index] * other[index];
    return sum;
}

static int score(const nvembed_model *model) {
    nvembed_error *error = NULL;
    char instruction[256];
    size_t length = 0, dimension = 0;
    if (nvembed_query_instruction(TASK, strlen(TASK), instruction, sizeof instruction, &length, &error) != NVEMBED_OK) {
        return failed("instruction", error);
    }
    if (nvembed_model_dimension(model, &dimension, &error) != NVEMBED_OK) return failed("dimension", error);

    /* Queries have an instruction, passages have none. One call can have both. */
    nvembed_prompt prompts[COUNT];
    for (size_t row = 0; row < COUNT; ++row) {
        int is_query = row < QUERY_COUNT;
        prompts[row].instruction = string(is_query ? instruction : "");
        prompts[row].text = string(is_query ? QUERIES[row] : PASSAGES[row - QUERY_COUNT]);
    }
    float *rows = malloc(COUNT * dimension * sizeof *rows);
    size_t token_counts[COUNT];
    uint8_t truncated[COUNT];
    nvembed_output output = {
        .struct_size = sizeof output,
        .data = rows,
        .capacity = COUNT * dimension,
        .dtype = NVEMBED_F32,
        .token_counts = token_counts,
        .truncated = truncated,
    };
    if (rows == NULL) return EXIT_FAILURE;
    if (nvembed_embed(model, prompts, COUNT, NULL, &output, NULL, &error) != NVEMBED_OK) {
        free(rows);
        return failed("embedding", error);
    }
    for (size_t query = 0; query < QUERY_COUNT; ++query) {
        for (size_t passage = 0; passage < PASSAGE_COUNT; ++passage) {
            const float *answer = rows + (QUERY_COUNT + passage) * dimension;
            printf("%8.4f", 100 * dot(rows + query * dimension, answer, dimension));
        }
        printf("  %s (%zu tokens%s)\n", QUERIES[query], token_counts[query], truncated[query] ? ", cut" : "");
    }
    free(rows);
    return EXIT_SUCCESS;
}

int main(int argument_count, char **arguments) {
    if (argument_count != 2) {
        fprintf(stderr, "usage: %s MODEL\n", arguments[0]);
        return 2;
    }
    nvembed_error *error = NULL;
    nvembed_model *model = NULL;
    if (nvembed_model_open(arguments[1], strlen(arguments[1]), NULL, &model, &error) != NVEMBED_OK) {
        return failed("opening the model", error);
    }
    int status = score(model);
    nvembed_model_close(model);
    return status;
}
