/* Whether a query may be sent to an upstream: the breaker and the token bucket. */
#include "unit.h"

#include <string.h>

#include "upstream/breaker.h"

static const int64_t now = 1000000;

static struct bucket no_limit;

static struct breaker breaker_with(int64_t max_failures, int64_t max_pause_ms)
{
    struct breaker s;
    breaker_init(&s, max_failures, max_pause_ms);
    return s;
}

static struct bucket bucket_with(int64_t per_second, bool shared)
{
    struct bucket b;
    bucket_init(&b, per_second, shared, now);
    return b;
}

static int64_t ask(struct breaker *s, int64_t at_ms)
{
    return breaker_try(s, &no_limit, true, at_ms);
}

static int64_t ask_unseen(struct breaker *s, int64_t at_ms)
{
    return breaker_try(s, &no_limit, false, at_ms);
}

static bool learn(struct breaker *s, enum breaker_lesson lesson, double random, int64_t at_ms)
{
    return breaker_learn(s, lesson, true, random, at_ms);
}

static void fail_times(struct breaker *s, int times, int64_t at_ms)
{
    for (int i = 0; i < times; i++) {
        assert_int_equal(ask(s, at_ms), 0);
        learn(s, BREAKER_FAILED, 0, at_ms);
    }
}

static struct breaker opened(void)
{
    struct breaker s = breaker_with(1, 10000);
    fail_times(&s, 1, now);
    return s;
}

TEST(without_limits_every_query_is_sent)
{
    struct breaker s = breaker_with(0, 10000);
    fail_times(&s, 1000, now);
    assert_int_equal(ask(&s, now), 0);
}

TEST(consecutive_failures_open_the_breaker)
{
    struct breaker s = breaker_with(3, 10000);
    fail_times(&s, 2, now);
    assert_int_equal(ask(&s, now), 0);
    assert_true(learn(&s, BREAKER_FAILED, 0, now));
    assert_int_equal(ask(&s, now), 500);
    assert_int_equal(ask(&s, now + 499), 1);
}

TEST(success_resets_the_failure_count)
{
    struct breaker s = breaker_with(3, 10000);
    fail_times(&s, 2, now);
    assert_false(learn(&s, BREAKER_GOOD, 0, now));
    fail_times(&s, 2, now);
    assert_int_equal(ask(&s, now), 0);
}

TEST(one_query_probes_after_the_pause)
{
    struct breaker s = opened();
    assert_int_equal(ask(&s, now + 500), 0);
    assert_in_range(ask(&s, now + 500), 1, 1000);
    assert_true(learn(&s, BREAKER_GOOD, 0, now + 600));
    assert_int_equal(ask(&s, now + 600), 0);
    assert_int_equal(ask(&s, now + 600), 0);
}

TEST(failed_probe_doubles_the_pause_up_to_the_maximum)
{
    static const int64_t pauses[] = {500, 1000, 2000, 4000, 5000, 5000};
    struct breaker s = breaker_with(1, 5000);
    int64_t at = now;
    for (size_t i = 0; i < NELEMS(pauses); i++) {
        fail_times(&s, 1, at);
        assert_int_equal(ask(&s, at), pauses[i]);
        at += pauses[i];
    }
    assert_int_equal(ask(&s, at), 0);
    learn(&s, BREAKER_GOOD, 0, at);
    fail_times(&s, 1, at);
    assert_int_equal(ask(&s, at), 500);
}

TEST(jitter_is_at_most_a_quarter_of_the_pause)
{
    struct breaker s = breaker_with(1, 10000);
    assert_int_equal(ask(&s, now), 0);
    learn(&s, BREAKER_FAILED, 1, now);
    assert_int_equal(ask(&s, now), 375);
}

TEST(inconclusive_probe_is_repeated)
{
    struct breaker s = opened();
    assert_int_equal(ask(&s, now + 500), 0);
    assert_false(learn(&s, BREAKER_NOTHING, 0, now + 500));
    assert_int_equal(ask_unseen(&s, now + 501), 0);
    assert_int_equal(ask(&s, now + 501), 0);
}

TEST(late_failures_do_not_extend_the_pause)
{
    struct breaker s = breaker_with(1, 10000);
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask(&s, now), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(learn(&s, BREAKER_FAILED, 0, now), i == 0);
    assert_int_equal(ask(&s, now), 500);
}

TEST(seen_task_probes_beside_an_unseen_one)
{
    struct breaker s = opened();
    assert_int_equal(ask_unseen(&s, now + 500), 0);
    assert_in_range(ask_unseen(&s, now + 500), 1, 1000);
    assert_int_equal(ask(&s, now + 500), 0);
    assert_in_range(ask(&s, now + 500), 1, 1000);
    assert_false(breaker_learn(&s, BREAKER_NOTHING, false, 0, now + 510));
    assert_in_range(ask(&s, now + 510), 1, 1000); /* its probe is still under way */
    assert_true(learn(&s, BREAKER_GOOD, 0, now + 520));
}

TEST(inconclusive_probe_pauses_only_unseen_tasks)
{
    struct breaker s = opened();
    assert_int_equal(ask_unseen(&s, now + 500), 0);
    assert_false(breaker_learn(&s, BREAKER_NOTHING, false, 0, now + 510));
    assert_int_equal(ask_unseen(&s, now + 510), 1000);
    assert_int_equal(ask(&s, now + 510), 0);
}

TEST(bucket_limits_queries_per_second)
{
    struct breaker s = breaker_with(0, 10000);
    struct bucket b = bucket_with(5, false);
    int granted = 0;
    for (int64_t at = now; at < now + 10000; at += 10)
        granted += breaker_try(&s, &b, true, at) == 0;
    assert_in_range(granted, 50, 55);
}

TEST(bucket_holds_at_most_one_second)
{
    struct breaker s = breaker_with(0, 10000);
    struct bucket b = bucket_with(5, false);
    for (int i = 0; i < 5; i++)
        assert_int_equal(breaker_try(&s, &b, true, now + 3600000), 0);
    int64_t wait_ms = breaker_try(&s, &b, true, now + 3600000);
    assert_in_range(wait_ms, 1, 201);
    assert_int_equal(breaker_try(&s, &b, true, now + 3600000 + wait_ms), 0);
}

TEST(shared_bucket_keeps_tokens_for_other_teams)
{
    struct breaker greedy = breaker_with(0, 10000), modest = breaker_with(0, 10000);
    struct bucket b = bucket_with(20, true);
    int granted = 0;
    for (int64_t at = now; at < now + 10000; at += 10)
        granted += breaker_try(&greedy, &b, true, at) == 0;
    assert_in_range(granted, 195, 220);
    for (int i = 0; i < 3; i++)
        assert_int_equal(breaker_try(&modest, &b, true, now + 10000), 0);
    int64_t at = now + 10000, wait_ms;
    while ((wait_ms = breaker_try(&greedy, &b, true, at)) > 0)
        at += wait_ms;
    assert_in_range(at, now + 10001, now + 11000);
}

TEST(only_changes_are_reported)
{
    struct error_notes s = {0};
    char very_long[400];
    memset(very_long, 'x', sizeof(very_long) - 1);
    very_long[sizeof(very_long) - 1] = '\0';
    assert_false(error_note(&s, NULL, 0));
    assert_true(error_note(&s, "refused", 1000));
    assert_false(error_note(&s, "refused", 2000));
    assert_true(error_note(&s, "timed out", 2000));
    assert_false(error_note(&s, "refused", 3000));
    assert_true(error_note(&s, very_long, 3000));
    assert_false(error_note(&s, very_long, 3000));
    assert_true(error_note(&s, "refused", 62000));
    assert_true(error_note(&s, NULL, 62000));
    assert_false(error_note(&s, NULL, 62000));
}

TEST(isolated_failure_is_reported_once_a_minute)
{
    struct error_notes s = {0};
    assert_true(error_note(&s, "an error", 1000));
    for (int64_t at_ms = 2000; at_ms < 60000; at_ms += 1000) {
        assert_false(error_note(&s, NULL, at_ms));
        assert_false(error_note(&s, "an error", at_ms));
    }
    assert_true(error_note(&s, "an error", 61000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(isolated_failure_is_reported_once_a_minute),
        cmocka_unit_test(without_limits_every_query_is_sent),
        cmocka_unit_test(consecutive_failures_open_the_breaker),
        cmocka_unit_test(success_resets_the_failure_count),
        cmocka_unit_test(one_query_probes_after_the_pause),
        cmocka_unit_test(failed_probe_doubles_the_pause_up_to_the_maximum),
        cmocka_unit_test(jitter_is_at_most_a_quarter_of_the_pause),
        cmocka_unit_test(inconclusive_probe_is_repeated),
        cmocka_unit_test(late_failures_do_not_extend_the_pause),
        cmocka_unit_test(seen_task_probes_beside_an_unseen_one),
        cmocka_unit_test(inconclusive_probe_pauses_only_unseen_tasks),
        cmocka_unit_test(shared_bucket_keeps_tokens_for_other_teams),
        cmocka_unit_test(bucket_limits_queries_per_second),
        cmocka_unit_test(bucket_holds_at_most_one_second),
        cmocka_unit_test(only_changes_are_reported),
    };
    return cmocka_run_group_tests_name("breaker", tests, NULL, NULL);
}
