// Embeds two questions and two passages, and prints how well each passage answers each question.
//
// score MODEL
#include <nvembed.hpp>

#include <cstdio>
#include <numeric>
#include <vector>

namespace {

constexpr std::string_view task = "Given a question, retrieve passages that answer the question";

constexpr std::string_view queries[] = {"who wrote the odyssey?", "how do plants eat?"};

constexpr std::string_view passages[] = {
    "The Odyssey is attributed to Homer, a poet of ancient Greece.",
    "Plants make sugar from water and carbon dioxide with the energy of light, which is called photosynthesis.",
};

/// Embeddings are unit vectors, so their dot product is the cosine of the angle between them.
double dot(nvembed::span<const float> one, nvembed::span<const float> other) {
    return std::inner_product(one.begin(), one.end(), other.begin(), 0.0);
}

/// Error handling without exceptions: each result is tested.
int score(const nvembed::Model &model) {
    auto instruction = nvembed::query_instruction(task);
    if (!instruction) {
        std::fprintf(stderr, "%s\n", instruction.error().message().c_str());
        return 1;
    }
    // Queries have an instruction, passages have none. One call can have both.
    std::vector<nvembed::Prompt> prompts;
    for (const auto query : queries) prompts.push_back({*instruction, query});
    for (const auto passage : passages) prompts.push_back({"", passage});
    auto embeddings = model.embed(prompts);
    if (!embeddings) {
        std::fprintf(stderr, "%s: %s\n", embeddings.error().name(), embeddings.error().message().c_str());
        return 1;
    }
    for (std::size_t query = 0; query < std::size(queries); ++query) {
        for (std::size_t passage = 0; passage < std::size(passages); ++passage) {
            std::printf("%8.4f", 100 * dot(embeddings->row(query), embeddings->row(std::size(queries) + passage)));
        }
        std::printf("  %s (%zu tokens%s)\n", queries[query].data(), embeddings->token_count(query),
                    embeddings->truncated(query) ? ", cut" : "");
    }
    return 0;
}

}  // namespace

int main(int argument_count, char **arguments) {
    if (argument_count != 2) {
        std::fprintf(stderr, "usage: %s MODEL\n", arguments[0]);
        return 2;
    }
    auto model = nvembed::Model::open(arguments[1]);
    if (!model) {
        std::fprintf(stderr, "opening the model: %s: %s\n", model.error().name(), model.error().message().c_str());
        return 1;
    }
    return score(*model);
}
