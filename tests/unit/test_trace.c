/* Validation of traceparent headers, and the current trace. */
#include "unit.h"

#include "lib/trace.h"

#define REST "-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static void assert_read(const char *given, const char *expected)
{
    assert_string_equal(trace_read(given).parent, expected);
}

TEST(valid_traceparent_is_accepted_unchanged)
{
    assert_read("00" REST, "00" REST);
    assert_read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff");
}

TEST(later_version_is_treated_as_version_00)
{
    assert_read("01" REST, "00" REST);
    assert_read("cc" REST "-what-comes-later", "00" REST);
    assert_read("cc" REST "-", "00" REST);
    assert_read("cc" REST ".", "");
    assert_read("00" REST "-more", "");
    assert_read("ff" REST, "");
}

TEST(malformed_traceparent_is_rejected)
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

TEST(leaving_a_trace_restores_the_outer_one)
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
        cmocka_unit_test(valid_traceparent_is_accepted_unchanged),
        cmocka_unit_test(later_version_is_treated_as_version_00),
        cmocka_unit_test(malformed_traceparent_is_rejected),
        cmocka_unit_test(leaving_a_trace_restores_the_outer_one),
    };
    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
