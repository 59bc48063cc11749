/* The wait that a client requests, in its query string or its Prefer header. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "request/client_request.h"

struct wish {
    const char *text;
    int seconds;
};

TEST(wait_in_the_query_is_in_seconds)
{
    static const struct wish wishes[] = {
        {"wait=10", 10},  {"wait=1", 1},   {"wait=0", 0},     {"a=b&wait=10&c", 10},     {"wait=%31%30", 10},
        {"wait=60", 60},  {"wait=61", 60}, {"wait=3600", 60}, {"wait=999999999999", 60}, {"wait=007", 7},
        {"waiting=5", 0}, {"await=5", 0},  {"Wait=5", 0},     {"a=wait=5", 0},           {"", 0},
        {"&&", 0},
    };
    for (size_t i = 0; i < NELEMS(wishes); i++)
        assert_int_equal(client_request_wait(wishes[i].text, NULL), wishes[i].seconds);
    assert_int_equal(client_request_wait(NULL, NULL), 0);
}

TEST(malformed_wait_in_the_query_is_an_error)
{
    static const char *const bad[] = {
        "wait",
        "wait=",
        "wait&a=b",
        "wait=-1",
        "wait=+5",
        "wait=1.5",
        "wait=10s",
        "wait= 5",
        "wait=5 ",
        "wait=x",
        "wait=0x5",
        "wait=%",
        "wait=%00",
        "wait=5&wait=5",
        "wait=99999999999999999999",
        "wait=00000000000000000000000000000000000000000000000000000000000000000000000000000005"};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        if (client_request_wait(bad[i], "wait=5") != -1)
            fail_msg("taken: %s", bad[i]);
    }
}

TEST(wait_in_the_header_follows_rfc_7240)
{
    static const struct wish wishes[] = {{"wait=10", 10},
                                         {"Wait=10", 10},
                                         {"respond-async, wait=10", 10},
                                         {"respond-async,wait=10", 10},
                                         {"wait = 10", 10},
                                         {"wait=\"10\"", 10},
                                         {"wait=10; foo=bar, baz", 10},
                                         {" \t, wait=10", 10},
                                         {"wait=100", 60},
                                         {"wait=5, wait=20", 5},
                                         {"handling=lenient; wait", 0},
                                         {"respond-async", 0},
                                         {"waiting=5", 0},
                                         {"", 0}};
    for (size_t i = 0; i < NELEMS(wishes); i++) {
        if (client_request_wait(NULL, wishes[i].text) != wishes[i].seconds)
            fail_msg("%s: %d", wishes[i].text, client_request_wait(NULL, wishes[i].text));
    }
}

TEST(malformed_wait_in_the_header_is_ignored)
{
    static const char *const bad[] = {
        "wait",    "wait=",     "wait=,",   "wait=-5", "wait=x",   "wait=5.5",
        "wait=\"", "wait=\"\"", "wait ",    "wait 5",  "wait;=5x", "wait=11111111111111111111111111111111111",
        "=5",      ",,,",       "wait =x=5"};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        if (client_request_wait(NULL, bad[i]) != 0)
            fail_msg("taken: %s", bad[i]);
    }
}

TEST(query_takes_precedence_over_the_header)
{
    assert_int_equal(client_request_wait("wait=5", "wait=20"), 5);
    assert_int_equal(client_request_wait("wait=0", "wait=20"), 0);
    assert_int_equal(client_request_wait("a=b", "wait=20"), 20);
}

TEST(unified_view_can_be_preferred)
{
    assert_true(client_request_prefers_unified("view=unified"));
    assert_true(client_request_prefers_unified("wait=5, View = \"Unified\"; x=y"));
    assert_false(client_request_prefers_unified(NULL));
    assert_false(client_request_prefers_unified("view=native, view=unified"));
    assert_false(client_request_prefers_unified("x=\"view=unified\", unified, view, view=, review=unified"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wait_in_the_query_is_in_seconds),
        cmocka_unit_test(malformed_wait_in_the_query_is_an_error),
        cmocka_unit_test(wait_in_the_header_follows_rfc_7240),
        cmocka_unit_test(malformed_wait_in_the_header_is_ignored),
        cmocka_unit_test(query_takes_precedence_over_the_header),
        cmocka_unit_test(unified_view_can_be_preferred),
    };
    return cmocka_run_group_tests_name("client_request", tests, NULL, NULL);
}
