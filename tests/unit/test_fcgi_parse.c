/* Requests that may be passed to libfcgi, and requests that may not. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "net/fcgi_parse.h"

enum { BEGIN = 1, ABORT = 2, END = 3, PARAMS = 4, STDIN = 5, STDOUT = 6, DATA = 8, GET_VALUES = 9 };

static struct buf wire;

static int start(void **unused __attribute__((unused)))
{
    buf_init(&wire, 1 << 20);
    return 0;
}

static int end(void **unused __attribute__((unused)))
{
    buf_done(&wire);
    return 0;
}

static void add_record(int type, int id, const void *content, size_t len, int padding)
{
    const char header[8] = {
        1, (char)type, (char)(id >> 8), (char)id, (char)(len >> 8), (char)len, (char)padding, 0};
    static const char zeros[255];
    buf_add(&wire, header, sizeof(header));
    buf_add(&wire, content, len);
    buf_add(&wire, zeros, (size_t)padding);
}

static void add_begin(int id, int role)
{
    const char body[8] = {(char)(role >> 8), (char)role, 1};
    add_record(BEGIN, id, body, sizeof(body), 0);
}

static const char one_param[] = "\x0e\x03REQUEST_METHODGET";
#define ONE_PARAM one_param, (sizeof(one_param) - 1)

static void add_params(const void *content, size_t len)
{
    if (len > 0)
        add_record(PARAMS, 1, content, len, 0);
    add_record(PARAMS, 1, NULL, 0, 0);
}

static enum fcgi_parse_verdict check(void)
{
    /* Exactly as long as the data, so that the sanitizer detects reads past the end. */
    unsigned char *exact = xcalloc(wire.len, 1);
    memcpy(exact, wire.data, wire.len);
    enum fcgi_parse_verdict verdict = fcgi_parse_check(exact, wire.len);
    free(exact);
    return verdict;
}

static void add_whole_request(void)
{
    add_begin(1, 1);
    add_record(PARAMS, 1, one_param, 5, 3);
    add_record(PARAMS, 1, one_param + 5, sizeof(one_param) - 6, 7);
    add_record(PARAMS, 1, NULL, 0, 0);
    add_record(STDIN, 1, "body", 4, 255);
    add_record(STDIN, 1, NULL, 0, 0);
}

TEST(complete_request_is_accepted)
{
    add_whole_request();
    assert_int_equal(check(), FCGI_PARSE_WHOLE);
}

TEST(every_prefix_of_a_request_is_partial)
{
    add_whole_request();
    for (size_t whole = wire.len; wire.len > 0; wire.len--)
        assert_int_equal(check(), wire.len == whole ? FCGI_PARSE_WHOLE : FCGI_PARSE_PARTIAL);
    assert_int_equal(fcgi_parse_check((const unsigned char *)"", 0), FCGI_PARSE_PARTIAL);
}

TEST(random_mutations_never_read_past_the_end)
{
    add_whole_request();
    for (size_t i = 0; i < wire.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            wire.data[i] ^= (char)(1 << bit);
            assert_in_range(check(), FCGI_PARSE_WHOLE, FCGI_PARSE_BAD);
            wire.data[i] ^= (char)(1 << bit);
        }
    }
}

TEST(padding_that_libfcgi_would_parse_as_records_is_bad)
{
    const char body[8] = {0, 1, 1};
    add_record(BEGIN, 1, body, sizeof(body), 8);
    assert_int_equal(check(), FCGI_PARSE_BAD);
    buf_reset(&wire);
    add_begin(1, 1);
    add_record(PARAMS, 1, ONE_PARAM, 0);
    add_record(PARAMS, 1, NULL, 0, 8);
    assert_int_equal(check(), FCGI_PARSE_BAD);
    wire.len -= 16;
    add_record(PARAMS, 1, NULL, 0, 0);
    add_record(STDIN, 1, NULL, 0, 8);
    assert_int_equal(check(), FCGI_PARSE_BAD);
}

TEST(data_after_the_request_is_bad)
{
    add_whole_request();
    buf_putc(&wire, 1);
    assert_int_equal(check(), FCGI_PARSE_BAD);
}

TEST(second_request_after_the_first_is_bad)
{
    add_whole_request();
    add_whole_request();
    assert_int_equal(check(), FCGI_PARSE_BAD);
}

TEST(request_begins_with_begin_request_for_a_responder)
{
    static const int types[] = {0, ABORT, END, PARAMS, STDIN, STDOUT, 7, DATA, GET_VALUES, 10, 11, 255};
    for (size_t i = 0; i < NELEMS(types); i++) {
        buf_reset(&wire);
        add_record(types[i], 1, NULL, 0, 0);
        assert_int_equal(check(), FCGI_PARSE_BAD);
        wire.len = 2; /* rejected as early as possible */
        assert_int_equal(check(), FCGI_PARSE_BAD);
    }
    for (int role = 0; role < 5; role++) {
        buf_reset(&wire);
        add_begin(1, role);
        assert_int_equal(check(), role == 1 ? FCGI_PARSE_PARTIAL : FCGI_PARSE_BAD);
    }
    buf_reset(&wire);
    add_begin(1, 0x0101);
    assert_int_equal(check(), FCGI_PARSE_BAD);
}

TEST(management_records_are_bad_anywhere)
{
    static const int types[] = {ABORT, GET_VALUES, DATA, 0, 255};
    for (size_t i = 0; i < NELEMS(types); i++) {
        for (int place = 0; place < 4; place++) {
            buf_reset(&wire);
            if (place > 0)
                add_begin(1, 1);
            if (place > 1)
                add_record(PARAMS, 1, ONE_PARAM, 0);
            if (place > 2)
                add_record(PARAMS, 1, NULL, 0, 0);
            add_record(types[i], types[i] == GET_VALUES ? 0 : 1, "\x0f\0FCGI_MPXS_CONNS", 17, 0);
            assert_int_equal(check(), FCGI_PARSE_BAD);
        }
    }
}

TEST(unknown_version_is_bad)
{
    add_whole_request();
    wire.data[0] = 2;
    assert_int_equal(check(), FCGI_PARSE_BAD);
    wire.data[0] = 1;
    wire.data[16] = 0;
    assert_int_equal(check(), FCGI_PARSE_BAD);
}

TEST(all_records_have_the_same_nonzero_request_id)
{
    add_begin(0, 1);
    assert_int_equal(check(), FCGI_PARSE_BAD);
    buf_reset(&wire);
    add_begin(1, 1);
    add_record(PARAMS, 2, ONE_PARAM, 0);
    assert_int_equal(check(), FCGI_PARSE_BAD);
    buf_reset(&wire);
    add_begin(256, 1);
    add_record(PARAMS, 1, ONE_PARAM, 0);
    assert_int_equal(check(), FCGI_PARSE_BAD);
}

TEST(streams_are_in_order_and_end_once)
{
    add_begin(1, 1);
    add_record(STDIN, 1, NULL, 0, 0);
    assert_int_equal(check(), FCGI_PARSE_BAD);
    buf_reset(&wire);
    add_begin(1, 1);
    add_begin(1, 1);
    assert_int_equal(check(), FCGI_PARSE_BAD);
    buf_reset(&wire);
    add_begin(1, 1);
    add_params(ONE_PARAM);
    add_record(PARAMS, 1, NULL, 0, 0);
    assert_int_equal(check(), FCGI_PARSE_BAD);
}

TEST(begin_record_of_wrong_length_is_bad)
{
    static const char body[16] = {0, 1};
    for (size_t len = 0; len < sizeof(body); len++) {
        buf_reset(&wire);
        add_record(BEGIN, 1, body, len, 0);
        assert_int_equal(check(), len == 8 ? FCGI_PARSE_PARTIAL : FCGI_PARSE_BAD);
    }
}

static enum fcgi_parse_verdict with_params(const void *content, size_t len)
{
    buf_reset(&wire);
    add_begin(1, 1);
    add_params(content, len);
    add_record(STDIN, 1, NULL, 0, 0);
    return check();
}

TEST(param_lengths_have_one_or_four_bytes)
{
    assert_int_equal(with_params("\1\1ab", 4), FCGI_PARSE_WHOLE);
    assert_int_equal(with_params("\200\0\0\1\200\0\0\1ab", 10), FCGI_PARSE_WHOLE);
    assert_int_equal(with_params("\1\0a\1\0b", 6), FCGI_PARSE_WHOLE);
    assert_int_equal(with_params("", 0), FCGI_PARSE_WHOLE);
}

TEST(inconsistent_param_lengths_are_bad)
{
    static const struct {
        const char *content;
        size_t len;
    } bad[] = {{"\1", 1},
               {"\200", 1},
               {"\200\0\0", 3},
               {"\1\200\0\0", 4},
               {"\1\1a", 3},
               {"\2\0a", 3},
               {"\377\377\377\377\377\377\377\377", 8},
               {"\200\0\0\1\377\377\377\377a", 9},
               {"\0\1a", 3},
               {"\0\0", 2},
               {"\1\0a\1", 4},
               {"\3\0a=b", 5},
               {"\2\0a\0", 4},
               {"\1\2ab\0", 5}};
    for (size_t i = 0; i < NELEMS(bad); i++)
        assert_int_equal(with_params(bad[i].content, bad[i].len), FCGI_PARSE_BAD);
}

TEST(request_size_limit_is_exact)
{
    static const char body[0xffff];
    add_begin(1, 1);
    add_params(ONE_PARAM);
    size_t rest = FCGI_PARSE_MAX - wire.len - 16;
    add_record(STDIN, 1, body, rest, 0);
    assert_int_equal(check(), FCGI_PARSE_PARTIAL);
    add_record(STDIN, 1, NULL, 0, 0);
    assert_int_equal(wire.len, FCGI_PARSE_MAX);
    assert_int_equal(check(), FCGI_PARSE_WHOLE);
    buf_reset(&wire);
    add_begin(1, 1);
    add_params(ONE_PARAM);
    add_record(STDIN, 1, body, rest, 1);
    add_record(STDIN, 1, NULL, 0, 0);
    assert_int_equal(check(), FCGI_PARSE_BAD);
    wire.len = FCGI_PARSE_MAX; /* the limit of a peek at the socket */
    assert_int_equal(check(), FCGI_PARSE_BAD);
}

TEST(maximum_param_length_does_not_overflow)
{
    static const char body[0x4000] = {1};
    add_begin(1, 1);
    while (wire.len < FCGI_PARSE_MAX)
        add_record(PARAMS, 1, body, sizeof(body), 0);
    wire.len = FCGI_PARSE_MAX;
    assert_int_equal(check(), FCGI_PARSE_BAD);
}

#define CHECK(test) cmocka_unit_test_setup_teardown(test, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHECK(complete_request_is_accepted),
        CHECK(every_prefix_of_a_request_is_partial),
        CHECK(random_mutations_never_read_past_the_end),
        CHECK(padding_that_libfcgi_would_parse_as_records_is_bad),
        CHECK(data_after_the_request_is_bad),
        CHECK(second_request_after_the_first_is_bad),
        CHECK(request_begins_with_begin_request_for_a_responder),
        CHECK(management_records_are_bad_anywhere),
        CHECK(unknown_version_is_bad),
        CHECK(all_records_have_the_same_nonzero_request_id),
        CHECK(streams_are_in_order_and_end_once),
        CHECK(begin_record_of_wrong_length_is_bad),
        CHECK(param_lengths_have_one_or_four_bytes),
        CHECK(inconsistent_param_lengths_are_bad),
        CHECK(request_size_limit_is_exact),
        CHECK(maximum_param_length_does_not_overflow),
    };
    return cmocka_run_group_tests_name("records", tests, NULL, NULL);
}
