/* Embeds the lines of stdin. Writes the raw rows to stdout, and their token counts and truncation flags to stderr.
 *
 * dump MODEL f32|f16|int8|binary [TASK]
 *
 * Returns from main with everything open, as a service that is told to stop might do. */
#include "check.h"

int main(int argument_count, char **arguments) {
    static char input[1 << 20];
    nvembed_prompt prompts[1024];
    size_t length, count = 0, dimension = 0, index, width, instruction_length = 0;
    char instruction[1024], *line = input, *end;
    size_t *token_counts;
    uint8_t *truncated;
    nvembed_output output;
    nvembed_model *model;
    nvembed_error *error = NULL;
    const struct {
        const char *name;
        int32_t dtype;
        size_t width;
        size_t numbers;
    } types[] = {{"f32", NVEMBED_F32, 4, 1}, {"f16", NVEMBED_F16, 2, 1}, {"int8", NVEMBED_INT8, 1, 1},
                 {"binary", NVEMBED_BINARY, 1, 8}};
    size_t type = 0;
    if (argument_count < 3) return 2;
    while (strcmp(arguments[2], types[type].name) != 0) {
        if (++type == sizeof types / sizeof *types) return 2;
    }
    width = types[type].width;
    if (argument_count > 3 && nvembed_query_instruction(arguments[3], strlen(arguments[3]), instruction, sizeof instruction,
                                                        &instruction_length, &error) != NVEMBED_OK) {
        return 3;
    }
    length = fread(input, 1, sizeof input - 1, stdin);
    for (; line < input + length && count < 1024; line = end + 1) {
        end = memchr(line, '\n', (size_t)(input + length - line));
        if (end == NULL) end = input + length;
        prompts[count].instruction.data = instruction;
        prompts[count].instruction.length = instruction_length;
        prompts[count].text.data = line;
        prompts[count].text.length = (size_t)(end - line);
        count += 1;
    }
    model = open_model(arguments[1], 1);
    if (nvembed_model_dimension(model, &dimension, &error) != NVEMBED_OK) return 4;
    dimension /= types[type].numbers;
    output = host_output(malloc(count * dimension * width), count * dimension, types[type].dtype);
    output.token_counts = token_counts = malloc(count * sizeof *token_counts);
    output.truncated = truncated = malloc(count);
    if (nvembed_embed(model, prompts, count, NULL, &output, NULL, &error) != NVEMBED_OK) {
        fprintf(stderr, "%s\n", nvembed_error_message(error));
        return 5;
    }
    fwrite(output.data, width, count * dimension, stdout);
    for (index = 0; index < count; ++index) fprintf(stderr, "%zu %d\n", token_counts[index], truncated[index]);
    return 0;
}
