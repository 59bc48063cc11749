/* Snapshots by key: what is found, what is forgotten, and what it all weighs. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "task/cache.h"

static const int64_t now = 1736867746000;
static const struct snapshot_rules rules = {
    .terminal_ttl_ms = 10000, .stale_for_ms = 5000, .poll_min_ms = 2000, .poll_max_ms = 15000};

static struct snapshot *made(size_t len)
{
    static const char bytes[100000] = {0};
    const struct snapshot_facts facts = {.state = STATE_SUCCEEDED,
                                         .known = true,
                                         .fetched_ms = now,
                                         .views = {bytes, bytes},
                                         .view_lens = {len, len}};
    return snapshot_new(&facts, &rules);
}

/* The cache's is the only reference. */
static size_t put(struct cache *cache, const char *key, size_t len)
{
    struct snapshot *s = made(len);
    size_t evicted = cache_put(cache, key, strlen(key), s);
    snapshot_unref(s);
    return evicted;
}

static struct snapshot *get(struct cache *cache, const char *key)
{
    return cache_get(cache, key, strlen(key), now);
}

TEST(what_was_put_is_found_under_its_key_alone)
{
    struct cache *cache = cache_new(1 << 20);
    put(cache, "main:sora:a", 10);
    assert_non_null(get(cache, "main:sora:a"));
    assert_null(get(cache, "main:sora:b"));
    assert_null(get(cache, "main:sora:"));
    assert_null(get(cache, "main:sora:aa"));
    assert_null(get(cache, ""));
    cache_free(cache);
}

TEST(a_key_may_hold_any_bytes)
{
    struct cache *cache = cache_new(1 << 20);
    struct snapshot *s = made(1);
    cache_put(cache, "a\0b", 3, s);
    cache_put(cache, "", 0, s);
    assert_ptr_equal(cache_get(cache, "a\0b", 3, now), s);
    assert_ptr_equal(cache_get(cache, "", 0, now), s);
    assert_null(cache_get(cache, "a\0c", 3, now));
    assert_null(cache_get(cache, "a", 1, now));
    assert_int_equal(s->refs, 3);
    cache_free(cache);
    assert_int_equal(s->refs, 1);
    snapshot_unref(s);
}

TEST(a_stale_snapshot_is_found_until_it_may_no_longer_be_kept)
{
    struct cache *cache = cache_new(1 << 20);
    put(cache, "a", 10);
    assert_non_null(cache_get(cache, "a", 1, now + 12000));
    assert_non_null(cache_get(cache, "a", 1, now + 14999));
    assert_null(cache_get(cache, "a", 1, now + 15000));
    assert_int_equal(cache_entries(cache), 0);
    assert_int_equal(cache_bytes(cache), 0);
    cache_free(cache);
}

TEST(a_newer_snapshot_takes_the_place_of_the_older)
{
    struct cache *cache = cache_new(1 << 20);
    put(cache, "a", 10);
    size_t small = cache_bytes(cache);
    put(cache, "a", 1000);
    assert_int_equal(cache_entries(cache), 1);
    assert_int_equal(cache_bytes(cache), small + 2 * 990);
    assert_int_equal(get(cache, "a")->views[0].len, 1000);
    cache_free(cache);
}

TEST(the_same_snapshot_may_be_put_again)
{
    struct cache *cache = cache_new(1 << 20);
    put(cache, "a", 10);
    struct snapshot *s = get(cache, "a");
    assert_int_equal(cache_put(cache, "a", 1, s), 0);
    assert_int_equal(s->refs, 1);
    assert_ptr_equal(get(cache, "a"), s);
    cache_free(cache);
}

TEST(the_one_unused_for_longest_goes_first)
{
    struct cache *cache = cache_new(10000);
    char key[24] = "x";
    assert_int_equal(put(cache, "a", 1000) + put(cache, "b", 1000) + put(cache, "c", 1000), 0);
    get(cache, "a");
    for (int i = 0; put(cache, key, 1000) == 0; i++)
        snprintf(key, sizeof(key), "x%d", i);
    assert_non_null(get(cache, "a"));
    assert_null(get(cache, "b"));
    assert_non_null(get(cache, "c"));
    cache_free(cache);
}

TEST(the_maximum_is_never_passed_and_the_books_balance)
{
    struct cache *cache = cache_new(100000);
    char key[24] = "x";
    size_t evicted = 0;
    for (size_t i = 0; i < 5000; i++) {
        snprintf(key, sizeof(key), "%zu", i * 7919 % 1000);
        evicted += put(cache, key, i * 31 % 4000);
        assert_true(cache_bytes(cache) <= 100000);
        if (i % 5 == 0)
            cache_remove(cache, key, strlen(key));
    }
    assert_true(evicted > 0);
    for (size_t i = 0; i < 1000; i++) {
        snprintf(key, sizeof(key), "%zu", i);
        cache_remove(cache, key, strlen(key));
    }
    assert_int_equal(cache_entries(cache), 0);
    assert_int_equal(cache_bytes(cache), 0);
    cache_free(cache);
}

TEST(a_snapshot_larger_than_all_is_not_kept)
{
    struct cache *cache = cache_new(10000);
    put(cache, "small", 10);
    assert_int_equal(put(cache, "large", 10000), 2);
    assert_null(get(cache, "large"));
    assert_int_equal(cache_entries(cache), 0);
    put(cache, "small", 10);
    assert_non_null(get(cache, "small"));
    cache_free(cache);
}

TEST(a_cache_of_nothing_keeps_nothing)
{
    struct cache *cache = cache_new(0);
    assert_int_equal(put(cache, "a", 0), 1);
    assert_null(get(cache, "a"));
    cache_remove(cache, "a", 1);
    cache_free(cache);
    cache_free(NULL);
}

TEST(a_snapshot_that_someone_holds_outlives_its_place)
{
    struct cache *cache = cache_new(1 << 20);
    put(cache, "a", 10);
    struct snapshot *s = snapshot_ref(get(cache, "a"));
    cache_remove(cache, "a", 1);
    assert_int_equal(s->refs, 1);
    assert_int_equal(s->views[0].len, 10);
    snapshot_unref(s);
    cache_free(cache);
}

TEST(what_is_counted_is_at_least_what_the_views_take)
{
    struct cache *cache = cache_new(1 << 24);
    put(cache, "a", 100000);
    assert_true(cache_bytes(cache) >= 200000 + sizeof(struct snapshot));
    cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_is_found_under_its_key_alone),
        cmocka_unit_test(a_key_may_hold_any_bytes),
        cmocka_unit_test(a_stale_snapshot_is_found_until_it_may_no_longer_be_kept),
        cmocka_unit_test(a_newer_snapshot_takes_the_place_of_the_older),
        cmocka_unit_test(the_same_snapshot_may_be_put_again),
        cmocka_unit_test(the_one_unused_for_longest_goes_first),
        cmocka_unit_test(the_maximum_is_never_passed_and_the_books_balance),
        cmocka_unit_test(a_snapshot_larger_than_all_is_not_kept),
        cmocka_unit_test(a_cache_of_nothing_keeps_nothing),
        cmocka_unit_test(a_snapshot_that_someone_holds_outlives_its_place),
        cmocka_unit_test(what_is_counted_is_at_least_what_the_views_take),
    };
    return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
