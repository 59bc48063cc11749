/* Suppressed log lines, and the lines that report them. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "lib/log.h"

static const int64_t now = 1000000;
static struct log_ratelimit flood;
static char told[512]; /* what was logged, abbreviated */

static void report(enum log_ratelimit_when when, int64_t at_ms)
{
    struct log_ratelimit_report r;
    while (log_ratelimit_report(&flood, when, at_ms, &r)) {
        size_t len = strlen(told);
        snprintf(told + len, sizeof(told) - len, "%s*%lld ", r.message ? r.message : "dropped",
                 (long long)r.n);
    }
}

static void say_as(enum log_level level, const char *message, int64_t at_ms)
{
    size_t len;
    if (!log_ratelimit_take(&flood, level, message, at_ms))
        return;
    report(LOG_RATELIMIT_LINE, at_ms);
    log_ratelimit_wrote(&flood, level, message, at_ms);
    len = strlen(told);
    snprintf(told + len, sizeof(told) - len, "%s ", message);
}

static void say(const char *message, int64_t at_ms)
{
    say_as(LOG_WARN, message, at_ms);
}

/* Logs `n` different lines; returns how many were written. */
static int say_many(enum log_level level, int n, int64_t at_ms)
{
    static int number;
    char message[32];
    int passed = 0;
    for (int i = 0; i < n; i++) {
        snprintf(message, sizeof(message), "line %d", ++number);
        if (log_ratelimit_take(&flood, level, message, at_ms)) {
            log_ratelimit_wrote(&flood, level, message, at_ms);
            passed++;
        }
    }
    return passed;
}

static int begin(void **state)
{
    (void)state;
    memset(&flood, 0, sizeof(flood));
    told[0] = '\0';
    return 0;
}

TEST(different_lines_are_all_logged)
{
    say("a", now);
    say("b", now);
    say("a", now);
    report(LOG_RATELIMIT_END, now);
    assert_string_equal(told, "a b a ");
}

TEST(repeated_line_is_counted_until_another_one_comes)
{
    for (int i = 0; i < 58; i++)
        say("a", now + i);
    assert_string_equal(told, "a ");
    say("b", now + 60);
    assert_string_equal(told, "a a*57 b ");
}

TEST(repeated_line_is_counted_for_some_seconds_at_most)
{
    say("a", now);
    say("a", now + 1);
    report(LOG_RATELIMIT_TICK, now + LOG_RATELIMIT_REPEAT_MS - 1);
    assert_string_equal(told, "a ");
    report(LOG_RATELIMIT_TICK, now + LOG_RATELIMIT_REPEAT_MS);
    assert_string_equal(told, "a a*1 ");
}

TEST(continuing_repetition_is_logged_as_a_count_each_time)
{
    say("a", now);
    for (int i = 1; i <= 12; i++) {
        say("a", now + i * 1000);
        report(LOG_RATELIMIT_TICK, now + i * 1000);
    }
    assert_string_equal(told, "a a*5 a*5 ");
}

TEST(line_is_new_after_some_seconds_without_it)
{
    say("a", now);
    say("a", now + LOG_RATELIMIT_REPEAT_MS);
    assert_string_equal(told, "a a ");
}

TEST(same_text_at_another_level_is_another_line)
{
    say_as(LOG_WARN, "a", now);
    say_as(LOG_ERROR, "a", now);
    assert_string_equal(told, "a a ");
}

TEST(pending_counts_are_logged_at_the_end)
{
    say("a", now);
    say("a", now);
    report(LOG_RATELIMIT_END, now);
    assert_string_equal(told, "a a*1 ");
}

TEST(lines_over_the_rate_limit_are_counted)
{
    assert_int_equal(say_many(LOG_WARN, LOG_RATELIMIT_PER_SECOND + 7, now), LOG_RATELIMIT_PER_SECOND);
    report(LOG_RATELIMIT_TICK, now + LOG_RATELIMIT_SECOND_MS - 1);
    assert_string_equal(told, "");
    report(LOG_RATELIMIT_TICK, now + LOG_RATELIMIT_SECOND_MS);
    assert_string_equal(told, "dropped*7 ");
    assert_int_equal(say_many(LOG_WARN, 1, now + LOG_RATELIMIT_SECOND_MS), 1);
}

TEST(alternating_lines_are_rate_limited)
{
    for (int i = 0; i < 1000; i++)
        say(i % 2 ? "b" : "a", now);
    assert_int_equal(strlen(told), strlen("a ") * LOG_RATELIMIT_PER_SECOND);
    told[0] = '\0';
    report(LOG_RATELIMIT_END, now);
    assert_string_equal(told, "b*450 dropped*450 ");
}

TEST(error_is_logged_during_a_flood_of_warnings)
{
    say_many(LOG_WARN, LOG_RATELIMIT_PER_SECOND + 7, now);
    assert_int_equal(say_many(LOG_ERROR, 1, now), 1);
    assert_int_equal(say_many(LOG_INFO, 1, now), 1);
}

TEST(count_precedes_the_line_of_the_next_second)
{
    say_many(LOG_WARN, LOG_RATELIMIT_PER_SECOND + 7, now);
    say("a", now + LOG_RATELIMIT_SECOND_MS);
    assert_string_equal(told, "dropped*7 a ");
}

TEST(text_is_logged_once)
{
    struct log_once once = {0};
    assert_true(log_once(&once, "a", now));
    assert_true(log_once(&once, "b", now));
    assert_false(log_once(&once, "a", now + 1000000));
    log_once_reset(&once);
    assert_true(log_once(&once, "a", now));
}

TEST(text_is_logged_again_after_its_interval)
{
    struct log_once once = {.again_ms = 1000};
    assert_true(log_once(&once, "a", now));
    assert_false(log_once(&once, "a", now + 999));
    assert_true(log_once(&once, "a", now + 1000));
    assert_false(log_once(&once, "a", now + 1999));
}

TEST(number_of_texts_is_limited)
{
    struct log_once once = {.again_ms = 1000};
    char text[LOG_ONCE_TEXT + 10];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    for (int i = 0; i < LOG_ONCE_MAX; i++) {
        text[0] = (char)('A' + i);
        assert_false(log_once_full(&once));
        assert_true(log_once(&once, text, now + i));
        assert_false(log_once(&once, text, now + i));
    }
    assert_true(log_once_full(&once));
    assert_false(log_once(&once, "one more", now + 999));
    assert_true(log_once(&once, "one more", now + 1000));
    assert_false(log_once(&once, "and another", now + 1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(different_lines_are_all_logged, begin),
        cmocka_unit_test_setup(repeated_line_is_counted_until_another_one_comes, begin),
        cmocka_unit_test_setup(repeated_line_is_counted_for_some_seconds_at_most, begin),
        cmocka_unit_test_setup(continuing_repetition_is_logged_as_a_count_each_time, begin),
        cmocka_unit_test_setup(line_is_new_after_some_seconds_without_it, begin),
        cmocka_unit_test_setup(same_text_at_another_level_is_another_line, begin),
        cmocka_unit_test_setup(pending_counts_are_logged_at_the_end, begin),
        cmocka_unit_test_setup(lines_over_the_rate_limit_are_counted, begin),
        cmocka_unit_test_setup(alternating_lines_are_rate_limited, begin),
        cmocka_unit_test_setup(error_is_logged_during_a_flood_of_warnings, begin),
        cmocka_unit_test_setup(count_precedes_the_line_of_the_next_second, begin),
        cmocka_unit_test(text_is_logged_once),
        cmocka_unit_test(text_is_logged_again_after_its_interval),
        cmocka_unit_test(number_of_texts_is_limited),
    };
    return cmocka_run_group_tests_name("log_ratelimit", tests, NULL, NULL);
}
