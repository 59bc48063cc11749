/* What a worker remembers of a task: its snapshot, that it does not exist, that asking has failed. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "task/memory.h"

static const int64_t now = 1736867746000;
static const struct snapshot_rules rules = {
    .terminal_ttl_ms = 10000, .stale_for_ms = 60000, .poll_min_ms = 2000, .poll_max_ms = 15000};

static char upstream_name[] = "main", provider_name[] = "sora";
static const struct conf_upstream upstream = {.name = upstream_name};
static struct provider provider = {.name = provider_name, .poll = {.min_ms = 2000, .max_ms = 12000}};
static const struct conf_route route = {.provider = &provider, .upstream = &upstream};
static struct task task, other;

static struct memory *memory;
static struct snapshot *snapshot; /* fresh for 10 s, of use for 70 s */

static int start(void **unused __attribute__((unused)))
{
    static const char view[] = "{}";
    static const struct conf_cache conf = {.memory = 1 << 20, .missing_ttl_ms = 5000};
    const struct snapshot_facts facts = {.state = STATE_SUCCEEDED,
                                         .known = true,
                                         .fetched_ms = now,
                                         .views = {view, view},
                                         .view_lens = {2, 2}};
    task_init(&task, &route, "a");
    task_init(&other, &route, "b");
    memory = memory_new(&conf);
    snapshot = snapshot_new(&facts, &rules);
    return 0;
}

static int end(void **unused __attribute__((unused)))
{
    memory_free(memory);
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
    struct memory_look look = memory_look(memory, of, at_ms);
    assert_null(look.snapshot);
    assert_false(look.missing);
    assert_int_equal(look.problem, PROBLEM_NONE);
}

/* Of a task that has just begun: fresh for 2 s. */
static struct snapshot *new_running(void)
{
    const struct snapshot_facts facts = {.state = STATE_RUNNING,
                                         .known = true,
                                         .created_ms = now,
                                         .fetched_ms = now,
                                         .views = {"{}", "{}"},
                                         .view_lens = {2, 2}};
    return snapshot_new(&facts, &rules);
}

TEST(nothing_is_known_at_first)
{
    assert_nothing_known(&task, now);
    assert_int_equal(memory_entries(memory), 0);
}

TEST(a_snapshot_is_found_fresh_then_stale_then_not_at_all)
{
    memory_keep(memory, &task, snapshot);
    struct memory_look look = memory_look(memory, &task, now + 4000);
    assert_ptr_equal(look.snapshot, snapshot);
    assert_int_equal(look.left_ms, 6000);
    look = memory_look(memory, &task, now + 10000);
    assert_ptr_equal(look.snapshot, snapshot);
    assert_int_equal(look.left_ms, 0);
    assert_nothing_known(&other, now);
    assert_nothing_known(&task, now + 70000);
}

TEST(a_task_that_was_never_seen_is_missing_at_once_and_for_a_while)
{
    assert_true(memory_keep_missing(memory, &task, NULL, now));
    struct memory_look look = memory_look(memory, &task, now + 1000);
    assert_true(look.missing);
    assert_int_equal(look.left_ms, 4000);
    assert_nothing_known(&task, now + 5000);
    assert_nothing_known(&other, now);
}

TEST(a_task_that_was_seen_is_missing_when_it_is_said_three_times)
{
    memory_keep(memory, &task, snapshot);
    assert_false(memory_keep_missing(memory, &task, snapshot, now));
    assert_false(memory_keep_missing(memory, &task, snapshot, now));
    assert_ptr_equal(memory_look(memory, &task, now).snapshot, snapshot);
    assert_true(memory_keep_missing(memory, &task, snapshot, now));
    struct memory_look look = memory_look(memory, &task, now);
    assert_null(look.snapshot);
    assert_true(look.missing);
}

TEST(one_seen_by_another_worker_is_doubted_as_well)
{
    assert_false(memory_keep_missing(memory, &task, snapshot, now));
    assert_false(memory_keep_missing(memory, &task, snapshot, now));
    assert_true(memory_keep_missing(memory, &task, snapshot, now));
}

TEST(news_between_them_counts_from_anew)
{
    memory_keep(memory, &task, snapshot);
    memory_keep_missing(memory, &task, snapshot, now);
    memory_keep_missing(memory, &task, snapshot, now);
    memory_keep(memory, &task, snapshot);
    assert_false(memory_keep_missing(memory, &task, snapshot, now));
    memory_keep_missing(memory, &task, snapshot, now);
    memory_keep_failure(memory, &task, snapshot, PROBLEM_UPSTREAM_ERROR, 1, now);
    assert_false(memory_keep_missing(memory, &task, snapshot, now));
}

TEST(a_missing_task_that_turns_up_is_there)
{
    memory_keep_missing(memory, &task, NULL, now);
    memory_keep(memory, &task, snapshot);
    struct memory_look look = memory_look(memory, &task, now);
    assert_false(look.missing);
    assert_ptr_equal(look.snapshot, snapshot);
}

TEST(after_a_failure_the_old_snapshot_does_until_it_may_be_asked_again)
{
    memory_keep(memory, &task, snapshot);
    memory_keep_failure(memory, &task, snapshot, PROBLEM_UPSTREAM_TIMEOUT, 0,
                        now); /* asked each 12 s by now */
    assert_int_equal(memory_look(memory, &task, now + 1000).problem, PROBLEM_NONE); /* it is still fresh */
    struct memory_look look = memory_look(memory, &task, now + 11000);
    assert_int_equal(look.problem, PROBLEM_UPSTREAM_TIMEOUT);
    assert_int_equal(look.left_ms, 1000);
    assert_ptr_equal(look.snapshot, snapshot);
    assert_int_equal(memory_look(memory, &task, now + 12000).problem, PROBLEM_NONE);
}

TEST(a_failure_of_an_unknown_task_is_not_kept)
{
    memory_keep_failure(memory, &task, NULL, PROBLEM_UPSTREAM_ERROR, 12000, now);
    assert_nothing_known(&task, now);
}

TEST(news_ends_a_failure)
{
    memory_keep_failure(memory, &task, snapshot, PROBLEM_UPSTREAM_ERROR, 60000, now);
    memory_keep(memory, &task, snapshot);
    assert_int_equal(memory_look(memory, &task, now + 11000).problem, PROBLEM_NONE);
}

TEST(the_upstreams_wish_to_be_left_alone_is_longer_than_the_interval)
{
    memory_keep_failure(memory, &task, snapshot, PROBLEM_UNAVAILABLE, 60000, now);
    assert_int_equal(memory_look(memory, &task, now + 50000).left_ms, 10000);
}

TEST(somebody_knows_better_of_a_task_that_runs_only)
{
    static const char key[] = "main:sora:a", unknown[] = "main:sora:b";
    struct snapshot *running = new_running();
    memory_keep(memory, &task, snapshot);
    memory_outdate(memory, key, strlen(key), now + 1000);
    assert_int_equal(memory_look(memory, &task, now + 1000).left_ms, 9000); /* it has ended */
    memory_keep(memory, &task, running);
    memory_outdate(memory, unknown, strlen(unknown), now + 1000);
    assert_int_equal(memory_look(memory, &task, now + 1000).left_ms, 1000);
    memory_outdate(memory, key, strlen(key), now + 1000);
    struct memory_look look = memory_look(memory, &task, now + 1000);
    assert_int_equal(look.left_ms, 0);
    assert_string_equal(look.snapshot->views[VIEW_NATIVE].etag, running->views[VIEW_NATIVE].etag);
    snapshot_unref(running);
}

TEST(the_failure_of_another_worker_counts_for_what_is_no_longer_fresh)
{
    static const char key[] = "main:sora:a";
    struct snapshot *running = new_running();
    memory_keep(memory, &task, running);
    memory_hear_failure(memory, key, strlen(key), PROBLEM_UPSTREAM_ERROR, 7000, now + 1000);
    assert_int_equal(memory_look(memory, &task, now + 2000).problem, PROBLEM_NONE); /* it was fresh */
    memory_hear_failure(memory, key, strlen(key), PROBLEM_UPSTREAM_ERROR, 7000, now + 2000);
    struct memory_look look = memory_look(memory, &task, now + 3000);
    assert_int_equal(look.problem, PROBLEM_UPSTREAM_ERROR);
    assert_int_equal(look.left_ms, 6000);
    memory_hear_failure(memory, "main:sora:b", strlen(key), PROBLEM_UPSTREAM_ERROR, 7000, now);
    assert_nothing_known(&other, now);
    snapshot_unref(running);
}

TEST(guessed_ids_cannot_push_out_results)
{
    memory_keep(memory, &task, snapshot);
    for (int i = 0; i < 20000; i++) {
        struct task guessed = numbered_task("guessed", i);
        memory_keep_missing(memory, &guessed, NULL, now);
    }
    assert_ptr_equal(memory_look(memory, &task, now).snapshot, snapshot);
    assert_int_equal(memory_evictions(memory), 0);
    assert_int_equal(memory_entries(memory), 1);
}

TEST(results_push_out_older_ones_and_are_counted)
{
    size_t one;
    memory_keep(memory, &task, snapshot);
    one = memory_bytes(memory);
    for (int i = 0; i < 10000; i++) {
        struct task further = numbered_task("task", i);
        memory_keep(memory, &further, snapshot);
    }
    assert_true(memory_bytes(memory) <= 1 << 20);
    assert_int_equal(memory_evictions(memory) + memory_entries(memory), 10001);
    assert_in_range(one, 1, (1 << 20) / memory_entries(memory) + 16);
    assert_nothing_known(&task, now);
}

TEST(freeing_nothing_is_legal)
{
    memory_free(NULL);
}

#define CHECK(test) cmocka_unit_test_setup_teardown(test, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHECK(nothing_is_known_at_first),
        CHECK(a_snapshot_is_found_fresh_then_stale_then_not_at_all),
        CHECK(a_task_that_was_never_seen_is_missing_at_once_and_for_a_while),
        CHECK(a_task_that_was_seen_is_missing_when_it_is_said_three_times),
        CHECK(one_seen_by_another_worker_is_doubted_as_well),
        CHECK(news_between_them_counts_from_anew),
        CHECK(a_missing_task_that_turns_up_is_there),
        CHECK(after_a_failure_the_old_snapshot_does_until_it_may_be_asked_again),
        CHECK(a_failure_of_an_unknown_task_is_not_kept),
        CHECK(news_ends_a_failure),
        CHECK(the_upstreams_wish_to_be_left_alone_is_longer_than_the_interval),
        CHECK(somebody_knows_better_of_a_task_that_runs_only),
        CHECK(the_failure_of_another_worker_counts_for_what_is_no_longer_fresh),
        CHECK(guessed_ids_cannot_push_out_results),
        CHECK(results_push_out_older_ones_and_are_counted),
        CHECK(freeing_nothing_is_legal),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
