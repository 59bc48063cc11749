/* The table of outcomes: every row is complete and consistent. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "upstream/outcome.h"

static char *described(enum outcome outcome, const char *why)
{
    const struct outcome_details details = {.status = 503, .key = "keys/main", .pause_ms = 19001, .why = why};
    struct buf out;
    buf_init(&out, 256);
    buf_puts(&out, "");
    outcome_describe(outcome, &details, &out);
    assert_false(out.failed);
    return out.data;
}

static void assert_described(enum outcome outcome, const char *why, const char *expected)
{
    char *text = described(outcome, why);
    assert_string_equal(text, expected);
    free(text);
}

TEST(every_outcome_has_a_distinct_label)
{
    for (enum outcome i = 0; i < OUTCOME_COUNT; i++) {
        const char *label = outcome_row(i)->label;
        assert_int_equal(label[strspn(label, "abcdefghijklmnopqrstuvwxyz_")], '\0');
        assert_string_not_equal(label, "");
        for (enum outcome k = 0; k < i; k++)
            assert_string_not_equal(label, outcome_row(k)->label);
    }
}

TEST(every_outcome_without_an_answer_has_a_problem)
{
    for (enum outcome i = 0; i < OUTCOME_COUNT; i++) {
        bool none = i == OUTCOME_OK || i == OUTCOME_PARTIAL || i == OUTCOME_CANCELLED;
        assert_int_equal(outcome_row(i)->problem == PROBLEM_NONE, none);
    }
}

TEST(unsent_query_affects_neither_breaker_nor_keys)
{
    for (enum outcome i = 0; i < OUTCOME_COUNT; i++) {
        const struct outcome_row *row = outcome_row(i);
        if (row->kind != KIND_UNSENT)
            continue;
        assert_int_equal(row->breaker, BREAKER_NOTHING);
        assert_int_equal(row->key, KEY_NOTHING);
        assert_null(row->text);
    }
}

TEST(only_an_answer_affects_the_key_and_counts_as_upstream_success)
{
    for (enum outcome i = 0; i < OUTCOME_COUNT; i++) {
        const struct outcome_row *row = outcome_row(i);
        if (row->key == KEY_NOTHING)
            continue;
        assert_int_equal(row->kind, KIND_SENT);
        assert_int_equal(row->breaker, BREAKER_GOOD);
    }
}

TEST(every_failure_and_every_refusal_is_logged)
{
    for (enum outcome i = 0; i < OUTCOME_COUNT; i++) {
        const struct outcome_row *row = outcome_row(i);
        bool complains = row->kind == KIND_FAILED || row->key > KEY_MISSING;
        char *text = described(i, "why");
        assert_int_equal(row->text != NULL, complains);
        assert_int_equal(text[0] != '\0', complains);
        assert_null(strpbrk(text, "{}"));
        free(text);
    }
}

TEST(log_text_is_filled_in)
{
    assert_described(OUTCOME_REFUSED, NULL, "rejected API key keys/main (HTTP 503)");
    assert_described(OUTCOME_BUSY, NULL, "rate limit, HTTP 503 for key keys/main; pausing it for 20 s");
    assert_described(OUTCOME_SERVER_ERROR, "why", "returned HTTP 503");
    assert_described(OUTCOME_ERROR, "an application error", "returned HTTP 503 (an application error)");
    assert_described(OUTCOME_UNREACHABLE, NULL, "could not be reached");
    assert_described(OUTCOME_OK, NULL, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_outcome_has_a_distinct_label),
        cmocka_unit_test(every_outcome_without_an_answer_has_a_problem),
        cmocka_unit_test(unsent_query_affects_neither_breaker_nor_keys),
        cmocka_unit_test(only_an_answer_affects_the_key_and_counts_as_upstream_success),
        cmocka_unit_test(every_failure_and_every_refusal_is_logged),
        cmocka_unit_test(log_text_is_filled_in),
    };
    return cmocka_run_group_tests_name("outcome", tests, NULL, NULL);
}
