/* The numbers of one process, and how those of several are added up. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "../../fcgi/sheet.h"

static struct sheet sheet, total;

static void reset(void)
{
    sheet_reset(&sheet);
    sheet_reset(&total);
}

static void given(struct sheet *in, const char *key, int64_t value)
{
    size_t at = sheet_series(in, key, 1, 0);
    assert_true(at < SHEET_VALUES);
    sheet_add(in, at, value);
}

static int64_t value_of(struct sheet *in, const char *key)
{
    uint32_t before = in->n;
    size_t at = sheet_series(in, key, 1, 0);
    assert_int_equal(in->n, before); /* it was there */
    return in->values[at];
}

TEST(a_series_is_found_by_its_key)
{
    reset();
    given(&sheet, "a_total{x=\"1\"}", 1);
    given(&sheet, "a_total{x=\"2\"}", 2);
    given(&sheet, "a_total{x=\"1\"}", 10);
    assert_int_equal(value_of(&sheet, "a_total{x=\"1\"}"), 11);
    assert_int_equal(value_of(&sheet, "a_total{x=\"2\"}"), 2);
    assert_int_equal(sheet.n, 2);
}

TEST(sheets_add_up_by_key_wherever_it_stands)
{
    reset();
    given(&total, "a_total", 1);
    given(&total, "b_total", 2);
    given(&sheet, "c_total", 5);
    given(&sheet, "b_total", 7);
    sheet_fold(&total, &sheet, SHEET_TOTALS);
    assert_int_equal(value_of(&total, "a_total"), 1);
    assert_int_equal(value_of(&total, "b_total"), 9);
    assert_int_equal(value_of(&total, "c_total"), 5);
}

TEST(totals_are_counters_and_histograms_and_no_gauges)
{
    reset();
    given(&sheet, "waiters", 3);
    given(&sheet, "a_total{x=\"1\"}", 1);
    size_t at = sheet_series(&sheet, "seconds", 4, 0);
    sheet_add(&sheet, at + 3, 4);
    sheet_fold(&total, &sheet, SHEET_TOTALS);
    assert_int_equal(total.n, 1 + 4);
    assert_int_equal(total.values[sheet_series(&total, "seconds", 4, 0) + 3], 4);
    sheet_fold(&total, &sheet, SHEET_ALL);
    assert_int_equal(value_of(&total, "waiters"), 3);
}

TEST(a_full_sheet_takes_no_more_and_keeps_what_it_has)
{
    char key[32];
    reset();
    for (int i = 0; i < SHEET_VALUES; i++) {
        snprintf(key, sizeof(key), "a_total{x=\"%d\"}", i);
        assert_int_equal(sheet_series(&sheet, key, 1, (size_t)i), i);
    }
    assert_int_equal(sheet_series(&sheet, "one_more_total", 1, 0), SHEET_VALUES);
    given(&total, "one_more_total", 1);
    sheet_fold(&sheet, &total, SHEET_ALL);
    assert_int_equal(sheet_series(&sheet, "a_total{x=\"7\"}", 1, 0), 7);
}

TEST(a_key_that_is_too_long_is_refused)
{
    char key[SHEET_KEY + 1];
    reset();
    memset(key, 'a', SHEET_KEY);
    key[SHEET_KEY] = '\0';
    assert_int_equal(sheet_series(&sheet, key, 1, 0), SHEET_VALUES);
    assert_true(sheet_series(&sheet, key + 1, 1, 0) < SHEET_VALUES);
}

TEST(a_sheet_that_lies_about_itself_does_no_harm)
{
    reset();
    given(&sheet, "a_total", 1);
    memset(sheet.keys, 'x', sizeof(sheet.keys));
    sheet.n = UINT32_MAX;
    sheet_fold(&total, &sheet, SHEET_ALL);
    assert_int_equal(total.n, 1);
    assert_int_equal(strlen(total.keys[0]), SHEET_KEY - 1);
    memset(sheet.keys, 0, sizeof(sheet.keys));
    sheet_fold(&total, &sheet, SHEET_ALL); /* one series without a name, as wide as there is room */
    assert_int_equal(total.n, 1);
}

TEST(a_sheet_of_another_layout_is_not_read)
{
    reset();
    given(&sheet, "a_total", 1);
    sheet.layout++;
    sheet_fold(&total, &sheet, SHEET_ALL);
    assert_int_equal(total.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_series_is_found_by_its_key),
        cmocka_unit_test(sheets_add_up_by_key_wherever_it_stands),
        cmocka_unit_test(totals_are_counters_and_histograms_and_no_gauges),
        cmocka_unit_test(a_full_sheet_takes_no_more_and_keeps_what_it_has),
        cmocka_unit_test(a_key_that_is_too_long_is_refused),
        cmocka_unit_test(a_sheet_that_lies_about_itself_does_no_harm),
        cmocka_unit_test(a_sheet_of_another_layout_is_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
