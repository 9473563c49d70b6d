// mmc.hpp as a C++ host uses it. Each function is named after what it shows; the first thing that does not hold ends the program.

#include <mmc.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <set>

#include <unistd.h>

#define CHECK(...)                                                                                                     \
    do {                                                                                                               \
        if (!(__VA_ARGS__)) {                                                                                          \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #__VA_ARGS__);                                     \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

namespace {

using Texts = std::vector<std::string>;
using Results = std::vector<int32_t>;

template <class Holder>
constexpr bool is_an_owner =
    std::is_nothrow_move_constructible_v<Holder> && std::is_nothrow_move_assignable_v<Holder> &&
    std::is_nothrow_destructible_v<Holder> && !std::is_copy_constructible_v<Holder> &&
    !std::is_copy_assignable_v<Holder>;
static_assert(is_an_owner<mmc::Store> && is_an_owner<mmc::Pin> && is_an_owner<mmc::Reservation>);

// What can't be written is no place to get into; a text is one key, not a list of them; a literal has a zero at its end.
static_assert(std::is_convertible_v<std::vector<int> &, mmc::Buffer>);
static_assert(!std::is_convertible_v<const std::vector<int> &, mmc::Buffer>);
static_assert(!std::is_convertible_v<std::vector<std::string> &, mmc::Buffer>);
static_assert(!std::is_convertible_v<std::string, mmc::Keys>);
static_assert(!std::is_convertible_v<const char (&)[6], mmc::ConstBuffer>);

// The code that `call` throws; MMC_OK when it throws nothing.
template <class Call> int32_t thrown(Call call) {
    try {
        call();
    } catch (const mmc::Error &error) {
        CHECK(error.what()[0] != '\0');
        return error.code();
    }
    return MMC_OK;
}

mmc::Config small() { return mmc::Config().dram_size(16 << 20).watermarks(100, 100); }

const std::vector<char> block(4096, 'a');

void the_config_reaches_the_store() {
    mmc::Config config = mmc::Config().rank(7).dram_size(8 << 20).http_address("127.0.0.1:0").http_token("secret");
    mmc::Config copy = config;
    config.http_address("not an address");
    mmc::Store store(copy);
    CHECK(store.list_segments().size() == 1 && store.list_segments()[0].rank == 7);
    CHECK(store.stats().capacity == 8 << 20);
    CHECK(store.http_address().rfind("127.0.0.1:", 0) == 0);
    CHECK(mmc::Store(mmc::Config().no_dram()).list_segments().empty());
    CHECK(mmc::Store(small()).http_address().empty());
}

void the_config_keeps_who_may_attach() {
    mmc::Config config = mmc::Config().share("unix:/run/mmc.sock").share_mode(0660).share_wait_ms(250);
    config.share_users({1000, 1001}).share_groups({});
    mmc_config settings = config.get();
    CHECK(std::string(settings.share) == "unix:/run/mmc.sock");
    CHECK(std::string(settings.share_users) == "1000,1001" && std::string(settings.share_groups).empty());
    CHECK(settings.share_mode == 0660 && settings.share_wait_ms == 250);
    CHECK(mmc::Config().get().share == nullptr && mmc::Config().get().share_users == nullptr);
}

void an_open_that_fails_says_why() {
    try {
        mmc::Store store(mmc::Config().watermarks(10, 20));
        CHECK(false);
    } catch (const mmc::Error &error) {
        CHECK(error.code() == MMC_ERR_INVALID_PARAM && std::string(error.name()) == "MMC_ERR_INVALID_PARAM");
        CHECK(std::strstr(error.what(), "watermark_low 20") != nullptr);
    }
}

void answers_are_values_and_failures_are_thrown() {
    mmc::Store store(small());
    std::vector<char> back(block.size());
    CHECK(store.put("a", block) && !store.put("a", block));
    CHECK(store.get("a", back) == block.size() && back == block);
    CHECK(!store.get("none", back) && !store.query("none") && !store.pin("none") && !store.reserve("a", 1));
    CHECK(store.exist("a", MMC_PEEK) && !store.exist("none"));
    CHECK(store.query("a")->size == block.size());

    std::string text = "hello", room(5, ' ');
    CHECK(store.put("text", text) && store.get("text", room) && room == text);
    CHECK(store.put("ints", std::array<int, 4>{1, 2, 3, 4}) && store.query("ints")->size == 4 * sizeof(int));
    CHECK(store.put("ten", {block.data(), 10}) && store.query("ten")->size == 10);
    CHECK(store.get("a", room, MMC_GET_UP_TO) == block.size() && room == "aaaaa");

    CHECK(thrown([&] { (void)store.get("a", room); }) == MMC_ERR_SIZE_MISMATCH);
    CHECK(thrown([&] { store.put("", block); }) == MMC_ERR_INVALID_PARAM);
    CHECK(thrown([&] { store.put("large", std::vector<char>(32 << 20)); }) == MMC_ERR_NO_SPACE);

    CHECK(store.add_lease("a", 60000) && !store.add_lease("none"));
    CHECK(store.remove_lease("a") && !store.remove_lease("a") && !store.remove_lease("none"));
    CHECK(store.remove("a") && !store.remove("a"));
    CHECK(store.remove_all() == 3 && store.stats().allocated == 0);
}

void an_object_is_put_of_many_buffers_and_got_into_others() {
    mmc::Store store(small());
    std::string tail = "tail";
    mmc::ConstBuffer from[] = {block, tail};
    std::vector<char> head(4090), rest(10);
    std::vector<mmc::Buffer> into{head, rest};
    CHECK(store.putv("parts", from) && !store.putv("parts", from));
    CHECK(store.getv("parts", into) == 4100 && std::string(rest.data(), rest.size()) == "aaaaaatail");
    CHECK(!store.getv("none", into));

    std::vector<std::size_t> counts{1, 2}, others{2, 1}, too_many{2, 2}, too_few{1, 1};
    std::vector<mmc::ConstBuffer> all(3, block);
    std::vector<std::vector<char>> rooms{std::vector<char>(96), std::vector<char>(4000), std::vector<char>(8192)};
    std::vector<mmc::Buffer> split(rooms.begin(), rooms.end());
    std::vector<uint64_t> sizes;
    CHECK(store.batch_putv(Texts{"one", "two"}, counts, all) == Results(2, MMC_OK));
    CHECK(store.batch_getv(Texts{"one", "two"}, others, split, 0, nullptr, &sizes) == Results(2, MMC_OK));
    CHECK(sizes == std::vector<uint64_t>{4096, 8192} && rooms[2] == std::vector<char>(8192, 'a'));
    for (const auto &wrong : {too_many, too_few}) {
        CHECK(thrown([&] { (void)store.batch_putv(Texts{"x", "y"}, wrong, all); }) == MMC_ERR_INVALID_PARAM);
        CHECK(thrown([&] { (void)store.batch_getv(Texts{"one", "two"}, wrong, split); }) == MMC_ERR_INVALID_PARAM);
    }
    CHECK(!store.exist("x"));
}

void keys_of_a_batch_come_in_many_forms() {
    mmc::Store store(small());
    CHECK(store.batch_put(Texts{"a", "b"}, std::vector<mmc::ConstBuffer>(2, block)) == Results(2, MMC_OK));
    const Results found{MMC_OK, MMC_OK}, half{MMC_OK, MMC_ERR_NOT_FOUND};
    mmc_key array[] = {mmc::key("a"), mmc::key("b")};
    const std::vector<mmc_key> vector(array, array + 2);
    CHECK(store.batch_exist(array) == found && mmc::Keys(array).data() == array);
    CHECK(store.batch_exist(vector) == found && mmc::Keys(vector).data() == vector.data());
    CHECK(store.batch_exist(mmc::Span<const mmc_key>(array, 1)) == Results{MMC_OK});
    CHECK(store.batch_exist({"a", "none"}) == half);
    CHECK(store.batch_exist(std::list<const char *>{"a", "none"}) == half);
    CHECK(store.batch_exist(std::set<std::string>{"b", "none"}) == half);
    CHECK(store.batch_exist(std::array<std::string_view, 2>{"a", "none"}) == half);
    CHECK(store.batch_exist(Texts()).empty() && store.batch_pin(Texts()).held.empty());
}

void each_element_of_a_batch_has_its_code() {
    mmc::Store store(small());
    const std::vector<mmc::ConstBuffer> two(2, block);
    CHECK(store.batch_put(Texts{"a", "a"}, two) == Results{MMC_OK, MMC_ERR_EXISTS});
    std::vector<char> first(4096), second(4096);
    std::vector<mmc::Buffer> into{first, second};
    std::vector<uint64_t> sizes{9, 9, 9};
    const Results half{MMC_OK, MMC_ERR_NOT_FOUND};
    CHECK(store.batch_get(Texts{"a", "none"}, into, MMC_PEEK, nullptr, &sizes) == half);
    CHECK(first == block && sizes == std::vector<uint64_t>{4096, 0});
    std::vector<mmc_object_info> infos;
    CHECK(store.batch_query(Texts{"a", "none"}, infos) == half && infos[0].size == 4096 && infos[1].size == 0);
    CHECK(store.batch_add_lease(Texts{"a", "none"}, 60000) == half && store.query("a")->lease_count == 1);
    CHECK(store.batch_remove_lease(Texts{"a", "none"}) == half);
    CHECK(store.prefix_len({"a", "none", "a"}) == 1 && store.prefix_len({"none", "a"}, MMC_PEEK) == 0);
    CHECK(store.prefix_len({"a", "a"}) == 2 && store.prefix_len(Texts()) == 0);
    CHECK(store.batch_remove(Texts{"a", "none"}) == half);

    CHECK(thrown([&] { (void)store.batch_put(Texts{"x"}, two); }) == MMC_ERR_INVALID_PARAM);
    CHECK(thrown([&] { (void)store.batch_get(Texts{"x"}, into); }) == MMC_ERR_INVALID_PARAM);
    CHECK(thrown([&] { (void)store.batch_exist(Texts(MMC_MAX_BATCH + 1, "x")); }) == MMC_ERR_INVALID_PARAM);
    CHECK(thrown([&] { (void)store.prefix_len({"", "a"}); }) == MMC_ERR_INVALID_PARAM);
}

void a_pin_ends_with_its_holder() {
    mmc::Store store(small());
    CHECK(store.put("a", block) && store.put("b", block));
    {
        mmc::Pin pin = std::move(*store.pin("a"));
        CHECK(pin && pin.size() == 4096 && std::memcmp(pin.data(), block.data(), 4096) == 0);
        mmc::Pin moved = std::move(pin);
        CHECK(moved && store.stats().pins == 1);
        CHECK(!pin && thrown([&] { pin.unpin(); }) == MMC_ERR_NOT_FOUND);
        moved = std::move(*store.pin("b")); // ends the pin of "a"
        CHECK(store.stats().pins == 1 && store.remove("b") && moved.address() != 0);
        CHECK(std::memcmp(moved.data(), block.data(), 4096) == 0);
        moved.unpin();
        CHECK(!moved && store.stats().pins == 0);
        moved = std::move(*store.pin("a"));
    }
    CHECK(store.stats().pins == 0);

    auto batch = store.batch_pin(Texts{"a", "none"});
    CHECK((batch.results == Results{MMC_OK, MMC_ERR_NOT_FOUND}) && batch.held[0] && !batch.held[1]);
    CHECK((store.batch_unpin(batch.held) == Results{MMC_OK, MMC_ERR_NOT_FOUND}) && !batch.held[0]);
    batch = store.batch_pin(Texts{"a", "a"});
    CHECK(store.stats().pins == 2);
    batch = {};
    CHECK(store.stats().pins == 0);
}

void a_reservation_is_given_up_unless_committed() {
    mmc::Store store(small());
    {
        auto reservation = store.reserve("a", 100);
        CHECK(reservation && !store.exist("a") && store.stats().reservations == 1);
    }
    CHECK(store.stats().reservations == 0 && store.stats().allocated == 0);

    auto reservation = store.reserve("a", 3);
    std::memcpy(reservation->data(), "abc", 3);
    reservation->commit();
    std::string back(3, ' ');
    CHECK(!*reservation && store.get("a", back) && back == "abc");
    CHECK(thrown([&] { reservation->commit(); }) == MMC_ERR_NOT_FOUND);
    reservation = store.reserve("b", 3);
    reservation->abort();
    CHECK(store.stats().reservations == 0);

    std::vector<uint64_t> sizes{10, 20, 30};
    auto batch = store.batch_reserve(Texts{"b", "a", "c"}, sizes);
    CHECK(batch.results == Results{MMC_OK, MMC_ERR_EXISTS, MMC_OK});
    CHECK(store.batch_commit(batch.held) == Results{MMC_OK, MMC_ERR_NOT_FOUND, MMC_OK});
    CHECK(store.query("c")->size == 30);
    batch = store.batch_reserve(Texts{"d", "e", "f"}, sizes);
    CHECK(store.batch_abort(batch.held) == Results(3, MMC_OK) && !store.exist("d"));
    CHECK(thrown([&] { (void)store.batch_reserve(Texts{"d"}, sizes); }) == MMC_ERR_INVALID_PARAM);
}

void parts_of_an_object_are_copied_by_their_addresses() {
    mmc::Store store(small());
    auto reservation = store.reserve("a", 6000);
    const uint64_t first = reservation->address();
    const std::string head(1000, 'h'), tail(5000, 't');
    std::vector<uint64_t> addresses{first + 1000, first, first};
    std::vector<mmc::ConstBuffer> from{tail, head, {tail.data(), 0}};
    CHECK(store.batch_copy_to(addresses, from) == Results{MMC_OK, MMC_OK, MMC_ERR_INVALID_PARAM});
    std::string back(5998, ' '), end(2, ' ');
    std::vector<mmc::Buffer> into{back, end};
    addresses = {first, first + 5999};
    CHECK(store.batch_copy_from(addresses, into) == Results(2, MMC_ERR_STATE));
    reservation->commit();
    CHECK(store.batch_copy_from(addresses, into) == Results{MMC_OK, MMC_ERR_NOT_FOUND});
    CHECK(back == head + tail.substr(2) && end == "  ");
    CHECK(thrown([&] { (void)store.batch_copy_from(addresses, mmc::Span(into.data(), 1)); }) == MMC_ERR_INVALID_PARAM);
    CHECK(thrown([&] { (void)store.batch_copy_to(addresses, from); }) == MMC_ERR_INVALID_PARAM);
    CHECK(store.batch_copy_from({}, {}).empty());
}

// A call that fails as a whole has done nothing, so it must not have lost the tokens either.
void a_batch_that_is_refused_leaves_its_pins_with_their_holders() {
    mmc::Store store(small());
    CHECK(store.put("a", block));
    std::vector<mmc::Pin> pins(MMC_MAX_BATCH + 1);
    pins[0] = std::move(*store.pin("a"));
    CHECK(thrown([&] { store.batch_unpin(pins); }) == MMC_ERR_INVALID_PARAM);
    CHECK(pins[0] && store.stats().pins == 1);
    pins.clear();
    CHECK(store.stats().pins == 0);
}

void a_listing_brings_every_key_once_and_exceptions_back() {
    mmc::Store store(small());
    for (int i = 0; i < 2000; i++) {
        CHECK(store.put("key-" + std::to_string(i), {block.data(), 1}));
    }
    std::set<std::string> seen;
    int calls = 0;
    store.list_keys([&](std::string_view key) {
        seen.emplace(key);
        calls++;
    });
    CHECK(seen.size() == 2000 && calls == 2000);
    calls = 0;
    store.list_keys([&](std::string_view) { return ++calls < 3; });
    CHECK(calls == 3);

    struct Mine {};
    calls = 0;
    try {
        store.list_keys([&](std::string_view) {
            calls++;
            throw Mine{};
        });
        CHECK(false);
    } catch (const Mine &) {
    }
    CHECK(calls == 1);
}

void segments_are_registered_and_options_passed_on() {
    mmc::Store store(small());
    auto segment = mmc::make<mmc_segment_options>();
    segment.medium = MMC_MEDIUM_DRAM;
    segment.rank = 3;
    segment.capacity = 1 << 20;
    uint64_t address = store.register_segment(segment);
    CHECK(store.list_segments().size() == 2);
    mmc::PutOptions options;
    options.replicas = 2;
    options.preferred_ranks = {3, 0};
    CHECK(store.put("a", block, options));
    auto info = store.query("a");
    CHECK(info->blob_count == 2 && info->blobs[0].rank == 3 && info->blobs[1].rank == 0);
    store.unregister_segment(address);
    CHECK(store.query("a")->blob_count == 1);
    CHECK(thrown([&] { store.unregister_segment(address); }) == MMC_ERR_NOT_FOUND);
}

void stores_and_pins_close_in_any_order() {
    mmc::Store store(small());
    CHECK(store.put("a", block));
    auto pin = store.pin("a");
    mmc::Store other(std::move(store));
    CHECK(store.handle() == nullptr && thrown([&] { store.stats(); }) == MMC_ERR_NOT_STARTED);
    store.close(); // of nothing
    other.close();
    other.close();
    CHECK(thrown([&] { other.put("a", block); }) == MMC_ERR_NOT_STARTED);
    CHECK(std::memcmp(pin->data(), block.data(), block.size()) == 0);
    pin.reset();
    other = mmc::Store(small());
    CHECK(other.put("a", block));
    other = mmc::Store(small()); // closes the one before
    CHECK(!other.exist("a"));
}

void a_store_of_another_process_is_attached_to() {
    char directory[] = "/tmp/mmc-hpp-XXXXXX";
    CHECK(mkdtemp(directory) != nullptr);
    const std::string address = std::string("unix:") + directory + "/pool";
    CHECK(thrown([&] { (void)mmc::Store::attach(address); }) == MMC_ERR_DISCONNECTED);
    CHECK(thrown([] { (void)mmc::Store::attach("pool"); }) == MMC_ERR_INVALID_PARAM);
    mmc::Store owner(small().rank(3).memory(MMC_MEMORY_MEMFD));
    owner.share(address);
    CHECK(thrown([&] { owner.share(address); }) == MMC_ERR_BUSY);
    CHECK(owner.rank() == 3u);

    mmc::AttachOptions options;
    options.rank = 0;
    options.dram_size = 8 << 20;
    options.huge_pages = false;
    options.call_timeout_ms = 20000;
    mmc_attach_options asked = options.get();
    CHECK(asked.rank == 1 && asked.huge_pages == MMC_OFF && asked.prefault == MMC_OFF && asked.numa_node == 0);
    mmc::Store bringer = mmc::Store::attach(address, options), reader = mmc::Store::attach(address);
    CHECK(bringer.rank() == 0u && !reader.rank());
    CHECK(owner.stats().attached == 2 && owner.list_segments().size() == 2);
    CHECK(bringer.put("a", block) && !reader.put("a", block));
    auto pin = reader.pin("a");
    CHECK(owner.query("a")->blobs[0].rank == 0 && pin->address() == owner.query("a")->blobs[0].address);
    CHECK(std::memcmp(pin->data(), block.data(), block.size()) == 0);
    CHECK(thrown([&] { reader.share(address); }) == MMC_ERR_UNSUPPORTED);
    owner.close();
    CHECK(thrown([&] { (void)reader.exist("a"); }) == MMC_ERR_DISCONNECTED);
    CHECK(std::memcmp(pin->data(), block.data(), block.size()) == 0);
    CHECK(rmdir(directory) == 0);
}

} // namespace

int main() {
    the_config_reaches_the_store();
    the_config_keeps_who_may_attach();
    an_open_that_fails_says_why();
    answers_are_values_and_failures_are_thrown();
    an_object_is_put_of_many_buffers_and_got_into_others();
    keys_of_a_batch_come_in_many_forms();
    each_element_of_a_batch_has_its_code();
    a_pin_ends_with_its_holder();
    a_reservation_is_given_up_unless_committed();
    parts_of_an_object_are_copied_by_their_addresses();
    a_batch_that_is_refused_leaves_its_pins_with_their_holders();
    a_listing_brings_every_key_once_and_exceptions_back();
    segments_are_registered_and_options_passed_on();
    stores_and_pins_close_in_any_order();
    a_store_of_another_process_is_attached_to();
    std::puts("mmc.hpp: all checks hold");
}
