// mmc in C++17: a store, pins and reservations that let go of themselves, over mmc.h.
//
// Header only. Your first program:
//
//     mmc::Store store(mmc::Config().dram_size(1 << 30));
//     std::vector<char> block(4096, 'a'), back(4096);
//     store.put("block-1", block);
//     if (store.get("block-1", back)) { ... }
//
// What holds for every function:
//
// - The answers of a cache are values: a put says whether the key was free, a get whether it was there. Whatever else fails is an
//   mmc::Error with the code and the sentence of mmc_last_error(); the exceptions to this are named. Of a batch, each element has its
//   code in the vector that is returned, and only what is wrong with the call as a whole is thrown: then nothing was done. Where memory
//   for a vector lacks it is std::bad_alloc, with nothing done either.
// - Keys, buffers and options are borrowed for the call. Nothing is copied on the way but what mmc.h wants side by side.
// - A Store may be used by any number of threads at once, but moved, closed or destroyed only when none of them is in it; a Pin, a
//   Reservation or a Config by one at a time. How long a function blocks is said in mmc.h at the function that it is named after.
// - No destructor throws. Moves are noexcept; what was moved from is empty: calls on such a Store throw MMC_ERR_NOT_STARTED, on such a Pin or
//   Reservation MMC_ERR_NOT_FOUND.
//
// What is not here (events, the log) is called with Store::handle() as mmc.h has it.
//
// Copyright the mmc authors. Apache-2.0.

#ifndef MMC_HPP
#define MMC_HPP

#include "mmc.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace mmc {

// What went wrong: a code of mmc.h, and the library's sentence about it.
class Error : public std::runtime_error {
  public:
    Error(int32_t code, const std::string &message) : std::runtime_error(message), code_(code) {}

    // MMC_ERR_*.
    int32_t code() const noexcept { return code_; }
    // "MMC_ERR_NO_SPACE", say. A static string.
    const char *name() const noexcept { return mmc_error_name(code_); }

  private:
    int32_t code_;
};

// Throws this thread's last error when `code` is one.
inline void check(int32_t code) {
    if (code != MMC_OK) {
        throw Error(code, mmc_last_error());
    }
}

// Elements side by side in memory of somebody else, which must outlive it. Made from a pointer and a count, an array, or anything with
// data() and size().
template <class T> class Span {
  public:
    constexpr Span() noexcept = default;
    constexpr Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t N> constexpr Span(T (&array)[N]) noexcept : data_(array), size_(N) {}
    template <class Container,
              class = std::enable_if_t<std::is_convertible_v<
                  std::remove_pointer_t<decltype(std::declval<Container &>().data())> (*)[], T (*)[]>>>
    constexpr Span(Container &&container) noexcept : data_(container.data()), size_(container.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

// Bytes to put, of the caller. Made from a pointer and a number of bytes, or from elements of a trivially copyable type.
struct ConstBuffer {
    const void *data;
    std::size_t size; // bytes

    constexpr ConstBuffer(const void *first, std::size_t bytes) noexcept : data(first), size(bytes) {}
    template <class Container, class Element = std::remove_pointer_t<decltype(std::declval<Container &>().data())>,
              class = std::enable_if_t<std::is_trivially_copyable_v<Element>>>
    constexpr ConstBuffer(const Container &container) noexcept
        : data(container.data()), size(container.size() * sizeof(Element)) {}
};

// Room for bytes to get, of the caller. Made as a ConstBuffer is, from what can be written.
struct Buffer {
    void *data;
    std::size_t size; // bytes

    constexpr Buffer(void *first, std::size_t bytes) noexcept : data(first), size(bytes) {}
    template <class Container, class Element = std::remove_pointer_t<decltype(std::declval<Container &>().data())>,
              class = std::enable_if_t<std::is_trivially_copyable_v<Element> && !std::is_const_v<Element>>>
    constexpr Buffer(Container &&container) noexcept
        : data(container.data()), size(container.size() * sizeof(Element)) {}
};

// A key of mmc.h. It borrows the text.
inline mmc_key key(std::string_view text) noexcept { return {text.data(), text.size()}; }

// The keys of a batch: mmc_keys that lie side by side are used where they are; of anything else with begin() and end() whose elements
// convert to std::string_view a list of keys is made. Either way it borrows the text: it is made to be a call's argument, not to be kept.
class Keys {
    template <class Texts> using Element = decltype(*std::begin(std::declval<const Texts &>()));

  public:
    Keys(std::initializer_list<std::string_view> texts) { make(texts); }
    template <class Texts, class = std::enable_if_t<std::is_convertible_v<Element<Texts>, std::string_view> ||
                                                    std::is_convertible_v<const Texts &, Span<const mmc_key>>>>
    Keys(const Texts &texts) {
        if constexpr (std::is_convertible_v<const Texts &, Span<const mmc_key>>) {
            keys_ = texts;
        } else {
            make(texts);
        }
    }
    Keys(const Keys &) = delete;
    Keys &operator=(const Keys &) = delete;

    const mmc_key *data() const noexcept { return keys_.data(); }
    std::size_t size() const noexcept { return keys_.size(); }

  private:
    template <class Texts> void make(const Texts &texts) {
        static_assert(std::is_reference_v<Element<Texts>> || std::is_same_v<Element<Texts>, std::string_view>,
                      "the keys' text must outlive the look at it");
        for (std::string_view text : texts) {
            made_.push_back(key(text));
        }
        keys_ = made_;
    }

    std::vector<mmc_key> made_;
    Span<const mmc_key> keys_;
};

// How a store is opened: mmc_config, setting by setting; it keeps its own copies of the strings. What is left unset comes from the
// environment, from the file, then from the default.
//
//     mmc::Config().dram_size(std::uint64_t{8} << 30).watermarks(95, 90).http_address("127.0.0.1:0")
class Config {
  public:
    Config() { check(mmc_config_init(&config_)); }

    // 0 to 65535: whose store this is. Default 0.
    Config &rank(uint32_t rank) noexcept { return set(config_.rank, rank); }
    // Bytes of the first DRAM segment, a multiple of 4096. Default 1 GiB.
    Config &dram_size(uint64_t bytes) noexcept { return set(config_.dram_size, bytes); }
    // No DRAM segment at first.
    Config &no_dram() noexcept { return set(config_.dram_size, MMC_NO_DRAM); }
    // Percent of a segment in use at which eviction in the background starts and stops. Default 90 and 80; a high of 100 turns it off.
    Config &watermarks(uint32_t high, uint32_t low) noexcept {
        return set(config_.watermark_high, high).set(config_.watermark_low, low);
    }
    // Where the admin port listens, "host:port"; port 0 asks for any free one, "" is off. Default off.
    Config &http_address(std::string address) { return keep(http_address_, std::move(address)); }
    // Asked for as a bearer's token on every path but /health. Default none.
    Config &http_token(std::string token) { return keep(http_token_, std::move(token)); }
    // A file of `key = value` lines. Default none.
    Config &config_path(std::string path) { return keep(config_path_, std::move(path)); }
    // MMC_LOG_*: the process's level from then on. Default: as it is.
    Config &log_level(uint32_t level) noexcept { return set(config_.log_level, level); }
    // Ask for huge pages. Default on.
    Config &huge_pages(bool on) noexcept { return set(config_.huge_pages, on ? MMC_ON : MMC_OFF); }
    // Touch every page when the store is opened. Default off.
    Config &prefault(bool on) noexcept { return set(config_.prefault, on ? MMC_ON : MMC_OFF); }
    // MMC_MEMORY_PRIVATE or MMC_MEMORY_MEMFD. Default private; of a store that is shared, memfd.
    Config &memory(uint32_t kind) noexcept { return set(config_.memory, kind); }
    // The NUMA node to take memory from first. Default: no preference.
    Config &numa_node(uint32_t node) noexcept { return set(config_.numa_node, node + 1); }
    // The file of a first SSD segment, and its bytes: objects move there when memory is short. Default none.
    Config &ssd(std::string path, uint64_t bytes) {
        return set(config_.ssd_size, bytes).keep(ssd_path_, std::move(path));
    }
    // Bytes a second that are moved between media in the background, at most. Default: as fast as it goes.
    Config &move_rate(uint64_t bytes) noexcept { return set(config_.move_rate, bytes); }
    // Compare what is got from memory with what was put. Default off.
    Config &verify_dram(bool on) noexcept { return set(config_.verify_dram, on ? MMC_ON : MMC_OFF); }
    // The directory in which it is kept what is on SSD segments, so that it is found again. Default none.
    Config &state(std::string path) { return keep(state_path_, std::move(path)); }
    // Replace a state that is of another version, size or store. Default off: it is an error.
    Config &state_wipe(bool on) noexcept { return set(config_.state_wipe, on ? MMC_ON : MMC_OFF); }
    // Where other processes attach, "unix:/path/of/socket"; "" is nowhere. Default nowhere.
    Config &share(std::string address) { return keep(share_, std::move(address)); }
    // Permission bits of the socket's file, 1 to 0777. Default 0600.
    Config &share_mode(uint32_t mode) noexcept { return set(config_.share_mode, mode); }
    // Users, and groups, whose processes may attach beside the owner's own user: at most 64 each. Default none.
    Config &share_users(const std::vector<uint32_t> &users) { return keep(share_users_, list(users)); }
    Config &share_groups(const std::vector<uint32_t> &groups) { return keep(share_groups_, list(groups)); }
    // Milliseconds that a segment which an attached process has brought waits, when that process has died, for one that comes in its
    // place. Default 60000.
    Config &share_wait_ms(uint64_t milliseconds) noexcept { return set(config_.share_wait_ms, milliseconds); }

    // MMC_EVICTION_*: what goes first when there is no room. Default adaptive.
    Config &eviction(uint32_t policy) noexcept { return set(config_.eviction, policy); }
    // Whose time it is: nanoseconds, as mmc_clock_callback has it. Default: the system's monotonic clock.
    Config &clock(mmc_clock_callback tell, void *user_data = nullptr) noexcept {
        return set(config_.clock, tell).set(config_.clock_user_data, user_data);
    }

    // The settings for mmc_init. Its strings are this Config's: valid until it is changed or gone.
    mmc_config get() const noexcept {
        mmc_config config = config_;
        config.http_address = http_address_ ? http_address_->c_str() : nullptr;
        config.http_token = http_token_ ? http_token_->c_str() : nullptr;
        config.config_path = config_path_ ? config_path_->c_str() : nullptr;
        config.ssd_path = ssd_path_ ? ssd_path_->c_str() : nullptr;
        config.state_path = state_path_ ? state_path_->c_str() : nullptr;
        config.share = share_ ? share_->c_str() : nullptr;
        config.share_users = share_users_ ? share_users_->c_str() : nullptr;
        config.share_groups = share_groups_ ? share_groups_->c_str() : nullptr;
        return config;
    }

  private:
    template <class Field, class Value> Config &set(Field &field, Value value) noexcept {
        field = static_cast<Field>(value);
        return *this;
    }
    Config &keep(std::optional<std::string> &field, std::string &&value) {
        field = std::move(value);
        return *this;
    }
    static std::string list(const std::vector<uint32_t> &numbers) {
        std::string text;
        for (uint32_t number : numbers) {
            text += (text.empty() ? "" : ",") + std::to_string(number);
        }
        return text;
    }

    mmc_config config_;
    std::optional<std::string> http_address_, http_token_, config_path_, ssd_path_, state_path_;
    std::optional<std::string> share_, share_users_, share_groups_;
};

// Where and how objects are put. What is zero or empty is the default of mmc_put_options.
struct PutOptions {
    uint32_t replicas = 0;                 // copies, 1 to 8, each on another rank
    std::vector<uint32_t> preferred_ranks; // to try first, in this order
    uint32_t medium = 0;                   // MMC_MEDIUM_*
    void *stream = nullptr;                // given to copy callbacks
    uint64_t term_ms = 0;                  // of a reservation: milliseconds after which the key is free again

    // As the C functions take them; borrows `preferred_ranks`.
    mmc_put_options get() const noexcept {
        mmc_put_options options{};
        options.struct_size = sizeof options;
        options.replicas = replicas;
        options.preferred_ranks = preferred_ranks.empty() ? nullptr : preferred_ranks.data();
        options.preferred_count = preferred_ranks.size();
        options.medium = medium;
        options.stream = stream;
        options.term_ms = term_ms;
        return options;
    }
};

// How a process attaches to a store that another one has shared. What is zero or empty is the default of mmc_attach_options.
struct AttachOptions {
    std::optional<uint32_t> rank;      // of the memory that it brings, or is near to
    uint64_t dram_size = 0;            // bytes of DRAM that it brings to the pool, a multiple of 4096
    uint64_t wait_ms = 0;              // to wait for an owner when there is none
    uint64_t call_timeout_ms = 0;      // after which an owner that does not answer is given up
    std::optional<bool> huge_pages;    // ask for them, for what it brings
    bool prefault = false;             // touch every page of what it brings
    std::optional<uint32_t> numa_node; // to take what it brings from first
    uint32_t log_level = 0;            // MMC_LOG_*: the process's level from then on

    // As the C functions take them.
    mmc_attach_options get() const noexcept {
        mmc_attach_options options{};
        options.struct_size = sizeof options;
        options.rank = rank ? *rank + 1 : 0;
        options.dram_size = dram_size;
        options.wait_ms = wait_ms;
        options.call_timeout_ms = call_timeout_ms;
        options.huge_pages = huge_pages ? (*huge_pages ? MMC_ON : MMC_OFF) : 0;
        options.prefault = prefault ? MMC_ON : MMC_OFF;
        options.numa_node = numa_node ? *numa_node + 1 : 0;
        options.log_level = log_level;
        return options;
    }
};

// A struct of mmc.h in which nothing but `struct_size` is set: mmc::make<mmc_segment_options>().
template <class Struct> Struct make() noexcept {
    Struct unset{};
    unset.struct_size = sizeof unset;
    return unset;
}

namespace detail {

// Memory of the store and the token for it. Tokens are never reused and outlive the handle, so there is no order in which to close.
class Held {
  public:
    Held() noexcept = default;
    Held(mmc_store *store, const mmc_view &view) noexcept : store_(store), view_(view) {}
    Held(Held &&other) noexcept : store_(other.store_), view_(std::exchange(other.view_, mmc_view{})) {}
    Held(const Held &) = delete;
    Held &operator=(const Held &) = delete;
    void swap(Held &other) noexcept {
        std::swap(store_, other.store_);
        std::swap(view_, other.view_);
    }

    mmc_store *store() const noexcept { return store_; }
    const mmc_view &view() const noexcept { return view_; }
    // The token, which is no longer held.
    uint64_t take() noexcept { return std::exchange(view_, mmc_view{}).token; }

  private:
    mmc_store *store_ = nullptr;
    mmc_view view_{};
};

// Pointers and sizes, each side by side as mmc.h wants them.
template <class Pointer> struct Columns {
    std::vector<Pointer> data;
    std::vector<std::size_t> sizes;

    template <class Buffers> explicit Columns(const Buffers &buffers) {
        data.reserve(buffers.size());
        sizes.reserve(buffers.size());
        for (const auto &buffer : buffers) {
            data.push_back(buffer.data);
            sizes.push_back(buffer.size);
        }
    }
};

} // namespace detail

// An object's bytes where they lie, to be read there: eviction and remove leave them alone until the Pin is gone. It may outlive its
// Store when the library mapped the memory.
class [[nodiscard]] Pin {
  public:
    // Holds nothing.
    Pin() noexcept = default;
    // Takes over a view of mmc_pin.
    Pin(mmc_store *store, const mmc_view &view) noexcept : held_(store, view) {}
    Pin(Pin &&) noexcept = default;
    Pin &operator=(Pin &&other) noexcept {
        Pin(std::move(other)).held_.swap(held_);
        return *this;
    }
    ~Pin() {
        if (*this) {
            mmc_unpin(held_.store(), held_.take());
        }
    }

    explicit operator bool() const noexcept { return token() != 0; }
    // First byte; null for a device's memory.
    const void *data() const noexcept { return held_.view().data; }
    // Bytes of the object.
    std::size_t size() const noexcept { return static_cast<std::size_t>(held_.view().size); }
    // Pool address of the first byte.
    uint64_t address() const noexcept { return held_.view().address; }
    // What mmc.h knows it by; 0 when it is empty.
    uint64_t token() const noexcept { return held_.view().token; }
    // The token, to be given to mmc_unpin by the caller; this Pin is empty then.
    uint64_t release() noexcept { return held_.take(); }

    // Ends the pin now. Throws when it is empty.
    void unpin() { check(mmc_unpin(held_.store(), held_.take())); }

  private:
    detail::Held held_;
};

// Space for a key that the holder fills. Nobody sees the object before commit(); gone without one, it gives key and space back. Past its term
// the key is free again, and commit() fails.
class [[nodiscard]] Reservation {
  public:
    // Holds nothing.
    Reservation() noexcept = default;
    // Takes over a view of mmc_reserve.
    Reservation(mmc_store *store, const mmc_view &view) noexcept : held_(store, view) {}
    Reservation(Reservation &&) noexcept = default;
    Reservation &operator=(Reservation &&other) noexcept {
        Reservation(std::move(other)).held_.swap(held_);
        return *this;
    }
    ~Reservation() {
        if (*this) {
            mmc_abort(held_.store(), held_.take());
        }
    }

    explicit operator bool() const noexcept { return token() != 0; }
    // First byte; null for a device's memory.
    void *data() const noexcept { return held_.view().data; }
    // Bytes of the object.
    std::size_t size() const noexcept { return static_cast<std::size_t>(held_.view().size); }
    // Pool address of the first byte.
    uint64_t address() const noexcept { return held_.view().address; }
    // What mmc.h knows it by; 0 when it is empty.
    uint64_t token() const noexcept { return held_.view().token; }
    // The token, to be given to mmc_commit or mmc_abort by the caller; this Reservation is empty then.
    uint64_t release() noexcept { return held_.take(); }

    // Publishes the object. The Reservation is empty then, whatever is thrown: MMC_ERR_TIMEOUT when its term had passed, so that it was
    // given up, and what else mmc_commit returns. Blocks for the copies to further replicas.
    void commit() { check(mmc_commit(held_.store(), held_.take())); }
    // Gives it up now. Throws when it is empty.
    void abort() { check(mmc_abort(held_.store(), held_.take())); }

  private:
    detail::Held held_;
};

// What a batch of pins or reservations gave: `held[i]` is empty where `results[i]` is an error.
template <class Holder> struct Batch {
    std::vector<int32_t> results;
    std::vector<Holder> held;
};

// A store, closed when it goes. The functions are those of mmc.h, by the same names.
class Store {
  public:
    // Opens a store. Throws what mmc_init returns, and MMC_ERR_UNSUPPORTED when the library that was loaded is older than this header.
    explicit Store(const Config &config = Config()) {
        check_version();
        mmc_config settings = config.get();
        check(mmc_init(&settings, &store_));
    }
    // Attaches to the store that another process has shared, "unix:/path/of/socket". Throws what mmc_attach returns, and as the constructor does.
    // Once the owner has gone every function throws MMC_ERR_DISCONNECTED: attach anew then.
    static Store attach(const std::string &address, const AttachOptions &options = AttachOptions()) {
        check_version();
        mmc_attach_options wanted = options.get();
        Store store(nullptr);
        check(mmc_attach(address.c_str(), &wanted, &store.store_));
        return store;
    }
    Store(Store &&other) noexcept : store_(std::exchange(other.store_, nullptr)) {}
    Store &operator=(Store &&other) noexcept {
        Store(std::move(other)).swap(*this);
        return *this;
    }
    // Closes the store, and waits for what mmc_uninit waits for. Where that is refused (a pin, lease or reservation in memory of the host
    // is open, or a callback of the library runs this) the store stays open for the rest of the process: call close() to hear of it.
    ~Store() { mmc_uninit(store_); }
    void swap(Store &other) noexcept { std::swap(store_, other.store_); }

    // Closes the store. On MMC_ERR_BUSY it is still open. Closing twice does nothing.
    void close() {
        check(mmc_uninit(store_));
        store_ = nullptr;
    }
    // Lets other processes of the host attach at an address, "unix:/path/of/socket", until the store is closed.
    void share(const std::string &address) { check(mmc_share(store_, address.c_str())); }
    // This process's rank in the pool: nothing when it is attached, brought no memory and named no rank.
    std::optional<uint32_t> rank() const {
        uint32_t rank = 0;
        check(mmc_rank(store_, &rank));
        return rank == MMC_NO_RANK ? std::nullopt : std::optional<uint32_t>(rank);
    }
    // For the functions of mmc.h. The Store keeps it.
    mmc_store *handle() const noexcept { return store_; }

    // ---- Segments

    // Registers a segment, made with mmc::make<mmc_segment_options>(). Returns its pool address, which names it.
    uint64_t register_segment(const mmc_segment_options &options) {
        uint64_t address = 0;
        check(mmc_register_segment(store_, &options, &address));
        return address;
    }
    // Drops a segment and waits for copies in flight. On MMC_ERR_BUSY nothing has changed.
    void unregister_segment(uint64_t address) { check(mmc_unregister_segment(store_, address)); }
    // The segments by medium, rank and address.
    std::vector<mmc_segment_info> list_segments() const {
        std::vector<mmc_segment_info> infos;
        std::size_t count = 1;
        do { // until none was registered in between
            infos.assign(count, make<mmc_segment_info>());
            check(mmc_list_segments(store_, infos.data(), infos.size(), &count));
        } while (count > infos.size());
        infos.resize(count);
        return infos;
    }

    // ---- Objects

    // Puts an object. False when the key is taken: what is there stays. Throws MMC_ERR_NO_SPACE where no room can be made.
    bool put(std::string_view key, ConstBuffer data, const PutOptions &options = PutOptions()) {
        mmc_put_options wanted = options.get();
        return is_not(MMC_ERR_EXISTS, mmc_put(store_, mmc::key(key), data.data, data.size, &wanted));
    }
    // Puts an object whose bytes lie in several buffers, in their order.
    bool putv(std::string_view key, Span<const ConstBuffer> data, const PutOptions &options = PutOptions()) {
        mmc_put_options wanted = options.get();
        detail::Columns<const void *> columns(data);
        return is_not(MMC_ERR_EXISTS, mmc_putv(store_, mmc::key(key), columns.data.data(), columns.sizes.data(),
                                               data.size(), &wanted));
    }
    // Copies an object out. The object's size, or nothing when there is none. Another size than the buffer's throws MMC_ERR_SIZE_MISMATCH,
    // unless `flags` has MMC_GET_UP_TO: then the smaller of the two is copied. `stream` is given to copy callbacks.
    [[nodiscard]] std::optional<uint64_t> get(std::string_view key, Buffer data, uint32_t flags = 0,
                                              void *stream = nullptr) const {
        mmc_get_options wanted = with(stream);
        uint64_t size = 0;
        return found(mmc_get(store_, mmc::key(key), data.data, data.size, flags, &wanted, &size), size);
    }
    // Copies an object into several buffers, in their order, which may split it otherwise than the put did.
    [[nodiscard]] std::optional<uint64_t> getv(std::string_view key, Span<const Buffer> data, uint32_t flags = 0,
                                               void *stream = nullptr) const {
        mmc_get_options wanted = with(stream);
        detail::Columns<void *> columns(data);
        uint64_t size = 0;
        return found(mmc_getv(store_, mmc::key(key), columns.data.data(), columns.sizes.data(), data.size(), flags,
                              &wanted, &size),
                     size);
    }
    // Whether the object can be read. `flags`: MMC_PEEK, not a use, or 0.
    [[nodiscard]] bool exist(std::string_view key, uint32_t flags = 0) const {
        return is_not(MMC_ERR_NOT_FOUND, mmc_exist(store_, mmc::key(key), flags));
    }
    // The object's size and copies, or nothing. `flags`: MMC_PEEK, MMC_QUERY_RESERVED or 0.
    [[nodiscard]] std::optional<mmc_object_info> query(std::string_view key, uint32_t flags = 0) const {
        auto info = make<mmc_object_info>();
        return found(mmc_query(store_, mmc::key(key), flags, &info), info);
    }
    // Removes an object. False when there is none.
    bool remove(std::string_view key) { return is_not(MMC_ERR_NOT_FOUND, mmc_remove(store_, mmc::key(key))); }
    // Removes all objects. Returns how many.
    uint64_t remove_all() {
        uint64_t removed = 0;
        check(mmc_remove_all(store_, &removed));
        return removed;
    }
    // Calls `each` with the key of every readable object, a std::string_view that is borrowed for the call. When it returns bool, false ends
    // the listing. It may use the Store, but not close it; what it throws ends the listing, and comes out here.
    template <class Each> void list_keys(Each &&each) const {
        struct Listing {
            std::remove_reference_t<Each> &each;
            std::exception_ptr thrown;
        } listing{each, nullptr};
        mmc_keys_callback page = [](void *context, const mmc_key *keys, std::size_t count) noexcept -> int32_t {
            auto &[call, thrown] = *static_cast<Listing *>(context);
            try {
                for (std::size_t i = 0; i < count; i++) {
                    std::string_view key(static_cast<const char *>(keys[i].data), keys[i].size);
                    if constexpr (std::is_same_v<decltype(call(key)), bool>) {
                        if (!call(key)) {
                            return 1;
                        }
                    } else {
                        call(key);
                    }
                }
                return 0;
            } catch (...) { // an exception must not go through C
                thrown = std::current_exception();
                return 1;
            }
        };
        check(mmc_list_keys(store_, page, &listing));
        if (listing.thrown) {
            std::rethrow_exception(listing.thrown);
        }
    }

    // ---- Batches, at most MMC_MAX_BATCH keys; in prefix order, so that eviction takes the tail first. Each but prefix_len returns a code for
    // each key. Lists of unequal length throw MMC_ERR_INVALID_PARAM.

    [[nodiscard]] std::vector<int32_t> batch_put(const Keys &keys, Span<const ConstBuffer> data,
                                                 const PutOptions &options = PutOptions()) {
        require_equal("batch_put", keys.size(), data.size());
        mmc_put_options wanted = options.get();
        detail::Columns<const void *> columns(data);
        return batch(keys.size(), [&](int32_t *results) {
            return mmc_batch_put(store_, keys.data(), keys.size(), columns.data.data(), columns.sizes.data(), &wanted,
                                 0, results);
        });
    }
    // `buffer_counts`: how many buffers each key has; `data`: those of all keys, one key's after the other's.
    [[nodiscard]] std::vector<int32_t> batch_putv(const Keys &keys, Span<const std::size_t> buffer_counts,
                                                  Span<const ConstBuffer> data,
                                                  const PutOptions &options = PutOptions()) {
        require_parts("batch_putv", keys.size(), buffer_counts, data.size());
        mmc_put_options wanted = options.get();
        detail::Columns<const void *> columns(data);
        return batch(keys.size(), [&](int32_t *results) {
            return mmc_batch_putv(store_, keys.data(), keys.size(), buffer_counts.data(), columns.data.data(),
                                  columns.sizes.data(), &wanted, 0, results);
        });
    }
    // `true_sizes`: where the objects' sizes go, 0 for a get that failed; may be null.
    [[nodiscard]] std::vector<int32_t> batch_get(const Keys &keys, Span<const Buffer> data, uint32_t flags = 0,
                                                 void *stream = nullptr,
                                                 std::vector<uint64_t> *true_sizes = nullptr) const {
        require_equal("batch_get", keys.size(), data.size());
        mmc_get_options wanted = with(stream);
        detail::Columns<void *> columns(data);
        uint64_t *sizes = sized(true_sizes, keys.size());
        return batch(keys.size(), [&](int32_t *results) {
            return mmc_batch_get(store_, keys.data(), keys.size(), columns.data.data(), columns.sizes.data(), flags,
                                 &wanted, results, sizes);
        });
    }
    // The two above in one.
    [[nodiscard]] std::vector<int32_t> batch_getv(const Keys &keys, Span<const std::size_t> buffer_counts,
                                                  Span<const Buffer> data, uint32_t flags = 0, void *stream = nullptr,
                                                  std::vector<uint64_t> *true_sizes = nullptr) const {
        require_parts("batch_getv", keys.size(), buffer_counts, data.size());
        mmc_get_options wanted = with(stream);
        detail::Columns<void *> columns(data);
        uint64_t *sizes = sized(true_sizes, keys.size());
        return batch(keys.size(), [&](int32_t *results) {
            return mmc_batch_getv(store_, keys.data(), keys.size(), buffer_counts.data(), columns.data.data(),
                                  columns.sizes.data(), flags, &wanted, results, sizes);
        });
    }
    [[nodiscard]] std::vector<int32_t> batch_exist(const Keys &keys, uint32_t flags = 0) const {
        return batch(keys.size(), [&](int32_t *results) {
            return mmc_batch_exist(store_, keys.data(), keys.size(), flags, results);
        });
    }
    // How many of the keys have readable objects, from the first on and up to the first that has none. A key on the way that is none throws.
    [[nodiscard]] std::size_t prefix_len(const Keys &keys, uint32_t flags = 0) const {
        std::size_t length = 0;
        check(mmc_prefix_len(store_, keys.data(), keys.size(), flags, &length));
        return length;
    }
    // `infos`: where the objects go; an element that failed is all zero but for `struct_size`.
    [[nodiscard]] std::vector<int32_t> batch_query(const Keys &keys, std::vector<mmc_object_info> &infos,
                                                   uint32_t flags = 0) const {
        infos.assign(keys.size(), make<mmc_object_info>());
        return batch(keys.size(), [&](int32_t *results) {
            return mmc_batch_query(store_, keys.data(), keys.size(), flags, infos.data(), results);
        });
    }
    std::vector<int32_t> batch_remove(const Keys &keys) {
        return batch(keys.size(), [&](int32_t *results) {
            return mmc_batch_remove(store_, keys.data(), keys.size(), 0, results);
        });
    }
    // Moves objects to a slower medium: MMC_MEDIUM_*.
    std::vector<int32_t> evict(const Keys &keys, uint32_t from, uint32_t to) {
        return batch(keys.size(), [&](int32_t *results) {
            return mmc_evict(store_, keys.data(), keys.size(), from, to, 0, results);
        });
    }
    // Copies objects to a faster medium.
    std::vector<int32_t> prefetch(const Keys &keys, uint32_t from, uint32_t to) {
        return batch(keys.size(), [&](int32_t *results) {
            return mmc_prefetch(store_, keys.data(), keys.size(), from, to, 0, results);
        });
    }

    // ---- In place

    // Takes the key and space for `size` bytes, which the caller fills and commits. Nothing when the key is taken. Throws as put does.
    [[nodiscard]] std::optional<Reservation> reserve(std::string_view key, uint64_t size,
                                                     const PutOptions &options = PutOptions()) {
        mmc_put_options wanted = options.get();
        auto view = make<mmc_view>();
        if (!is_not(MMC_ERR_EXISTS, mmc_reserve(store_, mmc::key(key), size, &wanted, &view))) {
            return std::nullopt;
        }
        return Reservation(store_, view);
    }
    // Keeps an object's bytes where they are. Nothing when there is none. `flags`: MMC_PEEK or 0.
    [[nodiscard]] std::optional<Pin> pin(std::string_view key, uint32_t flags = 0) {
        auto view = make<mmc_view>();
        if (!is_not(MMC_ERR_NOT_FOUND, mmc_pin(store_, mmc::key(key), flags, &view))) {
            return std::nullopt;
        }
        return Pin(store_, view);
    }
    // Keeps an object from eviction for so many milliseconds; 0 means MMC_DEFAULT_LEASE_MS. False when there is none.
    bool add_lease(std::string_view key, uint64_t term_ms = 0) {
        return is_not(MMC_ERR_NOT_FOUND, mmc_add_lease(store_, mmc::key(key), term_ms));
    }
    // Ends one lease, the one that would end first. False when there is none, or no such object.
    bool remove_lease(std::string_view key) {
        int32_t code = mmc_remove_lease(store_, mmc::key(key));
        return code != MMC_ERR_NO_LEASE && is_not(MMC_ERR_NOT_FOUND, code);
    }

    [[nodiscard]] Batch<Reservation> batch_reserve(const Keys &keys, Span<const uint64_t> sizes,
                                                   const PutOptions &options = PutOptions()) {
        require_equal("batch_reserve", keys.size(), sizes.size());
        mmc_put_options wanted = options.get();
        return hold<Reservation>(keys.size(), [&](mmc_view *views, int32_t *results) {
            return mmc_batch_reserve(store_, keys.data(), keys.size(), sizes.data(), &wanted, 0, views, results);
        });
    }
    // Publishes them as one batch; they are empty then. An empty one is MMC_ERR_NOT_FOUND.
    [[nodiscard]] std::vector<int32_t> batch_commit(Span<Reservation> reservations) {
        return let_go(reservations, mmc_batch_commit);
    }
    std::vector<int32_t> batch_abort(Span<Reservation> reservations) { return let_go(reservations, mmc_batch_abort); }
    [[nodiscard]] Batch<Pin> batch_pin(const Keys &keys, uint32_t flags = 0) {
        return hold<Pin>(keys.size(), [&](mmc_view *views, int32_t *results) {
            return mmc_batch_pin(store_, keys.data(), keys.size(), flags, views, results);
        });
    }
    // Ends them in one call; they are empty then. An empty one is MMC_ERR_NOT_FOUND.
    std::vector<int32_t> batch_unpin(Span<Pin> pins) { return let_go(pins, mmc_batch_unpin); }
    // Copies buffers to ranges that begin at these pool addresses, of any length, in objects that are reserved: each in the copy that its
    // view shows, and done before it is committed. `stream` is given to copy callbacks.
    [[nodiscard]] std::vector<int32_t> batch_copy_to(Span<const uint64_t> addresses, Span<const ConstBuffer> data,
                                                     void *stream = nullptr) {
        require_equal("batch_copy_to", addresses.size(), data.size());
        detail::Columns<const void *> columns(data);
        return batch_copy(addresses, const_cast<void *const *>(columns.data.data()), columns.sizes.data(),
                          MMC_COPY_TO_SEGMENT, stream);
    }
    // Copies such ranges into buffers: of objects that can be read, and of ones that were removed while a lease on them lasts.
    [[nodiscard]] std::vector<int32_t> batch_copy_from(Span<const uint64_t> addresses, Span<const Buffer> data,
                                                       void *stream = nullptr) const {
        require_equal("batch_copy_from", addresses.size(), data.size());
        detail::Columns<void *> columns(data);
        return batch_copy(addresses, columns.data.data(), columns.sizes.data(), MMC_COPY_FROM_SEGMENT, stream);
    }
    std::vector<int32_t> batch_add_lease(const Keys &keys, uint64_t term_ms = 0) {
        return batch(keys.size(), [&](int32_t *results) {
            return mmc_batch_add_lease(store_, keys.data(), keys.size(), term_ms, 0, results);
        });
    }
    std::vector<int32_t> batch_remove_lease(const Keys &keys) {
        return batch(keys.size(), [&](int32_t *results) {
            return mmc_batch_remove_lease(store_, keys.data(), keys.size(), 0, results);
        });
    }

    // ---- What happened

    // The counters since the store was opened, and its levels now.
    mmc_statistics stats() const {
        auto statistics = make<mmc_statistics>();
        check(mmc_stats(store_, &statistics));
        return statistics;
    }
    // Where the admin port listens, "host:port"; "" when it is off.
    std::string http_address() const {
        std::size_t needed = 0;
        std::string address(63, '\0');
        if (mmc_http_address(store_, address.data(), address.size() + 1, &needed) != MMC_OK) {
            address.resize(needed > 0 ? needed - 1 : 0);
            check(mmc_http_address(store_, address.data(), address.size() + 1, &needed));
        }
        address.resize(needed - 1);
        return address;
    }

  private:
    // Of nothing yet.
    explicit Store(std::nullptr_t) noexcept {}
    static void check_version() {
        if (mmc_abi_version() < MMC_ABI_VERSION) {
            throw Error(MMC_ERR_UNSUPPORTED, std::string("libmmc ") + mmc_version() + " has interface " +
                                                 std::to_string(mmc_abi_version()) + ": this program needs " +
                                                 std::to_string(MMC_ABI_VERSION));
        }
    }
    // False for the one code that is an answer; throws for any other failure.
    static bool is_not(int32_t answer, int32_t code) {
        if (code == answer) {
            return false;
        }
        check(code);
        return true;
    }
    template <class Value> static std::optional<Value> found(int32_t code, const Value &value) {
        return is_not(MMC_ERR_NOT_FOUND, code) ? std::optional<Value>(value) : std::nullopt;
    }
    static mmc_get_options with(void *stream) noexcept {
        auto options = make<mmc_get_options>();
        options.stream = stream;
        return options;
    }
    static void require_equal(const char *function, std::size_t keys, std::size_t others) {
        if (keys != others) {
            throw Error(MMC_ERR_INVALID_PARAM, std::string(function) + ": " + std::to_string(keys) + " keys with " +
                                                   std::to_string(others) + " values");
        }
    }
    static void require_parts(const char *function, std::size_t keys, Span<const std::size_t> counts,
                              std::size_t buffers) {
        require_equal(function, keys, counts.size());
        std::size_t left = buffers;
        for (std::size_t count : counts) {
            if (count > left) {
                left = 1; // more parts than buffers
                break;
            }
            left -= count;
        }
        if (left != 0) {
            throw Error(MMC_ERR_INVALID_PARAM,
                        std::string(function) + ": buffer_counts do not add up to the number of buffers, " +
                            std::to_string(buffers));
        }
    }
    static uint64_t *sized(std::vector<uint64_t> *sizes, std::size_t count) {
        if (sizes == nullptr) {
            return nullptr;
        }
        sizes->assign(count, 0);
        return sizes->data();
    }
    template <class Call> static std::vector<int32_t> batch(std::size_t count, Call call) {
        std::vector<int32_t> results(count);
        check(call(results.data()));
        return results;
    }
    std::vector<int32_t> batch_copy(Span<const uint64_t> addresses, void *const *data, const std::size_t *sizes,
                                    uint32_t direction, void *stream) const {
        mmc_get_options wanted = with(stream);
        return batch(addresses.size(), [&](int32_t *results) {
            return mmc_batch_copy(store_, addresses.data(), addresses.size(), data, sizes, direction, 0, &wanted,
                                  results);
        });
    }
    template <class Holder, class Call> Batch<Holder> hold(std::size_t count, Call call) {
        std::vector<mmc_view> views(count, make<mmc_view>());
        Batch<Holder> made{std::vector<int32_t>(count), std::vector<Holder>(count)};
        check(call(views.data(), made.results.data()));
        for (std::size_t i = 0; i < count; i++) {
            if (made.results[i] == MMC_OK) {
                made.held[i] = Holder(store_, views[i]);
            }
        }
        return made;
    }
    template <class Holder>
    std::vector<int32_t> let_go(Span<Holder> held,
                                int32_t (*end)(mmc_store *, const uint64_t *, std::size_t, uint32_t, int32_t *)) {
        std::vector<uint64_t> tokens(held.size());
        std::vector<int32_t> results(held.size());
        for (std::size_t i = 0; i < held.size(); i++) {
            tokens[i] = held[i].token();
        }
        check(end(store_, tokens.data(), tokens.size(), 0, results.data()));
        for (Holder &each : held) {
            each.release();
        }
        return results;
    }

    mmc_store *store_ = nullptr;
};

} // namespace mmc

#endif // MMC_HPP
