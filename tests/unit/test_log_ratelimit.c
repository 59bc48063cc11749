/* What is kept out of a log, and what is told of it. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "lib/log_ratelimit.h"

static const int64_t now = 1000000;
static struct log_ratelimit flood;
static char told[512]; /* what the log has got, in short */

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

/* `n` lines, no two of them the same; how many of them may be written. */
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

TEST(lines_that_differ_are_all_told)
{
    say("a", now);
    say("b", now);
    say("a", now);
    report(LOG_RATELIMIT_END, now);
    assert_string_equal(told, "a b a ");
}

TEST(the_same_again_is_counted_until_another_line_comes)
{
    for (int i = 0; i < 58; i++)
        say("a", now + i);
    assert_string_equal(told, "a ");
    say("b", now + 60);
    assert_string_equal(told, "a a*57 b ");
}

TEST(or_until_some_seconds_have_passed)
{
    say("a", now);
    say("a", now + 1);
    report(LOG_RATELIMIT_TICK, now + LOG_RATELIMIT_REPEAT_MS - 1);
    assert_string_equal(told, "a ");
    report(LOG_RATELIMIT_TICK, now + LOG_RATELIMIT_REPEAT_MS);
    assert_string_equal(told, "a a*1 ");
}

TEST(what_goes_on_and_on_is_told_as_a_count_each_time)
{
    say("a", now);
    for (int i = 1; i <= 12; i++) {
        say("a", now + i * 1000);
        report(LOG_RATELIMIT_TICK, now + i * 1000);
    }
    assert_string_equal(told, "a a*5 a*5 ");
}

TEST(after_some_seconds_without_it_a_line_is_new)
{
    say("a", now);
    say("a", now + LOG_RATELIMIT_REPEAT_MS);
    assert_string_equal(told, "a a ");
}

TEST(the_same_words_of_another_level_are_another_line)
{
    say_as(LOG_WARN, "a", now);
    say_as(LOG_ERROR, "a", now);
    assert_string_equal(told, "a a ");
}

TEST(at_the_end_all_that_was_counted_is_told)
{
    say("a", now);
    say("a", now);
    report(LOG_RATELIMIT_END, now);
    assert_string_equal(told, "a a*1 ");
}

TEST(only_so_many_lines_a_second_are_told_and_how_many_were_not)
{
    assert_int_equal(say_many(LOG_WARN, LOG_RATELIMIT_PER_SECOND + 7, now), LOG_RATELIMIT_PER_SECOND);
    report(LOG_RATELIMIT_TICK, now + LOG_RATELIMIT_SECOND_MS - 1);
    assert_string_equal(told, "");
    report(LOG_RATELIMIT_TICK, now + LOG_RATELIMIT_SECOND_MS);
    assert_string_equal(told, "dropped*7 ");
    assert_int_equal(say_many(LOG_WARN, 1, now + LOG_RATELIMIT_SECOND_MS), 1);
}

TEST(two_lines_in_turn_are_a_flood_too)
{
    for (int i = 0; i < 1000; i++)
        say(i % 2 ? "b" : "a", now);
    assert_int_equal(strlen(told), strlen("a ") * LOG_RATELIMIT_PER_SECOND);
    told[0] = '\0';
    report(LOG_RATELIMIT_END, now);
    assert_string_equal(told, "b*450 dropped*450 ");
}

TEST(a_flood_of_warnings_leaves_room_for_an_error)
{
    say_many(LOG_WARN, LOG_RATELIMIT_PER_SECOND + 7, now);
    assert_int_equal(say_many(LOG_ERROR, 1, now), 1);
    assert_int_equal(say_many(LOG_INFO, 1, now), 1);
}

TEST(a_line_in_the_next_second_comes_behind_the_count)
{
    say_many(LOG_WARN, LOG_RATELIMIT_PER_SECOND + 7, now);
    say("a", now + LOG_RATELIMIT_SECOND_MS);
    assert_string_equal(told, "dropped*7 a ");
}

TEST(a_text_is_logged_once)
{
    struct log_once once = {0};
    assert_true(log_once(&once, "a", now));
    assert_true(log_once(&once, "b", now));
    assert_false(log_once(&once, "a", now + 1000000));
    log_once_reset(&once);
    assert_true(log_once(&once, "a", now));
}

TEST(a_text_is_logged_again_after_its_time)
{
    struct log_once once = {.again_ms = 1000};
    assert_true(log_once(&once, "a", now));
    assert_false(log_once(&once, "a", now + 999));
    assert_true(log_once(&once, "a", now + 1000));
    assert_false(log_once(&once, "a", now + 1999));
}

TEST(no_more_than_so_many_texts_are_logged)
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
        cmocka_unit_test_setup(lines_that_differ_are_all_told, begin),
        cmocka_unit_test_setup(the_same_again_is_counted_until_another_line_comes, begin),
        cmocka_unit_test_setup(or_until_some_seconds_have_passed, begin),
        cmocka_unit_test_setup(what_goes_on_and_on_is_told_as_a_count_each_time, begin),
        cmocka_unit_test_setup(after_some_seconds_without_it_a_line_is_new, begin),
        cmocka_unit_test_setup(the_same_words_of_another_level_are_another_line, begin),
        cmocka_unit_test_setup(at_the_end_all_that_was_counted_is_told, begin),
        cmocka_unit_test_setup(only_so_many_lines_a_second_are_told_and_how_many_were_not, begin),
        cmocka_unit_test_setup(two_lines_in_turn_are_a_flood_too, begin),
        cmocka_unit_test_setup(a_flood_of_warnings_leaves_room_for_an_error, begin),
        cmocka_unit_test_setup(a_line_in_the_next_second_comes_behind_the_count, begin),
        cmocka_unit_test(a_text_is_logged_once),
        cmocka_unit_test(a_text_is_logged_again_after_its_time),
        cmocka_unit_test(no_more_than_so_many_texts_are_logged),
    };
    return cmocka_run_group_tests_name("log_ratelimit", tests, NULL, NULL);
}
