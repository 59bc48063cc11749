/* The counters of one process, and the sum over several. */
#include "unit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/stats.h"

static struct shm_counters sheet, total;

static void reset(void)
{
    shm_counters_reset(&sheet);
    shm_counters_reset(&total);
}

static void given(struct shm_counters *in, const char *key, int64_t value)
{
    size_t at = shm_counters_series(in, key, 1, 0);
    assert_true(at < SHM_COUNTERS_VALUES);
    shm_counters_add(in, at, value);
}

static int64_t value_of(struct shm_counters *in, const char *key)
{
    uint32_t before = in->n;
    size_t at = shm_counters_series(in, key, 1, 0);
    assert_int_equal(in->n, before); /* it was there */
    return in->values[at];
}

TEST(series_is_found_by_its_key)
{
    reset();
    given(&sheet, "a_total{x=\"1\"}", 1);
    given(&sheet, "a_total{x=\"2\"}", 2);
    given(&sheet, "a_total{x=\"1\"}", 10);
    assert_int_equal(value_of(&sheet, "a_total{x=\"1\"}"), 11);
    assert_int_equal(value_of(&sheet, "a_total{x=\"2\"}"), 2);
    assert_int_equal(sheet.n, 2);
}

TEST(sheets_are_summed_by_key_at_any_position)
{
    reset();
    given(&total, "a_total", 1);
    given(&total, "b_total", 2);
    given(&sheet, "c_total", 5);
    given(&sheet, "b_total", 7);
    shm_counters_fold(&total, &sheet, SHM_COUNTERS_TOTALS);
    assert_int_equal(value_of(&total, "a_total"), 1);
    assert_int_equal(value_of(&total, "b_total"), 9);
    assert_int_equal(value_of(&total, "c_total"), 5);
}

TEST(totals_are_counters_and_histograms_and_no_gauges)
{
    reset();
    given(&sheet, "waiters", 3);
    given(&sheet, "a_total{x=\"1\"}", 1);
    size_t at = shm_counters_series(&sheet, "seconds", 4, 0);
    shm_counters_add(&sheet, at + 3, 4);
    shm_counters_fold(&total, &sheet, SHM_COUNTERS_TOTALS);
    assert_int_equal(total.n, 1 + 4);
    assert_int_equal(total.values[shm_counters_series(&total, "seconds", 4, 0) + 3], 4);
    shm_counters_fold(&total, &sheet, SHM_COUNTERS_ALL);
    assert_int_equal(value_of(&total, "waiters"), 3);
}

TEST(latest_time_remains)
{
    reset();
    given(&total, "x_timestamp_seconds{key=\"a\"}", 20);
    given(&sheet, "x_timestamp_seconds{key=\"a\"}", 10);
    shm_counters_fold(&total, &sheet, SHM_COUNTERS_ALL);
    assert_int_equal(value_of(&total, "x_timestamp_seconds{key=\"a\"}"), 20);
    given(&sheet, "x_timestamp_seconds{key=\"a\"}", 20);
    shm_counters_fold(&total, &sheet, SHM_COUNTERS_TOTALS);
    assert_int_equal(value_of(&total, "x_timestamp_seconds{key=\"a\"}"), 30);
}

TEST(full_sheet_rejects_new_series_and_keeps_the_old)
{
    char key[32];
    reset();
    for (int i = 0; i < SHM_COUNTERS_VALUES; i++) {
        snprintf(key, sizeof(key), "a_total{x=\"%d\"}", i);
        assert_int_equal(shm_counters_series(&sheet, key, 1, (size_t)i), i);
    }
    assert_int_equal(shm_counters_series(&sheet, "one_more_total", 1, 0), SHM_COUNTERS_VALUES);
    given(&total, "a_total{x=\"7\"}", 3);
    assert_true(shm_counters_fold(&sheet, &total, SHM_COUNTERS_ALL));
    given(&total, "one_more_total", 1);
    assert_false(shm_counters_fold(&sheet, &total, SHM_COUNTERS_ALL));
    assert_int_equal(value_of(&sheet, "a_total{x=\"7\"}"), 6);
}

TEST(overlong_key_is_rejected)
{
    char key[SHM_COUNTERS_KEY + 1];
    reset();
    memset(key, 'a', SHM_COUNTERS_KEY);
    key[SHM_COUNTERS_KEY] = '\0';
    assert_int_equal(shm_counters_series(&sheet, key, 1, 0), SHM_COUNTERS_VALUES);
    assert_true(shm_counters_series(&sheet, key + 1, 1, 0) < SHM_COUNTERS_VALUES);
}

TEST(corrupt_sheet_is_harmless)
{
    reset();
    given(&sheet, "a_total", 1);
    memset(sheet.keys, 'x', sizeof(sheet.keys));
    sheet.n = UINT32_MAX;
    shm_counters_fold(&total, &sheet, SHM_COUNTERS_ALL);
    assert_int_equal(total.n, 1);
    assert_int_equal(strlen(total.keys[0]), SHM_COUNTERS_KEY - 1);
    memset(sheet.keys, 0, sizeof(sheet.keys));
    shm_counters_fold(&total, &sheet, SHM_COUNTERS_ALL); /* one unnamed series of the maximum width */
    assert_int_equal(total.n, 1);
}

TEST(sheet_of_another_layout_is_not_read)
{
    reset();
    given(&sheet, "a_total", 1);
    sheet.layout++;
    shm_counters_fold(&total, &sheet, SHM_COUNTERS_ALL);
    assert_int_equal(total.n, 0);
}

TEST(sum_of_no_slot_is_zero)
{
    int fd = stats_create();
    assert_int_equal(stats_attach(fd, STATS_MASTER_SLOT), 0);
    stat_inc(STAT_REDIS_FAILURES);
    stats_sum(&total);
    assert_int_equal(stat_read(&total, STAT_REDIS_FAILURES), 1);
    stats_sum_of(-1, &total);
    assert_int_equal(stat_read(&total, STAT_REDIS_FAILURES), 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(series_is_found_by_its_key),
        cmocka_unit_test(sheets_are_summed_by_key_at_any_position),
        cmocka_unit_test(totals_are_counters_and_histograms_and_no_gauges),
        cmocka_unit_test(latest_time_remains),
        cmocka_unit_test(full_sheet_rejects_new_series_and_keeps_the_old),
        cmocka_unit_test(overlong_key_is_rejected),
        cmocka_unit_test(corrupt_sheet_is_harmless),
        cmocka_unit_test(sheet_of_another_layout_is_not_read),
        cmocka_unit_test(sum_of_no_slot_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
