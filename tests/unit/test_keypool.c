/* The choice of a key for a task, and the handling of rejected and busy keys. */
#include "unit.h"

#include <string.h>

#include "upstream/keypool.h"

static const int64_t now = 1000000;
static const struct secret keys[] = {
    {.text = (char *)"sk-first"}, {.text = (char *)"sk-second"}, {.text = (char *)"sk-third"}};

static struct keypool pool_of(size_t n)
{
    struct keypool pool;
    keypool_init(&pool, keys, n);
    return pool;
}

static struct key_choice choice_of(const struct keypool *pool, size_t owner)
{
    struct key_choice choice = {.key = 0};
    memcpy(choice.owner, pool->keys[owner].mark, sizeof(choice.owner));
    return choice;
}

static void assert_taken(struct keypool *pool, struct key_choice *choice, size_t expected, int64_t at_ms)
{
    assert_true(keypool_has(pool, choice, at_ms));
    assert_true(keypool_take(pool, choice, at_ms));
    assert_int_equal(choice->key, expected);
}

/* Queries a new task with this key, with this outcome. */
static bool one_answer(struct keypool *pool, size_t key, enum key_lesson lesson, int64_t rest_ms,
                       int64_t at_ms)
{
    struct key_choice choice = choice_of(pool, key);
    assert_taken(pool, &choice, key, at_ms);
    return keypool_learn(pool, &choice, lesson, rest_ms, at_ms);
}

/* Rejects the key until it is suspended. */
static void set_aside(struct keypool *pool, size_t key, int64_t at_ms)
{
    for (int i = 0; i < 3; i++)
        assert_int_equal(one_answer(pool, key, KEY_REFUSED, 0, at_ms), i == 2);
}

static void assert_end(const struct keypool *pool, const struct key_choice *choice, int64_t at_ms,
                       enum outcome end, int64_t retry_after_ms)
{
    int64_t ms = -1;
    assert_false(keypool_has(pool, choice, at_ms));
    assert_int_equal(keypool_outcome(pool, choice, at_ms, &ms), end);
    assert_int_equal(ms, retry_after_ms);
}

TEST(mark_is_a_prefix_of_the_key_digest)
{
    char mark[KEY_MARK_SIZE];
    key_mark("abc", mark);
    assert_string_equal(mark, "ba7816bf");
}

TEST(new_tasks_use_the_keys_in_turn)
{
    struct keypool pool = pool_of(3);
    for (size_t i = 0; i < 7; i++) {
        struct key_choice choice = {.key = 0};
        assert_taken(&pool, &choice, i % 3, now);
        assert_false(keypool_learn(&pool, &choice, KEY_GOOD, 0, now));
        assert_string_equal(choice.owner, pool.keys[i % 3].mark);
    }
}

TEST(task_is_queried_with_the_key_that_answered_last)
{
    struct keypool pool = pool_of(3);
    for (int i = 0; i < 5; i++)
        assert_false(one_answer(&pool, 2, KEY_GOOD, 0, now));
    struct key_choice choice = {.key = 0};
    assert_taken(&pool, &choice, 0, now); /* the next key has not changed */
}

TEST(removed_key_owns_nothing)
{
    struct keypool pool = pool_of(2);
    struct key_choice choice = {.owner = "01234567"};
    assert_taken(&pool, &choice, 0, now);
}

TEST(missing_task_is_queried_once_with_each_key)
{
    struct keypool pool = pool_of(3);
    struct key_choice choice = choice_of(&pool, 1);
    static const size_t order[] = {1, 0, 2};
    for (size_t i = 0; i < 3; i++) {
        assert_taken(&pool, &choice, order[i], now);
        assert_false(keypool_learn(&pool, &choice, KEY_MISSING, 0, now));
    }
    assert_false(keypool_take(&pool, &choice, now));
    assert_end(&pool, &choice, now, OUTCOME_MISSING, 0);
}

TEST(second_query_uses_the_key_of_the_first)
{
    struct keypool pool = pool_of(2);
    struct key_choice choice = {.key = 0};
    assert_taken(&pool, &choice, 0, now);
    keypool_learn(&pool, &choice, KEY_GOOD, 0, now);
    assert_false(keypool_has(&pool, &choice, now));
    assert_true(keypool_take(&pool, &choice, now));
    assert_int_equal(choice.key, 0);
    keypool_learn(&pool, &choice, KEY_MISSING, 0, now);
    assert_end(&pool, &choice, now, OUTCOME_MISSING, 0);
}

TEST(rejected_key_is_suspended_and_probed_with_backoff)
{
    static const int64_t pauses[] = {1000,  2000,   4000,   8000,   16000, 32000,
                                     64000, 128000, 256000, 300000, 300000};
    struct keypool pool = pool_of(1);
    int64_t at = now;
    assert_false(one_answer(&pool, 0, KEY_REFUSED, 0, at));
    assert_false(one_answer(&pool, 0, KEY_REFUSED, 0, at));
    for (size_t i = 0; i < NELEMS(pauses); i++) {
        assert_int_equal(one_answer(&pool, 0, KEY_REFUSED, 0, at), i == 0);
        struct key_choice choice = {.key = 0};
        assert_end(&pool, &choice, at + 1, OUTCOME_REFUSED, pauses[i] - 1);
        at += pauses[i];
    }
    struct key_choice probe = {.key = 0}, other = {.key = 0};
    assert_taken(&pool, &probe, 0, at);
    assert_false(keypool_take(&pool, &other, at));
    assert_true(keypool_learn(&pool, &probe, KEY_GOOD, 0, at));
    assert_taken(&pool, &other, 0, at);
    assert_false(keypool_learn(&pool, &other, KEY_REFUSED, 0, at));
    assert_end(&pool, &other, at, OUTCOME_REFUSED, 0); /* it counts like any other key */
}

TEST(success_between_rejections_keeps_a_key_in_use)
{
    struct keypool pool = pool_of(1);
    for (int i = 0; i < 5; i++) {
        assert_false(one_answer(&pool, 0, KEY_REFUSED, 0, now));
        assert_false(one_answer(&pool, 0, i % 2 ? KEY_GOOD : KEY_MISSING, 0, now));
    }
}

TEST(inconclusive_probe_is_repeated)
{
    struct keypool pool = pool_of(1);
    set_aside(&pool, 0, now);
    struct key_choice probe = {.key = 0}, choice = {.key = 0};
    assert_taken(&pool, &probe, 0, now + 1000);
    assert_end(&pool, &choice, now + 1000, OUTCOME_REFUSED, 1000);
    assert_taken(&pool, &choice, 0, now + 2000);
}

TEST(late_rejections_of_a_suspended_key_are_ignored)
{
    struct keypool pool = pool_of(1);
    struct key_choice choices[5] = {{.key = 0}}, choice = {.key = 0};
    for (size_t i = 0; i < NELEMS(choices); i++)
        assert_true(keypool_take(&pool, &choices[i], now));
    for (size_t i = 0; i < NELEMS(choices); i++)
        assert_int_equal(keypool_learn(&pool, &choices[i], KEY_REFUSED, 0, now), i == 2);
    assert_end(&pool, &choice, now, OUTCOME_REFUSED, 1000);
}

TEST(other_keys_replace_a_rejected_one)
{
    struct keypool pool = pool_of(3);
    one_answer(&pool, 0, KEY_REFUSED, 0, now);
    for (size_t i = 0; i < 4; i++) {
        struct key_choice choice = {.key = 0};
        assert_taken(&pool, &choice, 1 + i % 2, now);
    }
}

TEST(task_is_not_missing_when_its_key_was_rejected)
{
    struct keypool pool = pool_of(2);
    struct key_choice choice = choice_of(&pool, 0);
    assert_taken(&pool, &choice, 0, now);
    assert_false(keypool_learn(&pool, &choice, KEY_REFUSED, 0, now));
    assert_taken(&pool, &choice, 1, now);
    keypool_learn(&pool, &choice, KEY_MISSING, 0, now);
    assert_end(&pool, &choice, now, OUTCOME_REFUSED, 0);
    one_answer(&pool, 0, KEY_REFUSED, 0, now);
    one_answer(&pool, 0, KEY_REFUSED, 0, now);
    struct key_choice later = choice_of(&pool, 0);
    assert_taken(&pool, &later, 1, now);
    keypool_learn(&pool, &later, KEY_MISSING, 0, now);
    assert_end(&pool, &later, now + 400, OUTCOME_REFUSED, 600);
}

TEST(unknown_task_is_missing_despite_a_suspended_key)
{
    struct keypool pool = pool_of(2);
    set_aside(&pool, 0, now);
    struct key_choice choice = {.key = 0};
    assert_taken(&pool, &choice, 1, now);
    keypool_learn(&pool, &choice, KEY_MISSING, 0, now);
    assert_end(&pool, &choice, now, OUTCOME_MISSING, 0);
}

TEST(key_rejected_for_one_task_becomes_the_last_choice)
{
    struct keypool pool = pool_of(2);
    assert_false(one_answer(&pool, 0, KEY_DOUBTED, 0, now));
    struct key_choice choice = {.key = 0}, owned = choice_of(&pool, 0);
    assert_taken(&pool, &owned, 0, now);
    for (int i = 0; i < 3; i++) {
        struct key_choice other = {.key = 0};
        assert_taken(&pool, &other, 1, now);
    }
    assert_taken(&pool, &choice, 1, now);
    keypool_learn(&pool, &choice, KEY_DOUBTED, 0, now);
    assert_taken(&pool, &choice, 0, now);
    keypool_learn(&pool, &choice, KEY_DOUBTED, 0, now);
    assert_end(&pool, &choice, now, OUTCOME_REFUSED, 0);
}

TEST(doubtful_key_returns_after_a_minute_or_a_success)
{
    struct keypool pool = pool_of(2);
    one_answer(&pool, 0, KEY_DOUBTED, 0, now);
    struct key_choice later = {.key = 0}, sooner = {.key = 0};
    assert_taken(&pool, &later, 0, now + 60000);
    one_answer(&pool, 0, KEY_DOUBTED, 0, now);
    one_answer(&pool, 0, KEY_GOOD, 0, now);
    pool.next = 0;
    assert_taken(&pool, &sooner, 0, now);
}

TEST(busy_key_is_paused_for_retry_after)
{
    struct keypool pool = pool_of(2);
    assert_false(one_answer(&pool, 0, KEY_BUSY, 7000, now));
    struct key_choice choice = choice_of(&pool, 0), later = choice_of(&pool, 0);
    assert_taken(&pool, &choice, 1, now + 1);
    keypool_learn(&pool, &choice, KEY_MISSING, 0, now + 1);
    assert_end(&pool, &choice, now + 1, OUTCOME_BUSY, 6999);
    assert_taken(&pool, &later, 0, now + 7000);
}

TEST(pause_is_capped)
{
    static const int64_t rests[][2] = {{0, 1000}, {-5, 1000}, {7000, 7000}, {INT64_MAX, 300000}};
    for (size_t i = 0; i < NELEMS(rests); i++) {
        struct keypool pool = pool_of(1);
        struct key_choice choice = {.key = 0};
        one_answer(&pool, 0, KEY_BUSY, rests[i][0], now);
        assert_end(&pool, &choice, now, OUTCOME_BUSY, rests[i][1]);
    }
}

TEST(when_all_keys_are_paused_the_first_to_resume_decides)
{
    struct keypool pool = pool_of(3);
    one_answer(&pool, 0, KEY_BUSY, 9000, now);
    one_answer(&pool, 1, KEY_BUSY, 3000, now);
    assert_false(keypool_is_exhausted(&pool, now));
    set_aside(&pool, 2, now);
    struct key_choice choice = {.key = 0};
    assert_end(&pool, &choice, now, OUTCOME_BUSY, 3000);
    assert_true(keypool_is_exhausted(&pool, now + 2999));
    assert_false(keypool_is_exhausted(&pool, now + 3000));
}

TEST(unknown_task_is_not_missing_while_a_key_is_paused)
{
    struct keypool pool = pool_of(2);
    one_answer(&pool, 0, KEY_BUSY, 3000, now);
    struct key_choice choice = {.key = 0}, owned = choice_of(&pool, 1);
    assert_taken(&pool, &choice, 1, now);
    keypool_learn(&pool, &choice, KEY_MISSING, 0, now);
    assert_end(&pool, &choice, now, OUTCOME_BUSY, 3000);
    assert_taken(&pool, &owned, 1, now);
    keypool_learn(&pool, &owned, KEY_MISSING, 0, now);
    assert_end(&pool, &owned, now, OUTCOME_MISSING, 0); /* the answer of the owner is decisive */
}

TEST(pool_size_is_limited_by_the_bit_mask)
{
    struct secret many[POOL_KEYS_MAX] = {{NULL, NULL}};
    char texts[POOL_KEYS_MAX][16];
    struct keypool pool;
    struct key_choice choice = {.key = 0};
    for (size_t i = 0; i < POOL_KEYS_MAX; i++) {
        many[i].text = texts[i];
        memcpy(texts[i], (const char[]){'k', (char)('0' + i / 10), (char)('0' + i % 10), 0}, 4);
    }
    keypool_init(&pool, many, POOL_KEYS_MAX);
    for (size_t i = 0; i < POOL_KEYS_MAX; i++) {
        assert_taken(&pool, &choice, i, now);
        keypool_learn(&pool, &choice, KEY_MISSING, 0, now);
    }
    assert_end(&pool, &choice, now, OUTCOME_MISSING, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mark_is_a_prefix_of_the_key_digest),
        cmocka_unit_test(new_tasks_use_the_keys_in_turn),
        cmocka_unit_test(task_is_queried_with_the_key_that_answered_last),
        cmocka_unit_test(removed_key_owns_nothing),
        cmocka_unit_test(missing_task_is_queried_once_with_each_key),
        cmocka_unit_test(second_query_uses_the_key_of_the_first),
        cmocka_unit_test(rejected_key_is_suspended_and_probed_with_backoff),
        cmocka_unit_test(success_between_rejections_keeps_a_key_in_use),
        cmocka_unit_test(inconclusive_probe_is_repeated),
        cmocka_unit_test(late_rejections_of_a_suspended_key_are_ignored),
        cmocka_unit_test(other_keys_replace_a_rejected_one),
        cmocka_unit_test(task_is_not_missing_when_its_key_was_rejected),
        cmocka_unit_test(unknown_task_is_missing_despite_a_suspended_key),
        cmocka_unit_test(key_rejected_for_one_task_becomes_the_last_choice),
        cmocka_unit_test(doubtful_key_returns_after_a_minute_or_a_success),
        cmocka_unit_test(busy_key_is_paused_for_retry_after),
        cmocka_unit_test(pause_is_capped),
        cmocka_unit_test(when_all_keys_are_paused_the_first_to_resume_decides),
        cmocka_unit_test(unknown_task_is_not_missing_while_a_key_is_paused),
        cmocka_unit_test(pool_size_is_limited_by_the_bit_mask),
    };
    return cmocka_run_group_tests_name("keypool", tests, NULL, NULL);
}
