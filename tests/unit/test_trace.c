/* Which header is a trace, and which trace is the present one. */
#include "unit.h"

#include "lib/trace.h"

#define REST "-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static void assert_read(const char *given, const char *expected)
{
    assert_string_equal(trace_read(given).parent, expected);
}

TEST(a_trace_is_taken_as_it_is)
{
    assert_read("00" REST, "00" REST);
    assert_read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff");
}

TEST(a_later_version_counts_as_the_known_one)
{
    assert_read("01" REST, "00" REST);
    assert_read("cc" REST "-what-comes-later", "00" REST);
    assert_read("cc" REST "-", "00" REST);
    assert_read("cc" REST ".", "");
    assert_read("00" REST "-more", "");
    assert_read("ff" REST, "");
}

TEST(what_is_malformed_is_none)
{
    assert_read(NULL, "");
    assert_read("", "");
    assert_read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", "");
    assert_read("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", "");
    assert_read("00-4bf92f3577b34da6a3ce929d0e0e47366-0f067aa0ba902b7-01", "");
    assert_read("00-00000000000000000000000000000000-00f067aa0ba902b7-01", "");
    assert_read("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", "");
    assert_read("0x" REST, "");
    assert_read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g", "");
}

TEST(who_leaves_a_trace_is_in_the_outer_one)
{
    const struct trace first = {"first"}, second = {"second"};
    assert_string_equal(trace_now().parent, "");
    const struct trace *outer = trace_enter(&first), *inner = trace_enter(&second);
    assert_string_equal(trace_now().parent, "second");
    trace_enter(inner);
    assert_string_equal(trace_now().parent, "first");
    trace_enter(outer);
    assert_string_equal(trace_now().parent, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trace_is_taken_as_it_is),
        cmocka_unit_test(a_later_version_counts_as_the_known_one),
        cmocka_unit_test(what_is_malformed_is_none),
        cmocka_unit_test(who_leaves_a_trace_is_in_the_outer_one),
    };
    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
