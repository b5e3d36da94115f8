// nvembed for C++17: a header-only layer above nvembed.h with owning handles, views and results. Link the same library.
//
// The contract is docs/guides/c-and-cpp.md. In addition:
// - Calls return Result<T>. `*result` and `result.value()` are the value. Without one they throw nvembed::Exception, or abort
//   if exceptions are off (-fno-exceptions). If you test the result first, nvembed never throws.
// - Objects own their handle and close it when they are destroyed. They can be moved, not copied. Const functions may be called
//   from several threads at the same time, but not while the object is moved or destroyed.
// - For logs, call nvembed_set_log_callback(). The callback must not throw.
#ifndef NVEMBED_HPP
#define NVEMBED_HPP

#include "nvembed.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#if defined(__cpp_exceptions)
#include <stdexcept>
#endif

namespace nvembed {

/// A view of contiguous elements, from any container with data() and size(), including std::span.
template <class T>
class span {
public:
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class C, class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<C &>().data()), T *>>>
    constexpr span(C &container) noexcept : data_(container.data()), size_(container.size()) {}
    template <class C, class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<const C &>().data()), T *>>,
              class = void>
    constexpr span(const C &container) noexcept : data_(container.data()), size_(container.size()) {}
    template <std::size_t N>
    constexpr span(T (&array)[N]) noexcept : data_(array), size_(N) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// Why a call failed.
class Error {
public:
    Error(nvembed_code code, std::string message) : code_(code), message_(std::move(message)) {}
    nvembed_code code() const noexcept { return code_; }
    const char *name() const noexcept { return nvembed_code_name(code_); }
    const std::string &message() const noexcept { return message_; }

private:
    nvembed_code code_;
    std::string message_;
};

#if defined(__cpp_exceptions)
/// What value() throws if there is no value.
class Exception : public std::runtime_error {
public:
    explicit Exception(const Error &error) : std::runtime_error(error.message()), code_(error.code()) {}
    nvembed_code code() const noexcept { return code_; }

private:
    nvembed_code code_;
};
#endif

namespace detail {

[[noreturn]] inline void fail(const Error &error) {
#if defined(__cpp_exceptions)
    throw Exception(error);
#else
    (void)error;
    std::abort();
#endif
}

/// The error of a failed call. Frees the error object.
inline Error take(nvembed_code code, nvembed_error *error) {
    Error taken(code, nvembed_error_message(error));
    nvembed_error_free(error);
    return taken;
}

template <class H, nvembed_code (*Close)(H *)>
class Handle {
public:
    Handle() noexcept = default;
    Handle(Handle &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Handle &operator=(Handle &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~Handle() { Close(handle_); }
    H *get() const noexcept { return handle_; }
    H **out() noexcept { return &handle_; }

private:
    H *handle_ = nullptr;
};

inline nvembed_string string(std::string_view text) noexcept { return {text.data(), text.size()}; }

/// Calls a function that copies a string to a buffer: once for the length, once for the string.
template <class F>
nvembed_code copy(std::string &value, F call) {
    std::size_t length = 0;
    nvembed_code code = call(nullptr, 0, &length);
    if (code != NVEMBED_OK) return code;
    value.resize(length + 1);
    code = call(value.data(), value.size(), &length);
    value.resize(length);
    return code;
}

}  // namespace detail

/// A value, or the error instead of it.
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : state_(std::move(value)) {}
    Result(Error error) : state_(std::move(error)) {}

    explicit operator bool() const noexcept { return std::holds_alternative<T>(state_); }
    /// Only if there is no value.
    const Error &error() const { return *std::get_if<Error>(&state_); }
    T &value() & { return checked(); }
    T value() && { return std::move(checked()); }
    T &operator*() & { return checked(); }
    T *operator->() { return &checked(); }

private:
    T &checked() {
        if (const Error *error = std::get_if<Error>(&state_)) detail::fail(*error);
        return *std::get_if<T>(&state_);
    }
    std::variant<T, Error> state_;
};

/// Success, or an error.
template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : state_(std::move(error)) {}

    explicit operator bool() const noexcept { return std::holds_alternative<std::monostate>(state_); }
    const Error &error() const { return *std::get_if<Error>(&state_); }
    void value() const {
        if (const Error *error = std::get_if<Error>(&state_)) detail::fail(*error);
    }

private:
    std::variant<std::monostate, Error> state_;
};

/// Options that are fixed while a model is open; see the setters of nvembed_model_options. An option that the provider ignores is
/// an error unless it has its default.
struct ModelOptions {
    std::string provider = "cpu";
    std::string library;
    std::size_t intra_threads = 0;
    bool verify_hashes = false;
    bool self_check = true;
    std::string cache;
    bool parallel_prepacking = false;
    bool low_memory = false;
    /// GPU providers only, like the options below. Empty: GPU 0.
    std::vector<std::size_t> device_ids;
    std::size_t memory_limit = 0;
    /// A CUstream of the caller, which must outlive the model and its DeviceEmbeddings.
    void *stream = nullptr;
    bool cuda_graphs = true;
    /// 0 means the default, 2.
    std::size_t buffer_sets = 0;
    /// Empty means the default.
    std::vector<std::size_t> sequence_buckets;
    std::vector<std::size_t> batch_buckets;
    /// TensorRT only, like the options below.
    std::size_t builder_optimization_level = 3;
    std::size_t workspace = 0;
    bool build_on_open = false;
    /// Only for providers that come as plugins.
    std::string provider_library;
};

/// Options of one call; see the setters of nvembed_embed_options. 0 means the default.
struct EmbedOptions {
    std::size_t max_length = 0;
    std::int32_t truncation = NVEMBED_TRUNCATION_REFERENCE;
    std::int32_t special_tokens = NVEMBED_SPECIAL_TOKENS_PARSE;
    std::size_t max_batch_tokens = 0;
    std::size_t max_batch_size = 0;
    std::uint64_t deadline_milliseconds = 0;
    std::size_t dimensions = 0;
};

/// A text and the literal instruction before it: empty for passages, query_instruction() for queries.
struct Prompt {
    std::string_view instruction;
    std::string_view text;
};

/// Cancels the calls it is passed to, from any thread.
class Cancel {
public:
    static Result<Cancel> create() {
        Cancel cancel;
        nvembed_error *error = nullptr;
        const nvembed_code code = nvembed_cancel_new(cancel.handle_.out(), &error);
        if (code != NVEMBED_OK) return detail::take(code, error);
        return cancel;
    }
    void request() const noexcept { nvembed_cancel_request(handle_.get(), nullptr); }
    const nvembed_cancel *get() const noexcept { return handle_.get(); }

private:
    Cancel() = default;
    detail::Handle<nvembed_cancel, nvembed_cancel_free> handle_;
};

/// The result of a call: one row per prompt, in the order of the prompts.
class Embeddings {
public:
    Embeddings(std::size_t rows, std::size_t dimension)
        : dimension_(dimension), values_(rows * dimension), token_counts_(rows), truncated_(rows) {}
    std::size_t size() const noexcept { return token_counts_.size(); }
    std::size_t dimension() const noexcept { return dimension_; }
    span<const float> row(std::size_t index) const noexcept { return {values_.data() + index * dimension_, dimension_}; }
    span<const float> values() const noexcept { return {values_.data(), values_.size()}; }
    std::size_t token_count(std::size_t index) const noexcept { return token_counts_[index]; }
    bool truncated(std::size_t index) const noexcept { return truncated_[index] != 0; }

private:
    friend class Model;
    std::size_t dimension_;
    std::vector<float> values_;
    std::vector<std::size_t> token_counts_;
    std::vector<std::uint8_t> truncated_;
};

/// Rows that stay on a GPU; see nvembed_embed_on_device(). The destructor returns the memory to the model: everything that reads
/// the rows must be done by then, or use release_after().
class DeviceEmbeddings {
public:
    /// A CUdeviceptr to size() x dimension() elements of type dtype().
    std::uint64_t pointer() const noexcept { return pointer_; }
    /// The CUstream that computes the rows, and the CUevent recorded after them. Both belong to the model.
    void *stream() const noexcept { return stream_; }
    void *event() const noexcept { return event_; }
    std::size_t device_id() const noexcept { return device_id_; }
    /// NVEMBED_F32 or NVEMBED_F16.
    std::int32_t dtype() const noexcept { return dtype_; }
    std::size_t size() const noexcept { return token_counts_.size(); }
    std::size_t dimension() const noexcept { return dimension_; }
    std::size_t token_count(std::size_t index) const noexcept { return token_counts_[index]; }
    bool truncated(std::size_t index) const noexcept { return truncated_[index] != 0; }

    /// Returns the memory to runs after a CUevent; see nvembed_device_embeddings_release_after(). After a failure the rows are
    /// still held.
    Result<void> release_after(void *event) && {
        nvembed_error *error = nullptr;
        const nvembed_code code = nvembed_device_embeddings_release_after(handle_.get(), event, &error);
        if (code != NVEMBED_OK) return detail::take(code, error);
        *handle_.out() = nullptr;
        return {};
    }
    const nvembed_device_embeddings *get() const noexcept { return handle_.get(); }

private:
    friend class Model;
    DeviceEmbeddings() = default;

    /// Reads all properties of the rows.
    nvembed_code fill(nvembed_error **error) {
        nvembed_code code = NVEMBED_OK;
        std::size_t rows = 0;
        const auto read = [&](auto function, auto *value) {
            if (code == NVEMBED_OK) code = function(handle_.get(), value, error);
        };
        read(nvembed_device_embeddings_pointer, &pointer_);
        read(nvembed_device_embeddings_stream, &stream_);
        read(nvembed_device_embeddings_event, &event_);
        read(nvembed_device_embeddings_device_id, &device_id_);
        read(nvembed_device_embeddings_dtype, &dtype_);
        read(nvembed_device_embeddings_dimension, &dimension_);
        read(nvembed_device_embeddings_rows, &rows);
        if (code != NVEMBED_OK) return code;
        token_counts_.resize(rows);
        truncated_.resize(rows);
        return nvembed_device_embeddings_tokens(handle_.get(), token_counts_.data(), truncated_.data(), rows, error);
    }

    detail::Handle<nvembed_device_embeddings, nvembed_device_embeddings_release> handle_;
    std::uint64_t pointer_ = 0;
    void *stream_ = nullptr;
    void *event_ = nullptr;
    std::size_t device_id_ = 0;
    std::int32_t dtype_ = NVEMBED_F32;
    std::size_t dimension_ = 0;
    std::vector<std::size_t> token_counts_;
    std::vector<std::uint8_t> truncated_;
};

/// The instruction of a query, given its task in one English sentence.
inline Result<std::string> query_instruction(std::string_view task) {
    std::string value;
    nvembed_error *error = nullptr;
    const nvembed_code code = detail::copy(value, [&](char *buffer, std::size_t capacity, std::size_t *length) {
        return nvembed_query_instruction(task.data(), task.size(), buffer, capacity, length, &error);
    });
    if (code != NVEMBED_OK) return detail::take(code, error);
    return value;
}

/// An open model.
class Model {
public:
    static Result<Model> open(std::string_view folder, const ModelOptions &options = {}) {
        detail::Handle<nvembed_model_options, nvembed_model_options_free> handle;
        nvembed_error *error = nullptr;
        Model model;
        nvembed_code code = nvembed_model_options_new(handle.out(), &error);
        const auto then = [&](auto function, auto... arguments) {
            if (code == NVEMBED_OK) code = function(handle.get(), arguments..., &error);
        };
        then(nvembed_model_options_set_provider, options.provider.data(), options.provider.size());
        then(nvembed_model_options_set_library, options.library.data(), options.library.size());
        then(nvembed_model_options_set_provider_library, options.provider_library.data(), options.provider_library.size());
        then(nvembed_model_options_set_intra_threads, options.intra_threads);
        then(nvembed_model_options_set_verify_hashes, std::int32_t{options.verify_hashes});
        then(nvembed_model_options_set_self_check, std::int32_t{options.self_check});
        then(nvembed_model_options_set_cache, options.cache.data(), options.cache.size());
        then(nvembed_model_options_set_parallel_prepacking, std::int32_t{options.parallel_prepacking});
        then(nvembed_model_options_set_low_memory, std::int32_t{options.low_memory});
        const auto list = [&](auto function, const std::vector<std::size_t> &values) {
            if (!values.empty()) then(function, values.data(), values.size());
        };
        list(nvembed_model_options_set_device_ids, options.device_ids);
        then(nvembed_model_options_set_memory_limit, options.memory_limit);
        then(nvembed_model_options_set_stream, options.stream);
        then(nvembed_model_options_set_cuda_graphs, std::int32_t{options.cuda_graphs});
        if (options.buffer_sets > 0) then(nvembed_model_options_set_buffer_sets, options.buffer_sets);
        list(nvembed_model_options_set_sequence_buckets, options.sequence_buckets);
        list(nvembed_model_options_set_batch_buckets, options.batch_buckets);
        then(nvembed_model_options_set_builder_optimization_level, options.builder_optimization_level);
        then(nvembed_model_options_set_workspace, options.workspace);
        then(nvembed_model_options_set_build_on_open, std::int32_t{options.build_on_open});
        if (code == NVEMBED_OK) {
            code = nvembed_model_open(folder.data(), folder.size(), handle.get(), model.handle_.out(), &error);
        }
        if (code == NVEMBED_OK) code = nvembed_model_dimension(model.get(), &model.dimension_, &error);
        if (code == NVEMBED_OK) code = nvembed_model_max_length(model.get(), &model.max_length_, &error);
        if (code != NVEMBED_OK) return detail::take(code, error);
        return model;
    }

    std::size_t dimension() const noexcept { return dimension_; }
    std::size_t max_length() const noexcept { return max_length_; }

    /// A property of the model: `field` is an NVEMBED_METADATA_... constant.
    Result<std::string> metadata(std::int32_t field) const {
        std::string value;
        nvembed_error *error = nullptr;
        const nvembed_code code = detail::copy(value, [&](char *buffer, std::size_t capacity, std::size_t *length) {
            return nvembed_model_metadata(get(), field, buffer, capacity, length, &error);
        });
        if (code != NVEMBED_OK) return detail::take(code, error);
        return value;
    }

    Result<Embeddings> embed(span<const Prompt> prompts, const EmbedOptions &options = {},
                             const Cancel *cancel = nullptr) const {
        const std::size_t dimension = options.dimensions > 0 ? options.dimensions : dimension_;
        // More than the model has is refused by the call.
        if (dimension > dimension_) return embed_into(span<float>(), prompts, 0, options, cancel).error();
        Embeddings result(prompts.size(), dimension);
        nvembed_output output = host_output(result.values_.data(), result.values_.size(), NVEMBED_F32, 0);
        output.token_counts = result.token_counts_.data();
        output.truncated = result.truncated_.data();
        if (auto outcome = embed(prompts, options, output, cancel); !outcome) return outcome.error();
        return result;
    }

    /// Writes the rows to the caller's memory. `row_stride` is in elements; 0 means the dimension.
    Result<void> embed_into(span<float> values, span<const Prompt> prompts, std::size_t row_stride = 0,
                            const EmbedOptions &options = {}, const Cancel *cancel = nullptr) const {
        return embed(prompts, options, host_output(values.data(), values.size(), NVEMBED_F32, row_stride), cancel);
    }

    /// The same in 16-bit floats (IEEE half precision).
    Result<void> embed_into(span<std::uint16_t> values, span<const Prompt> prompts, std::size_t row_stride = 0,
                            const EmbedOptions &options = {}, const Cancel *cancel = nullptr) const {
        return embed(prompts, options, host_output(values.data(), values.size(), NVEMBED_F16, row_stride), cancel);
    }

    /// The same in 8-bit integers (NVEMBED_INT8), with one scale per row; `scales` may be empty.
    Result<void> embed_into(span<std::int8_t> values, span<float> scales, span<const Prompt> prompts,
                            std::size_t row_stride = 0, const EmbedOptions &options = {},
                            const Cancel *cancel = nullptr) const {
        nvembed_output output = host_output(values.data(), values.size(), NVEMBED_INT8, row_stride);
        if (!scales.empty() && scales.size() < prompts.size()) {
            return Error(NVEMBED_BUFFER_TOO_SMALL, "scales must have one element per prompt");
        }
        output.scales = scales.data();
        return embed(prompts, options, output, cancel);
    }

    /// The same in bits (NVEMBED_BINARY), eight numbers a byte.
    Result<void> embed_into(span<std::uint8_t> values, span<const Prompt> prompts, std::size_t row_stride = 0,
                            const EmbedOptions &options = {}, const Cancel *cancel = nullptr) const {
        return embed(prompts, options, host_output(values.data(), values.size(), NVEMBED_BINARY, row_stride), cancel);
    }

    /// Embeds on a GPU and leaves the rows there. They may outlive this model.
    Result<DeviceEmbeddings> embed_on_device(span<const Prompt> prompts, const EmbedOptions &options = {},
                                             const Cancel *cancel = nullptr) const {
        DeviceEmbeddings result;
        auto outcome = with(prompts, options, [&](const auto *first, const auto *handle, nvembed_error **error) {
            const nvembed_cancel *token = cancel ? cancel->get() : nullptr;
            const nvembed_code code = nvembed_embed_on_device(get(), first, prompts.size(), handle, token,
                                                              result.handle_.out(), error);
            return code == NVEMBED_OK ? result.fill(error) : code;
        });
        if (!outcome) return outcome.error();
        return result;
    }

    /// Prepares every shape that calls with these options can need on a GPU. Returns the number of shapes, 0 on the CPU.
    Result<std::size_t> warm_up(const EmbedOptions &options = {}, const Cancel *cancel = nullptr) const {
        std::size_t shapes = 0;
        auto outcome = with({}, options, [&](const auto *, const auto *handle, nvembed_error **error) {
            return nvembed_model_warm_up(get(), handle, cancel ? cancel->get() : nullptr, &shapes, error);
        });
        if (!outcome) return outcome.error();
        return shapes;
    }

    /// The token count of each prompt, after truncation as in embed().
    Result<std::vector<std::size_t>> count_tokens(span<const Prompt> prompts, const EmbedOptions &options = {}) const {
        std::vector<std::size_t> counts(prompts.size());
        auto outcome = with(prompts, options, [&](const auto *first, const auto *handle, nvembed_error **error) {
            return nvembed_count_tokens(get(), first, prompts.size(), handle, counts.data(), nullptr, error);
        });
        if (!outcome) return outcome.error();
        return counts;
    }

    const nvembed_model *get() const noexcept { return handle_.get(); }

private:
    Model() = default;

    static nvembed_output host_output(void *data, std::size_t capacity, std::int32_t dtype, std::size_t row_stride) {
        nvembed_output output = {};
        output.struct_size = sizeof output;
        output.data = data;
        output.capacity = capacity;
        output.row_stride = row_stride;
        output.dtype = dtype;
        output.memory = NVEMBED_MEMORY_HOST;
        return output;
    }

    Result<void> embed(span<const Prompt> prompts, const EmbedOptions &options, const nvembed_output &output,
                       const Cancel *cancel) const {
        return with(prompts, options, [&](const auto *first, const auto *handle, nvembed_error **error) {
            return nvembed_embed(get(), first, prompts.size(), handle, &output, cancel ? cancel->get() : nullptr, error);
        });
    }

    /// Calls a function with prompts and options in their C form.
    template <class F>
    static Result<void> with(span<const Prompt> prompts, const EmbedOptions &options, F call) {
        std::vector<nvembed_prompt> list;
        list.reserve(prompts.size());
        for (const Prompt &prompt : prompts) {
            list.push_back({detail::string(prompt.instruction), detail::string(prompt.text)});
        }
        detail::Handle<nvembed_embed_options, nvembed_embed_options_free> handle;
        nvembed_error *error = nullptr;
        nvembed_code code = nvembed_embed_options_new(handle.out(), &error);
        const auto set = [&](bool is_set, auto function, auto value) {
            if (code == NVEMBED_OK && is_set) code = function(handle.get(), value, &error);
        };
        set(true, nvembed_embed_options_set_max_length, options.max_length);
        set(true, nvembed_embed_options_set_truncation, options.truncation);
        set(true, nvembed_embed_options_set_special_tokens, options.special_tokens);
        set(options.max_batch_tokens > 0, nvembed_embed_options_set_max_batch_tokens, options.max_batch_tokens);
        set(options.max_batch_size > 0, nvembed_embed_options_set_max_batch_size, options.max_batch_size);
        set(true, nvembed_embed_options_set_deadline, options.deadline_milliseconds);
        set(true, nvembed_embed_options_set_dimensions, options.dimensions);
        if (code == NVEMBED_OK) {
            const auto *constant = static_cast<const nvembed_embed_options *>(handle.get());
            code = call(static_cast<const nvembed_prompt *>(list.data()), constant, &error);
        }
        if (code != NVEMBED_OK) return detail::take(code, error);
        return {};
    }

    detail::Handle<nvembed_model, nvembed_model_close> handle_;
    std::size_t dimension_ = 0;
    std::size_t max_length_ = 0;
};

}  // namespace nvembed

#endif  // NVEMBED_HPP
