/* Whether an upstream may be asked: the breaker and the bucket. */
#include "unit.h"

#include <string.h>

#include "upstream/breaker.h"

static const int64_t now = 1000000;

static struct breaker breaker_with(struct breaker_rules rules)
{
    struct breaker s;
    breaker_init(&s, rules, now);
    return s;
}

#define STANDING(...) breaker_with((struct breaker_rules){__VA_ARGS__})

static void fail_times(struct breaker *s, int times, int64_t at_ms)
{
    for (int i = 0; i < times; i++) {
        assert_int_equal(breaker_ask(s, at_ms), 0);
        breaker_learn(s, BREAKER_FAILED, 0, at_ms);
    }
}

TEST(without_rules_everything_may_be_asked)
{
    struct breaker s = STANDING(.breaker_failures = 0);
    fail_times(&s, 1000, now);
    assert_int_equal(breaker_ask(&s, now), 0);
}

TEST(failures_in_a_row_open_the_breaker)
{
    struct breaker s = STANDING(.breaker_failures = 3, .breaker_pause_ms = 10000);
    fail_times(&s, 2, now);
    assert_int_equal(breaker_ask(&s, now), 0);
    assert_true(breaker_learn(&s, BREAKER_FAILED, 0, now));
    assert_int_equal(breaker_ask(&s, now), 500);
    assert_int_equal(breaker_ask(&s, now + 499), 1);
}

TEST(a_good_answer_between_them_counts_from_anew)
{
    struct breaker s = STANDING(.breaker_failures = 3, .breaker_pause_ms = 10000);
    fail_times(&s, 2, now);
    assert_false(breaker_learn(&s, BREAKER_GOOD, 0, now));
    fail_times(&s, 2, now);
    assert_int_equal(breaker_ask(&s, now), 0);
}

TEST(after_the_pause_one_query_probes)
{
    struct breaker s = STANDING(.breaker_failures = 1, .breaker_pause_ms = 10000);
    fail_times(&s, 1, now);
    assert_int_equal(breaker_ask(&s, now + 500), 0);
    assert_in_range(breaker_ask(&s, now + 500), 1, 1000);
    assert_true(breaker_learn(&s, BREAKER_GOOD, 0, now + 600));
    assert_int_equal(breaker_ask(&s, now + 600), 0);
    assert_int_equal(breaker_ask(&s, now + 600), 0);
}

TEST(a_probe_that_fails_pauses_twice_as_long_up_to_the_most)
{
    static const int64_t pauses[] = {500, 1000, 2000, 4000, 5000, 5000};
    struct breaker s = STANDING(.breaker_failures = 1, .breaker_pause_ms = 5000);
    int64_t at = now;
    for (size_t i = 0; i < NELEMS(pauses); i++) {
        fail_times(&s, 1, at);
        assert_int_equal(breaker_ask(&s, at), pauses[i]);
        at += pauses[i];
    }
    assert_int_equal(breaker_ask(&s, at), 0);
    breaker_learn(&s, BREAKER_GOOD, 0, at);
    fail_times(&s, 1, at);
    assert_int_equal(breaker_ask(&s, at), 500);
}

TEST(chance_spreads_the_pauses_by_a_quarter_at_most)
{
    struct breaker s = STANDING(.breaker_failures = 1, .breaker_pause_ms = 10000);
    assert_int_equal(breaker_ask(&s, now), 0);
    breaker_learn(&s, BREAKER_FAILED, 1, now);
    assert_int_equal(breaker_ask(&s, now), 375);
}

TEST(a_probe_that_says_nothing_is_made_again)
{
    struct breaker s = STANDING(.breaker_failures = 1, .breaker_pause_ms = 10000);
    fail_times(&s, 1, now);
    assert_int_equal(breaker_ask(&s, now + 500), 0);
    assert_false(breaker_learn(&s, BREAKER_NOTHING, 0, now + 500));
    assert_int_equal(breaker_ask(&s, now + 501), 0);
}

TEST(queries_that_end_after_the_breaker_opened_do_not_pause_it_longer)
{
    struct breaker s = STANDING(.breaker_failures = 1, .breaker_pause_ms = 10000);
    for (int i = 0; i < 5; i++)
        assert_int_equal(breaker_ask(&s, now), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(breaker_learn(&s, BREAKER_FAILED, 0, now), i == 0);
    assert_int_equal(breaker_ask(&s, now), 500);
}

TEST(a_bucket_lets_so_many_through_each_second)
{
    struct breaker s = STANDING(.per_second = 5);
    int granted = 0;
    for (int64_t at = now; at < now + 10000; at += 10)
        granted += breaker_ask(&s, at) == 0;
    assert_in_range(granted, 50, 55);
}

TEST(a_bucket_holds_no_more_than_a_second)
{
    struct breaker s = STANDING(.per_second = 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(breaker_ask(&s, now + 3600000), 0);
    int64_t wait_ms = breaker_ask(&s, now + 3600000);
    assert_in_range(wait_ms, 1, 201);
    assert_int_equal(breaker_ask(&s, now + 3600000 + wait_ms), 0);
}

TEST(only_news_is_noted)
{
    struct breaker s = STANDING(.per_second = 0);
    char very_long[400];
    memset(very_long, 'x', sizeof(very_long) - 1);
    very_long[sizeof(very_long) - 1] = '\0';
    assert_false(breaker_note(&s, NULL, 0));
    assert_true(breaker_note(&s, "refused", 1000));
    assert_false(breaker_note(&s, "refused", 2000));
    assert_true(breaker_note(&s, "timed out", 2000));
    assert_false(breaker_note(&s, "refused", 3000));
    assert_true(breaker_note(&s, very_long, 3000));
    assert_false(breaker_note(&s, very_long, 3000));
    assert_true(breaker_note(&s, "refused", 62000));
    assert_true(breaker_note(&s, NULL, 62000));
    assert_false(breaker_note(&s, NULL, 62000));
}

TEST(a_single_trouble_among_good_answers_is_said_once_a_minute)
{
    struct breaker s;
    breaker_init(&s, (struct breaker_rules){0}, 0);
    assert_true(breaker_note(&s, "an error", 1000));
    for (int64_t at_ms = 2000; at_ms < 60000; at_ms += 1000) {
        assert_false(breaker_note(&s, NULL, at_ms));
        assert_false(breaker_note(&s, "an error", at_ms));
    }
    assert_true(breaker_note(&s, "an error", 61000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_single_trouble_among_good_answers_is_said_once_a_minute),
        cmocka_unit_test(without_rules_everything_may_be_asked),
        cmocka_unit_test(failures_in_a_row_open_the_breaker),
        cmocka_unit_test(a_good_answer_between_them_counts_from_anew),
        cmocka_unit_test(after_the_pause_one_query_probes),
        cmocka_unit_test(a_probe_that_fails_pauses_twice_as_long_up_to_the_most),
        cmocka_unit_test(chance_spreads_the_pauses_by_a_quarter_at_most),
        cmocka_unit_test(a_probe_that_says_nothing_is_made_again),
        cmocka_unit_test(queries_that_end_after_the_breaker_opened_do_not_pause_it_longer),
        cmocka_unit_test(a_bucket_lets_so_many_through_each_second),
        cmocka_unit_test(a_bucket_holds_no_more_than_a_second),
        cmocka_unit_test(only_news_is_noted),
    };
    return cmocka_run_group_tests_name("breaker", tests, NULL, NULL);
}
