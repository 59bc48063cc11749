/* Numbers with units, dates, words, digests. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/util.h"

struct measure {
    const char *text;
    int64_t value;
};

TEST(duration_is_a_whole_number_and_a_unit)
{
    static const struct measure good[] = {
        {"250ms", 250},
        {"0ms", 0},
        {"10s", 10000},
        {"2m", 120000},
        {"24h", 86400000},
        {"7d", 604800000},
        {"007s", 7000},
        {"9223372036854775807ms", INT64_MAX},
        {"9223372036854775s", 9223372036854775000},
    };
    for (size_t i = 0; i < NELEMS(good); i++) {
        int64_t ms = -1;
        assert_int_equal(parse_duration(good[i].text, &ms), 0);
        assert_int_equal(ms, good[i].value);
    }
}

TEST(malformed_duration_leaves_the_result_untouched)
{
    static const char *const bad[] = {"",
                                      "10",
                                      "s",
                                      "10 s",
                                      " 10s",
                                      "10s ",
                                      "1.5s",
                                      "-1s",
                                      "+1s",
                                      "1e3s",
                                      "10S",
                                      "10sec",
                                      "0x10s",
                                      "10ss",
                                      "ten",
                                      "9223372036854775808ms",
                                      "9223372036854776s",
                                      "106751991168d",
                                      "99999999999999999999999999999999d"};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        int64_t ms = 42;
        assert_int_equal(parse_duration(bad[i], &ms), -1);
        assert_int_equal(ms, 42);
    }
}

TEST(size_is_a_whole_number_and_a_binary_unit)
{
    static const struct measure good[] = {
        {"512B", 512}, {"64KiB", 65536}, {"4MiB", 4194304}, {"1GiB", 1073741824}, {"0B", 0}};
    static const char *const bad[] = {"", "512", "64KB", "64kib", "4M", "1TiB", "-1B", "8589934592GiB"};
    for (size_t i = 0; i < NELEMS(good); i++) {
        int64_t bytes = -1;
        assert_int_equal(parse_size(good[i].text, &bytes), 0);
        assert_int_equal(bytes, good[i].value);
    }
    for (size_t i = 0; i < NELEMS(bad); i++) {
        int64_t bytes = 42;
        assert_int_equal(parse_size(bad[i], &bytes), -1);
        assert_int_equal(bytes, 42);
    }
}

TEST(integer_is_only_digits)
{
    static const char *const bad[] = {"", " 1", "1 ", "+1", "-1", "0x1", "1.0", "9223372036854775808"};
    int64_t value = 0;
    assert_int_equal(parse_int("9223372036854775807", &value), 0);
    assert_int_equal(value, INT64_MAX);
    for (size_t i = 0; i < NELEMS(bad); i++)
        assert_int_equal(parse_int(bad[i], &value), -1);
}

TEST(seconds_are_formatted_as_a_date)
{
    char text[32];
    utc_text(1736867746, text);
    assert_string_equal(text, "2025-01-14T15:15:46Z");
    utc_text(0, text);
    assert_string_equal(text, "1970-01-01T00:00:00Z");
    utc_text(253402300799, text);
    assert_string_equal(text, "9999-12-31T23:59:59Z");
}

TEST(date_out_of_range_is_empty)
{
    char text[32] = "x";
    utc_text(INT64_MAX, text);
    assert_string_equal(text, "");
}

static void assert_nearest(const char *text, const char *words, const char *expected)
{
    char *near = nearest_word(text, words);
    if (expected == NULL)
        assert_null(near);
    else
        assert_string_equal(near, expected);
    free(near);
}

TEST(nearest_word_is_suggested)
{
    static const char words[] = "workers|socket_dir|socket_group|user|upstreams|routes|redis";
    assert_nearest("worker", words, "workers");
    assert_nearest("sokcet_dir", words, "socket_dir");
    assert_nearest("socketgroup", words, "socket_group");
    assert_nearest("redis", words, "redis");
    assert_nearest("completely_different_thing", words, NULL);
}

TEST(hostile_words_have_no_suggestion)
{
    char *long_word = malloc(100001);
    memset(long_word, 'a', 100000);
    long_word[100000] = '\0';
    assert_nearest("anything", "", NULL);
    free(nearest_word(long_word, "workers|user"));
    assert_nearest("workers", long_word, NULL);
    free(long_word);
}

TEST(hex_and_sha256_match_known_values)
{
    unsigned char digest[32];
    char text[65];
    sha256("abc", 3, digest);
    hex_encode(digest, sizeof(digest), text);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256("", 0, digest);
    hex_encode(digest, 4, text);
    assert_string_equal(text, "e3b0c442");
    hex_encode(digest, 0, text);
    assert_string_equal(text, "");
}

TEST(random_bytes_differ)
{
    unsigned char given[100][16], all[256];
    for (size_t i = 0; i < 100; i++) { /* more than one system call gives */
        random_bytes(given[i], sizeof(given[i]));
        for (size_t k = 0; k < i; k++)
            assert_memory_not_equal(given[i], given[k], sizeof(given[i]));
    }
    random_bytes(all, sizeof(all));
    for (size_t i = 0; i + 16 <= sizeof(all); i++)
        assert_memory_not_equal(all + i, given[99], sizeof(given[99]));
}

TEST(read_full_and_write_full_transfer_all_bytes_or_fail)
{
    int ends[2];
    char text[16] = "";
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write_full(ends[1], "hello", 5), 0);
    assert_int_equal(write_full(ends[1], " you", 4), 0);
    close(ends[1]);
    assert_int_equal(read_full(ends[0], text, sizeof(text)), 9);
    assert_string_equal(text, "hello you");
    assert_int_equal(read_full(ends[0], text, sizeof(text)), 0);
    close(ends[0]);
    assert_true(read_full(-1, text, 1) < 0);
    assert_true(write_full(-1, text, 1) < 0);
}

TEST(zero_byte_allocations_succeed_and_freeing_null_is_legal)
{
    char *nothing = xcalloc(0, 0), *cut = xstrndup("abcdef", 3), *made = xasprintf("%s-%d", "a", 1);
    assert_non_null(nothing);
    nothing = xrealloc(nothing, 0);
    assert_non_null(nothing);
    assert_string_equal(cut, "abc");
    assert_string_equal(made, "a-1");
    free(nothing);
    free(cut);
    free(made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(duration_is_a_whole_number_and_a_unit),
        cmocka_unit_test(malformed_duration_leaves_the_result_untouched),
        cmocka_unit_test(size_is_a_whole_number_and_a_binary_unit),
        cmocka_unit_test(integer_is_only_digits),
        cmocka_unit_test(seconds_are_formatted_as_a_date),
        cmocka_unit_test(date_out_of_range_is_empty),
        cmocka_unit_test(nearest_word_is_suggested),
        cmocka_unit_test(hostile_words_have_no_suggestion),
        cmocka_unit_test(hex_and_sha256_match_known_values),
        cmocka_unit_test(random_bytes_differ),
        cmocka_unit_test(read_full_and_write_full_transfer_all_bytes_or_fail),
        cmocka_unit_test(zero_byte_allocations_succeed_and_freeing_null_is_legal),
    };
    return cmocka_run_group_tests_name("util", tests, NULL, NULL);
}
