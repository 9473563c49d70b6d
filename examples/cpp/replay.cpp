// Replays a real LLM serving trace through mmc.hpp, with real bytes: examples/c/replay.c in fewer words.
//
//     replay --trace FILE [--block BYTES] [--dram BYTES] [--requests N] [--http HOST:PORT]
//
// For each request: look up its chain of blocks, get the leading run that is there, put what is missing. The bytes of a block are made of its
// id, and verified on every get. Everything that fails is an exception that ends main.

#include <mmc.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>

#include <sys/wait.h>
#include <unistd.h>

namespace {

using Request = std::vector<std::uint64_t>; // block ids in prefix order
using Block = std::vector<std::uint64_t>;   // its bytes

// The text of a file, through a `gzip` child when its name says so.
std::string read_file(const std::string &path) {
    if (path.size() < 3 || path.compare(path.size() - 3, 3, ".gz") != 0) {
        std::ifstream file(path);
        std::stringstream text;
        if (!(text << file.rdbuf())) {
            throw std::runtime_error(path + ": can't be read");
        }
        return text.str();
    }
    int ends[2];
    if (pipe(ends) != 0) {
        throw std::runtime_error("no pipe");
    }
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execlp("gzip", "gzip", "-dc", "--", path.c_str(), static_cast<char *>(nullptr));
        _exit(127);
    }
    close(ends[1]);
    std::string text;
    std::vector<char> part(1 << 16);
    for (ssize_t size; (size = read(ends[0], part.data(), part.size())) > 0;) {
        text.append(part.data(), static_cast<std::size_t>(size));
    }
    close(ends[0]);
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        throw std::runtime_error(path + ": gzip could not read it");
    }
    return text;
}

// Lines of "TIMESTAMP_MS INPUT_TOKENS OUTPUT_TOKENS RUNS" after a header; RUNS is START or START+COUNT, comma-separated.
std::vector<Request> read_trace(const std::string &path) {
    std::istringstream text(read_file(path));
    std::string line;
    if (!std::getline(text, line) || line.rfind("# kvt1 ", 0) != 0) {
        throw std::runtime_error(path + ": not a kvt1 trace");
    }
    std::vector<Request> requests;
    while (std::getline(text, line)) {
        std::istringstream fields(line);
        std::string time, input, output, runs, run;
        fields >> time >> input >> output >> runs;
        Request &request = requests.emplace_back();
        for (std::istringstream list(runs); std::getline(list, run, ',');) {
            std::size_t digits;
            std::uint64_t start = std::stoull(run, &digits);
            std::uint64_t count = digits < run.size() ? std::stoull(run.substr(digits + 1)) : 1;
            if (count > 1 << 20) {
                throw std::runtime_error(path + ": not a request: " + line);
            }
            for (std::uint64_t i = 0; i < count; i++) {
                request.push_back(start + i);
            }
        }
    }
    return requests;
}

// The bytes of a block: a counter from a seed that is the id's hash.
class Content {
  public:
    explicit Content(std::uint64_t id) : seed_((id + 1) * 0x9e3779b97f4a7c15) {
        seed_ = (seed_ ^ seed_ >> 31) * 0xbf58476d1ce4e5b9;
    }

    void fill(Block &block) const {
        for (std::size_t i = 0; i < block.size(); i++) {
            block[i] = word(i);
        }
    }
    bool is(const Block &block) const {
        std::uint64_t difference = 0;
        for (std::size_t i = 0; i < block.size(); i++) {
            difference |= block[i] ^ word(i);
        }
        return difference == 0;
    }
    // So that these bytes can't pass for what a later get should bring.
    static void clear(Block &block) { std::fill(block.begin(), block.end(), 0); }

  private:
    std::uint64_t word(std::uint64_t i) const {
        std::uint64_t word = seed_ + i * 0x9e3779b97f4a7c15;
        return word ^ word >> 29;
    }
    std::uint64_t seed_;
};

// Calls of one kind: their times, and the blocks that they moved.
struct Series {
    std::vector<double> seconds;
    std::size_t blocks = 0;

    template <class Call> auto time(std::size_t count, Call call) {
        auto start = std::chrono::steady_clock::now();
        auto results = call();
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        blocks += count;
        return results;
    }
    void print(const char *name, std::size_t block_size) {
        double total = 0;
        for (double each : seconds) {
            total += each;
        }
        std::sort(seconds.begin(), seconds.end());
        std::size_t count = std::max<std::size_t>(seconds.size(), 1);
        double p99 = seconds.empty() ? 0 : seconds[(count * 99 + 99) / 100 - 1];
        double gib = static_cast<double>(blocks) * static_cast<double>(block_size) / (1 << 30);
        std::printf("%s         %zu blocks, %.2f GiB/s, per batch call mean %.1f us, p99 %.1f us\n", name, blocks,
                    total > 0 ? gib / total : 0, total / static_cast<double>(count) * 1e6, p99 * 1e6);
    }
};

class Replay {
  public:
    Replay(mmc::Store &store, std::size_t block_size, std::size_t longest)
        : store_(store), block_size_(block_size),
          ring_(std::max(longest, ring_bytes / block_size), Block(block_size / sizeof(std::uint64_t))) {}

    void request(const Request &ids) {
        std::vector<std::string> names;
        for (std::uint64_t id : ids) {
            names.push_back("block-" + std::to_string(id));
        }
        std::vector<mmc_key> keys;
        for (const std::string &name : names) {
            keys.push_back(mmc::key(name));
        }

        std::vector<std::int32_t> found = store_.batch_exist(keys, MMC_PEEK);
        std::size_t hits = static_cast<std::size_t>(
            std::find_if(found.begin(), found.end(), [](std::int32_t code) { return code != MMC_OK; }) - found.begin());
        get(ids, keys, hits, found);
        put(ids, keys, found);
        requests_++;
        asked_ += ids.size();
        hits_ += hits;
    }

    void print() {
        std::printf("\nrequests    %zu\n", requests_);
        std::printf("blocks      %zu asked for, of %zu bytes each; every one that was got was verified\n", asked_,
                    block_size_);
        std::printf("hit ratio   %.4f\nno room     %zu puts\nevictions   %llu\n",
                    static_cast<double>(hits_) / static_cast<double>(std::max<std::size_t>(asked_, 1)), refused_,
                    static_cast<unsigned long long>(store_.stats().evict_operations));
        puts_.print("put", block_size_);
        gets_.print("get", block_size_);
    }

  private:
    // Bytes of the caller's own blocks, used in turn: several times a processor's cache, since an engine's are not in it either.
    static constexpr std::size_t ring_bytes = std::size_t{128} << 20;

    Block &next_block() { return ring_[next_++ % ring_.size()]; }

    // Gets the first `count` blocks. One that eviction has taken since the look-up is missing.
    void get(const Request &ids, const std::vector<mmc_key> &keys, std::size_t count,
             std::vector<std::int32_t> &found) {
        if (count == 0) {
            return;
        }
        std::vector<Block *> blocks;
        std::vector<mmc::Buffer> into;
        for (std::size_t i = 0; i < count; i++) {
            blocks.push_back(&next_block());
            into.emplace_back(*blocks[i]);
        }
        auto results = gets_.time(count, [&] { return store_.batch_get(mmc::Span(keys.data(), count), into); });
        for (std::size_t i = 0; i < count; i++) {
            found[i] = results[i];
            if (results[i] == MMC_OK && !Content(ids[i]).is(*blocks[i])) {
                throw std::runtime_error("the bytes of block " + std::to_string(ids[i]) + " are not what was put");
            }
            Content::clear(*blocks[i]);
        }
    }

    void put(const Request &ids, const std::vector<mmc_key> &keys, const std::vector<std::int32_t> &found) {
        std::vector<mmc_key> missing;
        std::vector<Block *> blocks;
        std::vector<mmc::ConstBuffer> from;
        for (std::size_t i = 0; i < ids.size(); i++) {
            if (found[i] == MMC_ERR_NOT_FOUND) {
                blocks.push_back(&next_block());
                Content(ids[i]).fill(*blocks.back());
                missing.push_back(keys[i]);
                from.emplace_back(*blocks.back());
            } else if (found[i] != MMC_OK) {
                throw mmc::Error(found[i], mmc_last_error());
            }
        }
        if (missing.empty()) {
            return;
        }
        for (std::int32_t code : puts_.time(missing.size(), [&] { return store_.batch_put(missing, from); })) {
            if (code == MMC_ERR_NO_SPACE) {
                refused_++;
            } else {
                mmc::check(code);
            }
        }
        for (Block *block : blocks) {
            Content::clear(*block);
        }
    }

    mmc::Store &store_;
    std::size_t block_size_;
    std::vector<Block> ring_;
    std::size_t next_ = 0;
    Series puts_, gets_;
    std::size_t requests_ = 0, asked_ = 0, hits_ = 0, refused_ = 0;
};

int run(int count, char **arguments) {
    std::map<std::string, std::string> options{{"--trace", ""},
                                               {"--block", "65536"},
                                               {"--dram", "1073741824"},
                                               {"--requests", "0"},
                                               {"--http", "127.0.0.1:0"}};
    for (int i = 1; i < count; i += 2) {
        auto option = options.find(arguments[i]);
        if (option == options.end() || i + 1 == count) {
            std::fprintf(stderr, "usage: replay --trace FILE [--block BYTES] [--dram BYTES] [--requests N]"
                                 " [--http HOST:PORT]\n");
            return 2;
        }
        option->second = arguments[i + 1];
    }
    auto number = [&](const char *option) -> std::uint64_t {
        const std::string &value = options[option];
        if (value.empty() || value.size() > 18 || value.find_first_not_of("0123456789") != std::string::npos) {
            throw std::runtime_error(std::string(option) + " " + value + ": not a number");
        }
        return std::stoull(value);
    };
    std::size_t block_size = number("--block");
    if (block_size == 0 || block_size % 8 != 0) {
        throw std::runtime_error("--block: must be a positive multiple of 8");
    }
    std::vector<Request> requests = read_trace(options["--trace"]);
    if (std::size_t limit = number("--requests"); limit > 0 && limit < requests.size()) {
        requests.resize(limit);
    }

    std::size_t longest = 1;
    for (const Request &request : requests) {
        longest = std::max(longest, request.size());
    }
    mmc::Store store(mmc::Config().dram_size(number("--dram")).http_address(options["--http"]).prefault(true));
    std::string address = store.http_address();
    std::printf("admin port  %s\n", address.empty() ? "off" : ("http://" + address).c_str());
    std::fflush(stdout);
    Replay replay(store, block_size, longest);
    for (const Request &request : requests) {
        replay.request(request);
    }
    replay.print();
    store.close();
    return 0;
}

} // namespace

int main(int count, char **arguments) {
    try {
        return run(count, arguments);
    } catch (const std::exception &error) {
        std::cerr << "replay: " << error.what() << "\n";
        return 1;
    }
}
