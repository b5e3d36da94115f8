// Finds passages by their bits, and ranks the best of them again by 8-bit integers: an eighth of a byte a number in memory, and
// one byte where the passages are.
//
// rescore MODEL PASSAGES TASK QUERY     (a file with a passage per line)
#include <nvembed.hpp>

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

namespace {

/// Passages in both types, row after row.
struct Passages {
    std::vector<std::uint8_t> bits;
    std::vector<std::int8_t> values;
    std::vector<float> scales;
};

/// The best passages and their cosine: of all, the best `candidates` by Hamming distance; of those, by int8.
std::vector<std::pair<std::size_t, float>> search(const Passages &passages, nvembed::span<const float> query,
                                                  std::size_t candidates) {
    const std::size_t width = (query.size() + 7) / 8;
    std::vector<std::uint8_t> query_bits(width);
    for (std::size_t at = 0; at < query.size(); ++at) query_bits[at / 8] |= (query[at] > 0) << (7 - at % 8);
    std::vector<std::pair<std::size_t, std::size_t>> near(passages.scales.size());  // distance, row
    for (std::size_t row = 0; row < near.size(); ++row) {
        near[row].second = row;
        for (std::size_t at = 0; at < width; ++at) {
            near[row].first += std::bitset<8>(passages.bits[row * width + at] ^ query_bits[at]).count();
        }
    }
    candidates = std::min(candidates, near.size());
    std::partial_sort(near.begin(), near.begin() + candidates, near.end());
    std::vector<std::pair<std::size_t, float>> best(candidates);
    for (std::size_t at = 0; at < candidates; ++at) {
        const auto row = near[at].second;
        const auto *values = passages.values.data() + row * query.size();
        best[at] = {row, std::inner_product(query.begin(), query.end(), values, 0.0f) * passages.scales[row]};
    }
    std::sort(best.begin(), best.end(), [](const auto &one, const auto &other) { return one.second > other.second; });
    return best;
}

template <class T>
T checked(nvembed::Result<T> result) {
    if (result) return std::move(*result);
    std::fprintf(stderr, "%s: %s\n", result.error().name(), result.error().message().c_str());
    std::exit(1);
}

void check(const nvembed::Result<void> &result) {
    if (result) return;
    std::fprintf(stderr, "%s: %s\n", result.error().name(), result.error().message().c_str());
    std::exit(1);
}

}  // namespace

int main(int argument_count, char **arguments) {
    if (argument_count != 5) {
        std::fprintf(stderr, "usage: %s MODEL PASSAGES TASK QUERY\n", arguments[0]);
        return 2;
    }
    const auto model = checked(nvembed::Model::open(arguments[1]));
    std::ifstream file(arguments[2]);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    std::vector<nvembed::Prompt> prompts;
    for (const auto &line : lines) prompts.push_back({"", line});
    const std::size_t width = model.dimension();
    Passages passages{std::vector<std::uint8_t>(lines.size() * ((width + 7) / 8)),
                      std::vector<std::int8_t>(lines.size() * width), std::vector<float>(lines.size())};
    // A program with many passages keeps these two in files; it has them from `nvembed corpus`.
    check(model.embed_into(passages.bits, prompts));
    check(model.embed_into(passages.values, passages.scales, prompts));
    const auto instruction = checked(nvembed::query_instruction(arguments[3]));
    const std::vector<nvembed::Prompt> query{{instruction, arguments[4]}};
    auto best = search(passages, checked(model.embed(query)).row(0), 40);
    if (best.size() > 10) best.resize(10);
    for (const auto &[row, cosine] : best) std::printf("%zu %.6f\n", row + 1, cosine);
}
