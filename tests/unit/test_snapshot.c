/* How long a snapshot is fresh and kept, and its format in Redis, whose values are untrusted. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "task/snapshot.h"

static const int64_t now = 1736867746000;                   /* a date */
static const struct moment present = {5000, 1736867746000}; /* the same by both clocks */
static const struct snapshot_rules rules = {
    .terminal_ttl_ms = 86400000, .stale_for_ms = 600000, .poll_min_ms = 2000, .poll_max_ms = 15000};

static const char native[] = "{\"a\":1}", unified[] = "{\"provider\":\"p\"}";

static struct snapshot *made(struct snapshot draft)
{
    draft.known = true;
    draft.fetched_ms = now;
    draft.since_ms = present.ms;
    draft.views[VIEW_NATIVE] = (struct view_bytes){.data = native, .len = sizeof(native) - 1};
    draft.views[VIEW_UNIFIED] = (struct view_bytes){.data = unified, .len = sizeof(unified) - 1};
    return snapshot_new(&draft, &rules, present);
}

static struct moment later(int64_t ms)
{
    return (struct moment){present.ms + ms, present.date_ms + ms};
}

/* The time from fetching until it becomes stale. */
static int64_t fresh_for(struct snapshot draft)
{
    struct snapshot *s = made(draft);
    int64_t ms = s->fresh_until_ms - present.ms;
    assert_int_equal(snapshot_left_ms(s, present), ms);
    assert_int_equal(snapshot_left_ms(s, later(ms)), 0);
    assert_int_equal(s->keep_until_ms, s->fresh_until_ms + rules.stale_for_ms);
    snapshot_unref(s);
    return ms;
}

#define FRESH_FOR(...) fresh_for((struct snapshot){__VA_ARGS__})

TEST(ended_task_is_fresh_for_its_ttl)
{
    assert_int_equal(FRESH_FOR(.state = STATE_SUCCEEDED), rules.terminal_ttl_ms);
    assert_int_equal(FRESH_FOR(.state = STATE_FAILED), rules.terminal_ttl_ms);
    assert_int_equal(FRESH_FOR(.state = STATE_CANCELLED, .created_ms = now - 1000), rules.terminal_ttl_ms);
}

TEST(url_expiry_less_a_minute_shortens_the_ttl)
{
    assert_int_equal(FRESH_FOR(.state = STATE_SUCCEEDED, .urls_expire_at = now / 1000 + 3600), 3540000);
    assert_int_equal(FRESH_FOR(.state = STATE_SUCCEEDED, .urls_expire_at = now / 1000 + 86400 * 7), 86400000);
}

TEST(expiring_urls_are_refreshed_at_the_poll_interval)
{
    assert_int_equal(FRESH_FOR(.state = STATE_SUCCEEDED, .urls_expire_at = now / 1000 + 60),
                     rules.poll_min_ms);
    assert_int_equal(FRESH_FOR(.state = STATE_SUCCEEDED, .urls_expire_at = now / 1000 + 1),
                     rules.poll_min_ms);
}

TEST(expired_urls_are_refreshed_each_minute)
{
    assert_int_equal(FRESH_FOR(.state = STATE_SUCCEEDED, .urls_expire_at = now / 1000), 60000);
    assert_int_equal(FRESH_FOR(.state = STATE_SUCCEEDED, .urls_expire_at = now / 1000 - 86400), 60000);
    assert_int_equal(FRESH_FOR(.state = STATE_SUCCEEDED, .urls_expire_at = 1), 60000);
}

/* ---- a wall clock that is set ---- */

static int64_t left_after(struct snapshot draft, int64_t loop_ms, int64_t date_ms)
{
    struct snapshot *s = made(draft);
    int64_t left_ms = snapshot_left_ms(s, (struct moment){present.ms + loop_ms, present.date_ms + date_ms});
    snapshot_unref(s);
    return left_ms;
}

TEST(interval_does_not_depend_on_the_wall_clock)
{
    const struct snapshot running = {.state = STATE_RUNNING, .created_ms = now};
    const struct snapshot ended = {.state = STATE_SUCCEEDED};
    for (int64_t set_ms = -3600000; set_ms <= 3600000; set_ms += 3600000) {
        assert_int_equal(left_after(running, 500, set_ms), 1500);
        assert_int_equal(left_after(ended, 500, set_ms), rules.terminal_ttl_ms - 500);
    }
}

TEST(urls_expire_on_their_date)
{
    const struct snapshot ended = {.state = STATE_SUCCEEDED, .urls_expire_at = now / 1000 + 3600};
    assert_int_equal(left_after(ended, 0, 3000000), 540000);
    assert_int_equal(left_after(ended, 0, 3540000), 0);
    assert_int_equal(left_after(ended, 3540000, -3600000), 0); /* not later than expected */
    const struct snapshot expired = {.state = STATE_SUCCEEDED, .urls_expire_at = now / 1000 - 1};
    assert_int_equal(left_after(expired, 0, 3600000), 60000); /* at most one query a minute */
}

TEST(poll_interval_grows_with_task_age)
{
    assert_int_equal(FRESH_FOR(.state = STATE_QUEUED, .created_ms = now), 2000);
    assert_int_equal(FRESH_FOR(.state = STATE_RUNNING, .created_ms = now - 16000), 2000);
    assert_int_equal(FRESH_FOR(.state = STATE_RUNNING, .created_ms = now - 64000), 8000);
    assert_int_equal(FRESH_FOR(.state = STATE_RUNNING, .created_ms = now - 1000000), 15000);
    assert_int_equal(FRESH_FOR(.state = STATE_RUNNING, .created_ms = 0), 15000);
}

TEST(running_task_from_the_future_counts_as_new)
{
    assert_int_equal(FRESH_FOR(.state = STATE_RUNNING, .created_ms = now + 86400000), 2000);
}

TEST(urls_of_a_running_task_do_not_shorten_its_interval)
{
    assert_int_equal(FRESH_FOR(.state = STATE_RUNNING, .created_ms = now, .urls_expire_at = 5), 2000);
}

TEST(retry_after_is_respected_up_to_a_limit)
{
    assert_int_equal(FRESH_FOR(.state = STATE_RUNNING, .created_ms = now, .retry_after_ms = 30000), 30000);
    assert_int_equal(FRESH_FOR(.state = STATE_RUNNING, .created_ms = now, .retry_after_ms = 1000), 2000);
    assert_int_equal(FRESH_FOR(.state = STATE_RUNNING, .created_ms = now, .retry_after_ms = INT64_MAX),
                     300000);
    assert_int_equal(FRESH_FOR(.state = STATE_RUNNING, .created_ms = now, .retry_after_ms = -5000), 2000);
}

TEST(retry_after_does_not_extend_an_ended_task_past_its_urls)
{
    assert_int_equal(
        FRESH_FOR(.state = STATE_SUCCEEDED, .urls_expire_at = now / 1000 + 90, .retry_after_ms = 300000),
        30000);
}

TEST(etag_is_a_strong_validator_of_the_bytes)
{
    struct snapshot *a = made((struct snapshot){.state = STATE_RUNNING});
    struct snapshot *b = made((struct snapshot){.state = STATE_SUCCEEDED});
    assert_int_equal(strlen(a->views[0].etag), ETAG_SIZE - 1);
    assert_int_equal(a->views[0].etag[0], '"');
    assert_int_equal(a->views[0].etag[ETAG_SIZE - 2], '"');
    assert_string_equal(a->views[VIEW_NATIVE].etag, b->views[VIEW_NATIVE].etag);
    assert_string_not_equal(a->views[VIEW_NATIVE].etag, a->views[VIEW_UNIFIED].etag);
    snapshot_unref(a);
    snapshot_unref(b);
}

TEST(third_view_takes_memory_only_if_there_is_one)
{
    static const char keyed[] = "{\"needs_key\":true}";
    struct snapshot *without = made((struct snapshot){.state = STATE_SUCCEEDED});
    struct snapshot *with = made((struct snapshot){
        .state = STATE_SUCCEEDED, .views[VIEW_KEYED] = {.data = keyed, .len = sizeof(keyed) - 1}});
    assert_int_equal(snapshot_bytes(with) - snapshot_bytes(without), sizeof(struct blob) + sizeof(keyed));
    assert_ptr_equal(snapshot_view(without, VIEW_KEYED), &without->views[VIEW_UNIFIED]);
    assert_ptr_equal(snapshot_view(with, VIEW_KEYED), &with->views[VIEW_KEYED]);
    snapshot_unref(without);
    snapshot_unref(with);
}

TEST(snapshot_lives_while_referenced)
{
    struct snapshot *s = made((struct snapshot){.state = STATE_RUNNING});
    assert_ptr_equal(snapshot_ref(s), s);
    snapshot_unref(s);
    assert_string_equal(s->views[VIEW_NATIVE].data, native);
    snapshot_unref(s);
    snapshot_unref(NULL);
}

/* ---- the format in Redis ---- */

static struct buf encoded(void)
{
    struct buf out;
    struct snapshot *s = made((struct snapshot){.state = STATE_SUCCEEDED,
                                                .created_ms = now - 60000,
                                                .urls_expire_at = now / 1000 + 3600,
                                                .key = "0123abcd",
                                                .identity = "0123456789abcdef0123456789abcdef"});
    buf_init(&out, 65536);
    snapshot_encode(s, "0123456789abcdef", 9, &out);
    snapshot_unref(s);
    return out;
}

/* Decodes a value that Redis keeps for a further `ttl_ms`, on a host whose clock is behind by `behind_ms`. */
static struct snapshot *decoded_at(const char *value, size_t len, int64_t ttl_ms, int64_t behind_ms,
                                   const char **ret_why)
{
    const struct snapshot_reading reading = {
        "0123456789abcdef", &rules, {present.ms, present.date_ms - behind_ms}, ttl_ms};
    /* Exactly as long as the value, so that the sanitizer detects reads past the end. */
    char *exact = malloc(len > 0 ? len : 1);
    memcpy(exact, value, len);
    *ret_why = NULL;
    struct snapshot *s = snapshot_decode(exact, len, &reading, ret_why);
    free(exact);
    return s;
}

/* One that was just stored. */
static struct snapshot *decoded(const char *value, size_t len, const char **ret_why)
{
    return decoded_at(value, len, 9, 0, ret_why);
}

TEST(snapshot_round_trips_through_redis)
{
    struct buf value = encoded();
    const char *why;
    struct snapshot *s = decoded(value.data, value.len, &why);
    assert_non_null(s);
    assert_null(why);
    assert_int_equal(s->refs, 1);
    assert_int_equal(s->state, STATE_SUCCEEDED);
    assert_true(s->known);
    assert_int_equal(s->created_ms, now - 60000);
    assert_int_equal(s->fetched_ms, now);
    assert_int_equal(s->urls_expire_at, now / 1000 + 3600);
    assert_string_equal(s->key, "0123abcd");
    assert_string_equal(s->identity, "0123456789abcdef0123456789abcdef");
    assert_int_equal(s->since_ms, present.ms);
    assert_int_equal(s->fresh_until_ms, present.ms + 3540000);
    assert_string_equal(s->views[VIEW_NATIVE].data, native);
    assert_string_equal(s->views[VIEW_UNIFIED].data, unified);
    snapshot_unref(s);
    buf_done(&value);
}

TEST(value_of_another_provider_file_is_not_used)
{
    struct buf value = encoded();
    const char *why = NULL;
    assert_null(snapshot_decode(value.data, value.len,
                                &(struct snapshot_reading){"fedcba9876543210", &rules, present, 0}, &why));
    assert_string_equal(why, "another provider file");
    assert_null(snapshot_decode(value.data, value.len,
                                &(struct snapshot_reading){"0123456789abcde", &rules, present, 0}, &why));
    assert_null(
        snapshot_decode(value.data, value.len, &(struct snapshot_reading){"", &rules, present, 0}, &why));
    buf_done(&value);
}

TEST(truncated_or_overlong_value_is_rejected)
{
    struct buf value = encoded();
    const char *why;
    for (size_t len = 0; len < value.len; len++) {
        assert_null(decoded(value.data, len, &why));
        assert_non_null(why);
    }
    buf_putc(&value, 'x');
    assert_null(decoded(value.data, value.len, &why));
    buf_done(&value);
}

TEST(random_bit_flips_do_not_crash_it)
{
    struct buf value = encoded();
    const char *why;
    for (size_t i = 0; i < value.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            value.data[i] ^= (char)(1 << bit);
            struct snapshot *s = decoded(value.data, value.len, &why);
            assert_true((s == NULL) == (why != NULL));
            snapshot_unref(s);
            value.data[i] ^= (char)(1 << bit);
        }
    }
    buf_done(&value);
}

#define H "taskproxy/7 0123456789abcdef "

TEST(stored_value_keeps_retry_after)
{
    static const char value[] = H "running 1000 2000 600000 0 60000 - - 0 0 0\n";
    const char *why;
    struct snapshot *s = decoded_at(value, sizeof(value) - 1, 599000, 0, &why);
    assert_int_equal(snapshot_left_ms(s, present), 59000);
    snapshot_unref(s);
}

static int64_t left_by_redis(int64_t ttl_ms, int64_t behind_ms)
{
    static const char value[] = H "running 1000 1000 600000 0 0 - - 0 0 0\n";
    const char *why;
    struct snapshot *s = decoded_at(value, sizeof(value) - 1, ttl_ms, behind_ms, &why);
    int64_t left_ms = snapshot_left_ms(s, present);
    snapshot_unref(s);
    return left_ms;
}

TEST(age_of_a_stored_value_goes_by_the_clock_of_redis)
{
    for (int64_t behind_ms = -3600000; behind_ms <= 3600000; behind_ms += 1800000) {
        assert_int_equal(left_by_redis(600000, behind_ms), 2000);
        assert_int_equal(left_by_redis(598500, behind_ms), 500);
        assert_int_equal(left_by_redis(590000, behind_ms), -8000);
    }
}

TEST(stored_value_of_unknown_age_is_not_used)
{
    static const char value[] = H "running 1000 1000 600000 0 0 - - 0 0 0\n";
    static const int64_t ttls[] = {-1, 600001, 4200000}; /* no expiry; the clock of Redis was set back */
    for (size_t i = 0; i < NELEMS(ttls); i++) {
        const char *why;
        assert_null(decoded_at(value, sizeof(value) - 1, ttls[i], 0, &why));
        assert_string_equal(why, "unknown age (was the clock of Redis set back?)");
    }
}

TEST(foreign_and_hostile_values_are_rejected)
{
    static const char *const bad[] = {"",
                                      "\n",
                                      " \n",
                                      "hello\n",
                                      "{\"a\":1}",
                                      "taskproxy/7\n",
                                      "taskproxy/4 0123456789abcdef running 1 1 1 0 0 - - 0 0 0\n",
                                      H "\n",
                                      H "running\n",
                                      H "running 1 1 9 0 0 0\n",
                                      H "running 1 1 9 0 0 - - 1 0 0\n",
                                      H "running 1 1 9 0 0 - - 0 0 0\nx",
                                      H "running 1 1 -1 0 0 - - 0 0 0\n",
                                      H "running 1 1 9223372036854775807 0 0 - - 0 0 0\n",
                                      H "running 1 1 9 0 -1 - - 0 0 0\n",
                                      H "running 1 1 9 0 x - - 0 0 0\n",
                                      H "none 1 1 9 0 0 - - 0 0 0\n",
                                      H "Running 1 1 9 0 0 - - 0 0 0\n",
                                      H "running -1 1 9 0 0 - - 0 0 0\n",
                                      H "running 1 x 9 0 0 - - 0 0 0\n",
                                      H "running 1 1 9 0 0 - - 18446744073709551615 0 0\n",
                                      H "running 1 1 9 0 0 - - 9223372036854775807 9223372036854775807 0\nab",
                                      H "running 9223372036854775807 1 9 0 0 - - 0 0 0\n",
                                      H "running 1 9223372036854775807 9 0 0 - - 0 0 0\n",
                                      H "succeeded 1 1 9 9223372036854775807 0 - - 0 0 0\n",
                                      H "succeeded 1 1 9 281474976711 0 - - 0 0 0\n",
                                      H "running 1 1 9 0 0 - - 2 18446744073709551615 0\nab",
                                      H "running 1 1 9 0 0 - - 0x0 0 0\n",
                                      H "running 1 1 9 0 0 - 0 0\n",
                                      H "running 1 1 9 0 0 - 0123456789abcdef0123456789abcde 0 0\n",
                                      H "running 1 1 9 0 0 - 0123456789abcdef0123456789abcdef0 0 0\n",
                                      H "running 1 1 9 0 0 - 0123456789ABCDEF0123456789abcdef 0 0\n",
                                      H "running 1 1 9 0 0 0123456 - 0 0\n",
                                      H "running 1 1 9 0 0 012345678 - 0 0\n",
                                      H "running 1 1 9 0 0 0123456G - 0 0\n"};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        const char *why;
        if (decoded(bad[i], strlen(bad[i]), &why) != NULL)
            fail_msg("taken: %s", bad[i]);
        assert_non_null(why);
    }
}

TEST(unterminated_head_is_not_searched_forever)
{
    static char value[1 << 20];
    const char *why;
    memset(value, 'a', sizeof(value));
    value[sizeof(value) - 1] = '\n';
    assert_null(decoded(value, sizeof(value), &why));
    assert_string_equal(why, "another format");
}

TEST(empty_views_are_valid)
{
    static const char value[] = H "running 1 1 9 0 0 - - 0 0 0\n";
    const char *why;
    struct snapshot *s = decoded(value, sizeof(value) - 1, &why);
    assert_non_null(s);
    assert_string_equal(s->views[VIEW_UNIFIED].data, "");
    snapshot_unref(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ended_task_is_fresh_for_its_ttl),
        cmocka_unit_test(url_expiry_less_a_minute_shortens_the_ttl),
        cmocka_unit_test(expiring_urls_are_refreshed_at_the_poll_interval),
        cmocka_unit_test(expired_urls_are_refreshed_each_minute),
        cmocka_unit_test(interval_does_not_depend_on_the_wall_clock),
        cmocka_unit_test(urls_expire_on_their_date),
        cmocka_unit_test(poll_interval_grows_with_task_age),
        cmocka_unit_test(running_task_from_the_future_counts_as_new),
        cmocka_unit_test(urls_of_a_running_task_do_not_shorten_its_interval),
        cmocka_unit_test(retry_after_is_respected_up_to_a_limit),
        cmocka_unit_test(retry_after_does_not_extend_an_ended_task_past_its_urls),
        cmocka_unit_test(etag_is_a_strong_validator_of_the_bytes),
        cmocka_unit_test(third_view_takes_memory_only_if_there_is_one),
        cmocka_unit_test(snapshot_lives_while_referenced),
        cmocka_unit_test(snapshot_round_trips_through_redis),
        cmocka_unit_test(value_of_another_provider_file_is_not_used),
        cmocka_unit_test(truncated_or_overlong_value_is_rejected),
        cmocka_unit_test(random_bit_flips_do_not_crash_it),
        cmocka_unit_test(stored_value_keeps_retry_after),
        cmocka_unit_test(age_of_a_stored_value_goes_by_the_clock_of_redis),
        cmocka_unit_test(stored_value_of_unknown_age_is_not_used),
        cmocka_unit_test(foreign_and_hostile_values_are_rejected),
        cmocka_unit_test(unterminated_head_is_not_searched_forever),
        cmocka_unit_test(empty_views_are_valid),
    };
    return cmocka_run_group_tests_name("snapshot", tests, NULL, NULL);
}
