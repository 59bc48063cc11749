/* A worker's knowledge of tasks: snapshots, missing tasks, failures; and eviction. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "task/cache.h"

static const int64_t now = 5000, epoch = 1736867741000; /* loop time, and the date of its 0 */
static struct moment at(int64_t ms)
{
    return (struct moment){.ms = ms, .date_ms = epoch + ms};
}

static const struct snapshot_rules rules = {
    .terminal_ttl_ms = 10000, .stale_for_ms = 60000, .poll_min_ms = 2000, .poll_max_ms = 15000};

static char upstream_name[] = "main", provider_name[] = "sora";
static const struct conf_upstream upstream = {.name = upstream_name};
static struct provider provider = {.name = provider_name, .poll = {.min_ms = 2000, .max_ms = 12000}};
static const struct conf_route route = {.provider = &provider, .upstream = &upstream};
static struct task task, other;

static struct cache *cache;
static struct snapshot *snapshot; /* fresh for 10 s, usable for 70 s */

static int start(void **unused __attribute__((unused)))
{
    static const char view[] = "{}";
    static const struct conf_cache conf = {.memory = 1 << 20, .missing_ttl_ms = 5000};
    const struct snapshot draft = {.state = STATE_SUCCEEDED,
                                   .known = true,
                                   .fetched_ms = epoch + now,
                                   .since_ms = now,
                                   .views = {{.data = view, .len = 2}, {.data = view, .len = 2}}};
    task_init(&task, &route, "a");
    task_init(&other, &route, "b");
    cache = cache_new(&conf, 2);
    snapshot = snapshot_new(&draft, &rules, at(now));
    return 0;
}

static int end(void **unused __attribute__((unused)))
{
    cache_free(cache);
    snapshot_unref(snapshot);
    return 0;
}

static struct task numbered_task(const char *prefix, int number)
{
    struct task numbered;
    char id[32];
    snprintf(id, sizeof(id), "%s-%d", prefix, number);
    task_init(&numbered, &route, id);
    return numbered;
}

static void assert_nothing_known(const struct task *of, int64_t at_ms)
{
    struct cache_result cached = cache_get(cache, of, at(at_ms));
    assert_null(cached.snapshot);
    assert_int_equal(cached.problem, PROBLEM_NONE);
    assert_int_equal(cached.left_ms, 0);
}

static void assert_remote_failure(const struct task *of, const struct snapshot *last, int64_t at_ms,
                                  enum problem problem, int64_t left_ms)
{
    int64_t left = 0;
    assert_int_equal(cache_remote_failure(cache, of, last, at_ms, &left), problem);
    assert_int_equal(left, left_ms);
}

/* A snapshot of a task that has just started: fresh for 2 s. */
static struct snapshot *new_running(void)
{
    const struct snapshot draft = {.state = STATE_RUNNING,
                                   .known = true,
                                   .created_ms = epoch + now,
                                   .fetched_ms = epoch + now,
                                   .since_ms = now,
                                   .views = {{.data = "{}", .len = 2}, {.data = "{}", .len = 2}}};
    return snapshot_new(&draft, &rules, at(now));
}

TEST(new_cache_is_empty)
{
    assert_nothing_known(&task, now);
    assert_int_equal(cache_usage(cache).entries, 0);
}

TEST(snapshot_is_fresh_then_stale_then_gone)
{
    cache_keep(cache, &task, snapshot, 0);
    struct cache_result cached = cache_get(cache, &task, at(now + 4000));
    assert_ptr_equal(cached.snapshot, snapshot);
    assert_int_equal(cached.left_ms, 6000);
    cached = cache_get(cache, &task, at(now + 10000));
    assert_ptr_equal(cached.snapshot, snapshot);
    assert_int_equal(cached.left_ms, 0);
    assert_nothing_known(&other, now);
    assert_nothing_known(&task, now + 70000);
}

TEST(unseen_task_is_missing_at_once_and_for_missing_ttl)
{
    assert_true(cache_keep_missing(cache, &task, NULL, now));
    struct cache_result cached = cache_get(cache, &task, at(now + 1000));
    assert_int_equal(cached.problem, PROBLEM_TASK_NOT_FOUND);
    assert_int_equal(cached.left_ms, 4000);
    assert_nothing_known(&task, now + 5000);
    assert_nothing_known(&other, now);
}

TEST(seen_task_is_missing_after_three_reports)
{
    cache_keep(cache, &task, snapshot, 0);
    assert_false(cache_keep_missing(cache, &task, snapshot, now));
    assert_false(cache_keep_missing(cache, &task, snapshot, now));
    assert_ptr_equal(cache_get(cache, &task, at(now)).snapshot, snapshot);
    assert_true(cache_keep_missing(cache, &task, snapshot, now));
    struct cache_result cached = cache_get(cache, &task, at(now));
    assert_null(cached.snapshot);
    assert_int_equal(cached.problem, PROBLEM_TASK_NOT_FOUND);
}

TEST(task_seen_by_another_worker_needs_three_reports_too)
{
    assert_false(cache_keep_missing(cache, &task, snapshot, now));
    assert_false(cache_keep_missing(cache, &task, snapshot, now));
    assert_true(cache_keep_missing(cache, &task, snapshot, now));
}

TEST(new_snapshot_resets_the_count_of_missing)
{
    cache_keep(cache, &task, snapshot, 0);
    cache_keep_missing(cache, &task, snapshot, now);
    cache_keep_missing(cache, &task, snapshot, now);
    cache_keep(cache, &task, snapshot, 0);
    assert_false(cache_keep_missing(cache, &task, snapshot, now));
    cache_keep_missing(cache, &task, snapshot, now);
    cache_keep_failure(cache, &task, snapshot, PROBLEM_UPSTREAM_ERROR, 1, at(now));
    assert_false(cache_keep_missing(cache, &task, snapshot, now));
}

TEST(missing_task_that_appears_is_found)
{
    cache_keep_missing(cache, &task, NULL, now);
    cache_keep(cache, &task, snapshot, 0);
    struct cache_result cached = cache_get(cache, &task, at(now));
    assert_int_equal(cached.problem, PROBLEM_NONE);
    assert_ptr_equal(cached.snapshot, snapshot);
}

TEST(stale_snapshot_is_served_until_the_retry_time_after_a_failure)
{
    cache_keep(cache, &task, snapshot, 0);
    cache_keep_failure(cache, &task, snapshot, PROBLEM_UPSTREAM_TIMEOUT, 0,
                       at(now)); /* the interval is 12 s by now */
    assert_int_equal(cache_get(cache, &task, at(now + 1000)).problem, PROBLEM_NONE); /* it is still fresh */
    struct cache_result cached = cache_get(cache, &task, at(now + 11000));
    assert_int_equal(cached.problem, PROBLEM_UPSTREAM_TIMEOUT);
    assert_int_equal(cached.left_ms, 1000);
    assert_ptr_equal(cached.snapshot, snapshot);
    assert_int_equal(cache_get(cache, &task, at(now + 12000)).problem, PROBLEM_NONE);
}

TEST(failing_task_without_a_snapshot_waits_for_its_minimum_interval)
{
    assert_int_equal(cache_keep_failure(cache, &task, NULL, PROBLEM_UPSTREAM_ERROR, 0, at(now)), 2000);
    struct cache_result cached = cache_get(cache, &task, at(now + 500));
    assert_null(cached.snapshot);
    assert_int_equal(cached.problem, PROBLEM_UPSTREAM_ERROR);
    assert_int_equal(cached.left_ms, 1500);
    assert_nothing_known(&task, now + 2000);
    assert_int_equal(cache_keep_failure(cache, &task, NULL, PROBLEM_UPSTREAM_ERROR, 12000, at(now)), 12000);
    assert_nothing_known(&other, now);
}

TEST(unsent_query_is_not_remembered_as_a_failure)
{
    assert_int_equal(cache_keep_failure(cache, &task, NULL, PROBLEM_UNAVAILABLE, 5000, at(now)), 0);
    assert_int_equal(cache_keep_failure(cache, &task, NULL, PROBLEM_OVERLOADED, 5000, at(now)), 0);
    assert_nothing_known(&task, now);
}

TEST(failure_outlives_an_expired_snapshot)
{
    cache_keep(cache, &task, snapshot, 0);
    cache_keep_failure(cache, &task, snapshot, PROBLEM_UPSTREAM_ERROR, 0, at(now + 65000));
    assert_ptr_equal(cache_get(cache, &task, at(now + 69000)).snapshot, snapshot);
    struct cache_result cached = cache_get(cache, &task, at(now + 71000));
    assert_null(cached.snapshot);
    assert_int_equal(cached.problem, PROBLEM_UPSTREAM_ERROR);
    assert_int_equal(cached.left_ms, 6000);
    assert_int_equal(cache_usage(cache).entries, 0);
    assert_nothing_known(&task, now + 77000);
}

TEST(new_snapshot_clears_a_failure)
{
    cache_keep_failure(cache, &task, snapshot, PROBLEM_UPSTREAM_ERROR, 60000, at(now));
    cache_keep(cache, &task, snapshot, 0);
    assert_int_equal(cache_get(cache, &task, at(now + 11000)).problem, PROBLEM_NONE);
}

TEST(retry_after_extends_the_interval)
{
    cache_keep_failure(cache, &task, snapshot, PROBLEM_UNAVAILABLE, 60000, at(now));
    assert_int_equal(cache_get(cache, &task, at(now + 50000)).left_ms, 10000);
}

TEST(only_a_running_snapshot_can_be_questioned)
{
    static const char key[] = "main:sora:a", unknown[] = "main:sora:b";
    struct snapshot *running = new_running();
    cache_keep(cache, &task, snapshot, 0);
    cache_question(cache, key, strlen(key));
    assert_int_equal(cache_get(cache, &task, at(now + 1000)).left_ms, 9000); /* it has ended */
    cache_keep(cache, &task, running, 0);
    cache_question(cache, unknown, strlen(unknown));
    assert_int_equal(cache_get(cache, &task, at(now + 1000)).left_ms, 1000);
    cache_question(cache, key, strlen(key));
    struct cache_result cached = cache_get(cache, &task, at(now + 1000));
    assert_int_equal(cached.left_ms, 0);
    assert_ptr_equal(cached.snapshot, running);
    snapshot_unref(running);
}

TEST(running_snapshots_can_be_questioned_until_they_are_kept_again)
{
    struct snapshot *running = new_running();
    cache_keep(cache, &task, snapshot, 0);
    cache_question_running(cache);
    assert_int_equal(cache_get(cache, &task, at(now + 1000)).left_ms, 9000); /* it has ended */
    cache_keep(cache, &task, running, 0);
    cache_question_running(cache);
    struct cache_result cached = cache_get(cache, &task, at(now + 1000));
    assert_int_equal(cached.left_ms, 0);
    assert_ptr_equal(cached.snapshot, running);
    cache_keep(cache, &task, running, 0);
    assert_int_equal(cache_get(cache, &task, at(now + 1000)).left_ms, 1000);
    snapshot_unref(running);
}

TEST(questioning_keeps_the_count_of_missing)
{
    static const char key[] = "main:sora:a";
    struct snapshot *running = new_running();
    cache_keep(cache, &task, running, 0);
    assert_false(cache_keep_missing(cache, &task, running, now));
    assert_false(cache_keep_missing(cache, &task, running, now));
    cache_question(cache, key, strlen(key));
    assert_true(cache_keep_missing(cache, &task, running, now + 1000));
    snapshot_unref(running);
}

TEST(failure_of_another_worker_applies_to_stale_snapshots)
{
    struct snapshot *running = new_running();
    cache_keep(cache, &task, running, 0);
    cache_keep_remote_failure(cache, &task, PROBLEM_UPSTREAM_ERROR, 7000, now + 1000);
    assert_int_equal(cache_get(cache, &task, at(now + 2000)).problem, PROBLEM_NONE); /* it was fresh */
    cache_keep_remote_failure(cache, &task, PROBLEM_UPSTREAM_ERROR, 7000, now + 2000);
    struct cache_result cached = cache_get(cache, &task, at(now + 3000));
    assert_int_equal(cached.problem, PROBLEM_UPSTREAM_ERROR);
    assert_int_equal(cached.left_ms, 6000);
    assert_remote_failure(&task, snapshot, now + 3000, PROBLEM_NONE, 0);
    snapshot_unref(running);
}

/* Redis may have a snapshot of it, so only a worker that has looked there uses the failure. */
TEST(failure_of_another_worker_applies_to_an_unseen_task_after_a_lookup_in_redis)
{
    cache_keep_remote_failure(cache, &other, PROBLEM_UPSTREAM_ERROR, 0, now);
    assert_nothing_known(&other, now + 500);
    assert_remote_failure(&other, NULL, now + 500, PROBLEM_UPSTREAM_ERROR, 1500); /* the minimum interval */
    assert_remote_failure(&other, NULL, now + 2000, PROBLEM_NONE, 0);
    cache_keep_remote_failure(cache, &other, PROBLEM_UPSTREAM_TIMEOUT, 7000, now);
    assert_remote_failure(&other, snapshot, now, PROBLEM_UPSTREAM_TIMEOUT, 7000);
    assert_remote_failure(&task, NULL, now, PROBLEM_NONE, 0);
}

TEST(failure_of_another_worker_gives_way_to_own_results)
{
    cache_keep_remote_failure(cache, &task, PROBLEM_UPSTREAM_ERROR, 7000, now);
    cache_keep_failure(cache, &task, NULL, PROBLEM_UPSTREAM_TIMEOUT, 0, at(now));
    assert_int_equal(cache_get(cache, &task, at(now)).problem, PROBLEM_UPSTREAM_TIMEOUT);
    cache_keep_remote_failure(cache, &task, PROBLEM_UPSTREAM_ERROR, 7000, now);
    assert_remote_failure(&task, NULL, now, PROBLEM_NONE, 0);
    cache_keep_remote_failure(cache, &other, PROBLEM_UPSTREAM_ERROR, 7000, now);
    cache_keep(cache, &other, snapshot, 0);
    assert_int_equal(cache_get(cache, &other, at(now)).problem, PROBLEM_NONE);
    assert_remote_failure(&other, snapshot, now, PROBLEM_NONE, 0);
}

TEST(limits_of_another_worker_do_not_keep_an_unseen_task_from_being_queried)
{
    cache_keep_remote_failure(cache, &task, PROBLEM_UNAVAILABLE, 7000, now);
    assert_remote_failure(&task, NULL, now, PROBLEM_NONE, 0);
    assert_remote_failure(&task, snapshot, now, PROBLEM_UNAVAILABLE, 7000);
    cache_keep_remote_failure(cache, &other, PROBLEM_TASK_NOT_FOUND, 7000, now);
    assert_remote_failure(&other, snapshot, now, PROBLEM_NONE, 0);
}

TEST(guessed_ids_cannot_push_out_results)
{
    struct task first = numbered_task("remote", 0);
    cache_keep(cache, &task, snapshot, 0);
    for (int i = 0; i < 20000; i++) {
        struct task guessed = numbered_task("guessed", i), failing = numbered_task("failing", i);
        struct task remote = numbered_task("remote", i);
        cache_keep_missing(cache, &guessed, NULL, now);
        cache_keep_failure(cache, &failing, NULL, PROBLEM_UPSTREAM_ERROR, 0, at(now));
        cache_keep_remote_failure(cache, &remote, PROBLEM_UPSTREAM_ERROR, 300000, now);
    }
    assert_remote_failure(&first, NULL, now, PROBLEM_NONE, 0); /* failures evict failures */
    assert_ptr_equal(cache_get(cache, &task, at(now)).snapshot, snapshot);
    assert_int_equal(cache_usage(cache).evictions, 0);
    assert_int_equal(cache_usage(cache).entries, 1);
}

TEST(new_results_evict_older_ones_and_evictions_are_counted)
{
    size_t one;
    cache_keep(cache, &task, snapshot, 0);
    one = cache_usage(cache).bytes;
    for (int i = 0; i < 10000; i++) {
        struct task further = numbered_task("task", i);
        cache_keep(cache, &further, snapshot, 0);
    }
    assert_true(cache_usage(cache).bytes <= 1 << 20);
    assert_int_equal(cache_usage(cache).evictions + cache_usage(cache).entries, 10001);
    assert_in_range(one, 1, (1 << 20) / cache_usage(cache).entries + 16);
    assert_nothing_known(&task, now);
}

TEST(entry_of_the_account_that_uses_the_most_is_evicted)
{
    cache_keep(cache, &task, snapshot, 1);
    for (int i = 0; i < 10000; i++) {
        struct task further = numbered_task("task", i);
        cache_keep(cache, &further, snapshot, 0);
    }
    size_t half = cache_usage(cache).entries / 2;
    assert_true(cache_usage(cache).evictions > 0);
    assert_non_null(cache_get(cache, &task, at(now)).snapshot);
    cache_keep(cache, &task, snapshot, 0); /* it stays in its account */
    for (int i = 0; i < 10000; i++) {
        struct task further = numbered_task("more", i);
        cache_keep(cache, &further, snapshot, 1);
    }
    assert_nothing_known(&task, now);
    size_t kept = 0;
    for (int i = 0; i < 10000; i++) {
        struct task old = numbered_task("task", i);
        kept += cache_get(cache, &old, at(now)).snapshot != NULL;
    }
    assert_in_range(kept, half - 2, half + 2);
}

/* The cache has the only reference. */
static void keep(const struct task *of, size_t len)
{
    static const char bytes[1 << 20] = {0};
    const struct snapshot draft = {.state = STATE_SUCCEEDED,
                                   .known = true,
                                   .fetched_ms = epoch + now,
                                   .since_ms = now,
                                   .views = {{.data = bytes, .len = len}, {.data = bytes, .len = len}}};
    struct snapshot *s = snapshot_new(&draft, &rules, at(now));
    cache_keep(cache, of, s, 0);
    snapshot_unref(s);
}

TEST(newer_snapshot_replaces_the_older_one)
{
    keep(&task, 10);
    size_t small = cache_usage(cache).bytes;
    keep(&task, 1000);
    assert_int_equal(cache_usage(cache).entries, 1);
    assert_int_equal(cache_usage(cache).bytes, small + 2 * 990);
    assert_true(small > sizeof(struct snapshot));
    struct snapshot *s = cache_get(cache, &task, at(now)).snapshot;
    assert_int_equal(s->views[0].len, 1000);
    cache_keep(cache, &task, s, 0);
    assert_ptr_equal(cache_get(cache, &task, at(now)).snapshot, s);
    assert_int_equal(s->refs, 1);
}

TEST(least_recently_used_is_evicted_first)
{
    keep(&task, 1000);
    keep(&other, 1000);
    cache_get(cache, &task, at(now));
    for (int i = 0; cache_usage(cache).evictions == 0; i++) {
        struct task further = numbered_task("task", i);
        keep(&further, 1000);
    }
    assert_nothing_known(&other, now);
    assert_non_null(cache_get(cache, &task, at(now)).snapshot);
}

TEST(memory_limit_is_never_exceeded_and_accounting_balances)
{
    for (int i = 0; i < 5000; i++) {
        struct task any = numbered_task("task", i * 7919 % 1000);
        keep(&any, (size_t)(i * 31 % 4000));
        assert_true(cache_usage(cache).bytes <= 1 << 20);
        for (int again = 0; i % 5 == 0 && again < 3; again++)
            cache_keep_missing(cache, &any, NULL, now);
    }
    assert_true(cache_usage(cache).evictions > 0);
    for (int i = 0; i < 1000; i++) {
        struct task any = numbered_task("task", i);
        cache_get(cache, &any, at(now + 70000));
    }
    assert_int_equal(cache_usage(cache).entries, 0);
    assert_int_equal(cache_usage(cache).bytes, 0);
}

TEST(oversized_snapshot_is_not_cached)
{
    keep(&other, 10);
    keep(&task, 1 << 20);
    assert_nothing_known(&task, now);
    assert_int_equal(cache_usage(cache).entries, 0);
    keep(&other, 10);
    assert_non_null(cache_get(cache, &other, at(now)).snapshot);
}

TEST(referenced_snapshot_outlives_its_eviction)
{
    keep(&task, 10);
    struct snapshot *s = snapshot_ref(cache_get(cache, &task, at(now)).snapshot);
    keep(&task, 20);
    assert_int_equal(s->refs, 1);
    assert_int_equal(s->views[0].len, 10);
    snapshot_unref(s);
}

TEST(freeing_nothing_is_legal)
{
    cache_free(NULL);
}

#define CHECK(test) cmocka_unit_test_setup_teardown(test, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHECK(new_cache_is_empty),
        CHECK(snapshot_is_fresh_then_stale_then_gone),
        CHECK(unseen_task_is_missing_at_once_and_for_missing_ttl),
        CHECK(seen_task_is_missing_after_three_reports),
        CHECK(task_seen_by_another_worker_needs_three_reports_too),
        CHECK(new_snapshot_resets_the_count_of_missing),
        CHECK(missing_task_that_appears_is_found),
        CHECK(stale_snapshot_is_served_until_the_retry_time_after_a_failure),
        CHECK(failing_task_without_a_snapshot_waits_for_its_minimum_interval),
        CHECK(unsent_query_is_not_remembered_as_a_failure),
        CHECK(failure_outlives_an_expired_snapshot),
        CHECK(new_snapshot_clears_a_failure),
        CHECK(retry_after_extends_the_interval),
        CHECK(only_a_running_snapshot_can_be_questioned),
        CHECK(running_snapshots_can_be_questioned_until_they_are_kept_again),
        CHECK(questioning_keeps_the_count_of_missing),
        CHECK(failure_of_another_worker_applies_to_stale_snapshots),
        CHECK(failure_of_another_worker_applies_to_an_unseen_task_after_a_lookup_in_redis),
        CHECK(failure_of_another_worker_gives_way_to_own_results),
        CHECK(limits_of_another_worker_do_not_keep_an_unseen_task_from_being_queried),
        CHECK(guessed_ids_cannot_push_out_results),
        CHECK(new_results_evict_older_ones_and_evictions_are_counted),
        CHECK(entry_of_the_account_that_uses_the_most_is_evicted),
        CHECK(newer_snapshot_replaces_the_older_one),
        CHECK(least_recently_used_is_evicted_first),
        CHECK(memory_limit_is_never_exceeded_and_accounting_balances),
        CHECK(oversized_snapshot_is_not_cached),
        CHECK(referenced_snapshot_outlives_its_eviction),
        CHECK(freeing_nothing_is_legal),
    };
    return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
