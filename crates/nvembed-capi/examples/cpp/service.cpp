// A minimal service. Requests arrive on stdin, one text per line; workers embed the waiting ones as a batch and answer on stdout
// with "LINE TOKENS FIRST-NUMBER". All workers share one model. The first failure cancels the others.
//
// service MODEL [WORKERS]
#include <nvembed.hpp>

#include <condition_variable>
#include <cstdio>
#include <deque>
#include <exception>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t queue_length = 256;
constexpr std::size_t largest_batch = 32;

struct Request {
    std::size_t line;
    std::string text;
};

/// Waiting requests, at most `queue_length`.
class Queue {
public:
    /// Waits for room, then appends; false if the queue is closed.
    bool push(Request request) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return waiting_.size() < queue_length || closed_; });
        if (closed_) return false;
        waiting_.push_back(std::move(request));
        changed_.notify_all();
        return true;
    }

    /// Takes the waiting requests, up to a batch; empty at the end.
    std::vector<Request> take() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return !waiting_.empty() || closed_; });
        std::vector<Request> batch;
        while (!waiting_.empty() && batch.size() < largest_batch) {
            batch.push_back(std::move(waiting_.front()));
            waiting_.pop_front();
        }
        changed_.notify_all();
        return batch;
    }

    void close() {
        std::lock_guard lock(mutex_);
        closed_ = true;
        changed_.notify_all();
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Request> waiting_;
    bool closed_ = false;
};

/// Error handling with exceptions: value() throws if the call failed.
void serve(const nvembed::Model &model, const nvembed::Cancel &cancel, Queue &queue) {
    for (auto batch = queue.take(); !batch.empty(); batch = queue.take()) {
        std::vector<nvembed::Prompt> prompts;
        for (const Request &request : batch) prompts.push_back({"", request.text});
        const auto embeddings = model.embed(prompts, {}, &cancel).value();
        for (std::size_t index = 0; index < batch.size(); ++index) {
            std::printf("%zu %zu %.9g\n", batch[index].line, embeddings.token_count(index),
                        static_cast<double>(embeddings.row(index)[0]));
        }
        std::fflush(stdout);
    }
}

int run(const char *folder, int worker_count) {
    const auto model = nvembed::Model::open(folder).value();
    const auto cancel = nvembed::Cancel::create().value();
    Queue queue;
    std::vector<std::exception_ptr> failures(static_cast<std::size_t>(worker_count));
    std::vector<std::thread> workers;
    for (auto &failure : failures) {
        workers.emplace_back([&] {
            try {
                serve(model, cancel, queue);
            } catch (...) {
                failure = std::current_exception();
                cancel.request();
                queue.close();
            }
        });
    }
    std::size_t line = 0;
    for (std::string text; std::getline(std::cin, text);) {
        if (!queue.push({line++, std::move(text)})) break;
    }
    queue.close();
    for (auto &worker : workers) worker.join();
    for (const auto &failure : failures) {
        if (failure) std::rethrow_exception(failure);
    }
    return 0;
}

}  // namespace

int main(int argument_count, char **arguments) {
    const int workers = argument_count > 2 ? std::atoi(arguments[2]) : 4;
    if (argument_count < 2 || workers < 1) {
        std::fprintf(stderr, "usage: %s MODEL [WORKERS]\n", arguments[0]);
        return 2;
    }
    try {
        return run(arguments[1], workers);
    } catch (const nvembed::Exception &exception) {
        std::fprintf(stderr, "%s: %s\n", nvembed_code_name(exception.code()), exception.what());
        return 1;
    }
}
