/* The samples of the last 15 minutes. */
#include "unit.h"

#include "server/history.h"

static struct history history;

/* Takes a sample after n more queries were spared. */
static void sample(int64_t n)
{
    static const struct conf no_upstreams;
    stat_add(STAT_SPARED, n);
    history_sample(&history, &no_upstreams);
}

/* Checks that the values are first, first + 1 and so on. */
static void assert_spared(int64_t first, size_t n)
{
    struct json_object *page = history_json(&history), *values = NULL;
    json_object_object_get_ex(page, "queries_spared", &values);
    assert_int_equal(json_object_array_length(values), n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(json_object_get_int64(json_object_array_get_idx(values, i)), first + (int64_t)i);
    json_object_put(page);
}

static int set_up(void **unused)
{
    (void)unused;
    history = (struct history){0};
    return stats_attach(stats_create(), STATS_MASTER_SLOT);
}

TEST(no_step_before_the_second_sample)
{
    assert_spared(0, 0);
    sample(5);
    assert_spared(0, 0);
}

TEST(a_value_is_the_growth_between_two_samples)
{
    for (int64_t n = 5; n <= 8; n++)
        sample(n);
    assert_spared(6, 3);
}

TEST(only_the_last_fifteen_minutes_are_kept)
{
    for (int64_t n = 0; n <= 250; n++)
        sample(n);
    assert_spared(161, HISTORY_STEPS);
}

TEST(a_sum_that_becomes_smaller_counts_as_no_growth)
{
    sample(9);
    sample(-3); /* as after a reload that removes an upstream */
    sample(1);
    assert_spared(0, 2); /* 0, 1 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(no_step_before_the_second_sample, set_up),
        cmocka_unit_test_setup(a_value_is_the_growth_between_two_samples, set_up),
        cmocka_unit_test_setup(only_the_last_fifteen_minutes_are_kept, set_up),
        cmocka_unit_test_setup(a_sum_that_becomes_smaller_counts_as_no_growth, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
