/* One line of the log, in each format. */
#include "unit.h"

#include <string.h>

#include "lib/log.h"

static const int64_t then = 1736867746123; /* 2025-01-14T15:15:46.123Z */
static const char trace[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

static void assert_line(enum log_format format, bool for_journal, struct log_entry line, const char *expected)
{
    char out[LOG_LINE_MAX + 1];
    line.now_ms = then;
    line.pid = 42;
    size_t len = log_format_entry(format, for_journal, &line, out);
    out[len] = '\0';
    assert_string_equal(out, expected);
}

#define LINE(...) ((struct log_entry){.process = "worker 1", __VA_ARGS__})
#define BARE(...) ((struct log_entry){.process = "", __VA_ARGS__})

TEST(text_line_has_time_level_and_process)
{
    assert_line(LOG_TEXT, false, LINE(.level = LOG_WARN, .message = "Redis is away"),
                "2025-01-14T15:15:46.123Z warn worker 1: Redis is away\n");
    assert_line(LOG_TEXT, false, BARE(.level = LOG_INFO, .message = "x"),
                "2025-01-14T15:15:46.123Z info x\n");
}

TEST(count_and_trace_follow_the_message)
{
    assert_line(LOG_TEXT, false, LINE(.level = LOG_ERROR, .message = "x", .repeated = 57, .trace = trace),
                "2025-01-14T15:15:46.123Z error worker 1: x (repeated 57 times) "
                "trace=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n");
    assert_line(LOG_TEXT, false, LINE(.level = LOG_ERROR, .message = "x", .repeated = 1),
                "2025-01-14T15:15:46.123Z error worker 1: x (repeated once)\n");
}

TEST(journal_line_has_a_priority_and_no_time)
{
    static const char *const expected[] = {"<7>worker 1: x\n", "<6>worker 1: x\n", "<4>worker 1: x\n",
                                           "<3>worker 1: x\n"};
    for (int level = LOG_DEBUG; level <= LOG_ERROR; level++)
        assert_line(LOG_TEXT, true, LINE(.level = (enum log_level)level, .message = "x"), expected[level]);
}

TEST(audit_line_has_members)
{
    static const struct log_audit audit = {
        .event = "claimed", .team = "web", .request_id = "5e0d", .task = "sora/\"t"};
    assert_line(LOG_TEXT, false,
                LINE(.level = LOG_AUDIT, .message = "claimed", .audit = &audit, .trace = trace),
                "2025-01-14T15:15:46.123Z audit worker 1: claimed team=web request=5e0d task=sora/\"t "
                "trace=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n");
    assert_line(LOG_TEXT, true, LINE(.level = LOG_AUDIT, .message = "claimed", .audit = &audit),
                "<5>worker 1: claimed team=web request=5e0d task=sora/\"t\n");
    assert_line(
        LOG_JSON, false, LINE(.level = LOG_AUDIT, .message = "claimed", .audit = &audit),
        "{\"time\":\"2025-01-14T15:15:46.123Z\",\"level\":\"audit\",\"process\":\"worker 1\",\"pid\":42,"
        "\"team\":\"web\",\"request_id\":\"5e0d\",\"task\":\"sora/\\\"t\",\"message\":\"claimed\"}\n");
}

TEST(json_line_is_one_object)
{
    assert_line(
        LOG_JSON, false, LINE(.level = LOG_WARN, .message = "the status \"a\\b\""),
        "{\"time\":\"2025-01-14T15:15:46.123Z\",\"level\":\"warn\",\"process\":\"worker 1\",\"pid\":42,"
        "\"message\":\"the status \\\"a\\\\b\\\"\"}\n");
    assert_line(
        LOG_JSON, true, BARE(.level = LOG_INFO, .message = "x", .repeated = 2, .trace = trace),
        "<6>{\"time\":\"2025-01-14T15:15:46.123Z\",\"level\":\"info\",\"pid\":42,\"repeated\":2,"
        "\"traceparent\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\",\"message\":\"x\"}\n");
}

TEST(longest_message_with_escapes_fits)
{
    char message[LOG_MESSAGE_MAX], out[LOG_LINE_MAX];
    memset(message, '"', sizeof(message) - 1);
    message[sizeof(message) - 1] = '\0';
    const struct log_entry line =
        LINE(.level = LOG_ERROR, .message = message, .trace = trace, .repeated = INT64_MAX);
    size_t len = log_format_entry(LOG_JSON, true, &line, out);
    assert_true(len > 2 * strlen(message) && len < LOG_LINE_MAX - 1);
    assert_memory_equal(out + len - 5, "\\\"\"}\n", 5);
}

TEST(line_that_is_too_long_is_cut_but_ends_as_a_line)
{
    char task[LOG_MESSAGE_MAX], out[LOG_LINE_MAX];
    memset(task, '"', sizeof(task) - 1);
    task[sizeof(task) - 1] = '\0';
    const struct log_audit audit = {.event = task, .team = "web", .request_id = "5e0d", .task = task};
    const struct log_entry line = LINE(.level = LOG_AUDIT, .message = task, .audit = &audit);
    size_t len = log_format_entry(LOG_JSON, true, &line, out);
    assert_true(len <= LOG_LINE_MAX);
    assert_ptr_equal(memchr(out, '\n', len), out + len - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_line_has_time_level_and_process),
        cmocka_unit_test(count_and_trace_follow_the_message),
        cmocka_unit_test(journal_line_has_a_priority_and_no_time),
        cmocka_unit_test(audit_line_has_members),
        cmocka_unit_test(json_line_is_one_object),
        cmocka_unit_test(longest_message_with_escapes_fits),
        cmocka_unit_test(line_that_is_too_long_is_cut_but_ends_as_a_line),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
