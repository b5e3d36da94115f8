// The GPU part of the C++ header, on the CUDA shim: owners release what they held.
//
// device_owner MODEL
#include <nvembed.hpp>

#include "check.h"
#include "shim.h"

namespace {

nvembed::Model open(const char *folder) {
    nvembed::ModelOptions options;
    options.provider = "cuda";
    options.self_check = false;  // the shim computes nothing
    options.device_ids = {1};
    options.buffer_sets = 1;
    options.sequence_buckets = {16, 64};
    options.batch_buckets = {2};
    return nvembed::Model::open(folder, options).value();
}

void hold_and_release(const char *folder) {
    const nvembed::Prompt prompts[] = {{"", "Homer."}, {"Say it: ", "rain falls on the plain"}};
    nvembed::Model model = open(folder);
    CHECK(model.warm_up().value() == 2);
    std::uint64_t pointer = 0;
    {
        nvembed::DeviceEmbeddings rows = model.embed_on_device(prompts).value();
        pointer = rows.pointer();
        CHECK(pointer != 0 && rows.stream() != nullptr && rows.event() != nullptr);
        CHECK(rows.device_id() == 1 && rows.dtype() == NVEMBED_F16);
        CHECK(rows.size() == 2 && rows.dimension() == model.dimension());
        const std::vector<std::size_t> tokens = model.count_tokens(prompts).value();
        CHECK(rows.token_count(0) == tokens[0] && rows.token_count(1) == tokens[1]);
        CHECK(!rows.truncated(0) && !rows.truncated(1));
        // After a move it is held once, and no second result fits while it is held.
        nvembed::DeviceEmbeddings moved = std::move(rows);
        CHECK(moved.pointer() == pointer);
        auto refused = model.embed_on_device(prompts);
        CHECK(!refused && refused.error().code() == NVEMBED_DEVICE);
    }
    {
        nvembed::DeviceEmbeddings rows = model.embed_on_device(prompts).value();
        CHECK(rows.pointer() == pointer);
        auto refused = std::move(rows).release_after(nullptr);
        CHECK(!refused && refused.error().code() == NVEMBED_NULL_POINTER);
        CHECK(!model.embed_on_device(prompts));
        void *waited = nullptr;
        const long waits = shim_waited(rows.stream(), &waited);
        void *event = shim_create("cuEventCreate");
        std::move(rows).release_after(event).value();
        nvembed::DeviceEmbeddings next = model.embed_on_device(prompts).value();
        CHECK(shim_waited(next.stream(), &waited) == waits + 1 && waited == event);
        shim_destroy("cuEventDestroy_v2", event);
    }
    nvembed::EmbedOptions late;
    late.deadline_milliseconds = 200;
    shim_hold(1);
    auto outcome = model.embed(prompts, late);
    shim_hold(0);
    CHECK(!outcome && outcome.error().code() == NVEMBED_DEADLINE_EXCEEDED);
    // Rows that outlive the model.
    nvembed::DeviceEmbeddings last = model.embed_on_device(prompts).value();
    { nvembed::Model ended = std::move(model); }
    std::size_t count = 0;
    CHECK(nvembed_device_embeddings_rows(last.get(), &count, nullptr) == NVEMBED_OK && count == 2);
}

}  // namespace

int main(int argument_count, char **arguments) {
    if (argument_count != 2) return 2;
    { const nvembed::Model model = open(arguments[1]); }
    const shim_counts before = shim_counts_now();
    hold_and_release(arguments[1]);
    const shim_counts after = shim_counts_now();
    CHECK(after.live_allocations == before.live_allocations && after.live_handles == before.live_handles);
    return outcome();
}
