/* The text of event streams: which events are sent, and the ids of lists. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "request/stream.h"

enum { TASKS = 2 };

static const struct snapshot_rules rules = {
    .terminal_ttl_ms = 3600000, .stale_for_ms = 600000, .poll_min_ms = 2000, .poll_max_ms = 15000};

static struct snapshot *made(const char *view)
{
    const struct snapshot draft = {.state = STATE_RUNNING,
                                   .known = true,
                                   .views = {[VIEW_UNIFIED] = {.data = view, .len = strlen(view)}}};
    return snapshot_new(&draft, &rules, (struct moment){5000, 1736867746000});
}

/* A list of tasks whose lookups are settled, without a result. */
static void begin(struct lookups *ls, struct lookup items[static TASKS])
{
    *ls = (struct lookups){.request_id = "req-1", .items = items, .n = TASKS};
    for (size_t i = 0; i < TASKS; i++) {
        items[i] = (struct lookup){.lookups = ls, .stage = STAGE_SETTLED};
        snprintf(items[i].task.key, sizeof(items[i].task.key), "p/t%zu", i);
    }
}

static void show(struct lookup *l, const char *view)
{
    snapshot_unref(l->snapshot);
    l->snapshot = made(view);
    l->problem = PROBLEM_NONE;
}

static void trouble(struct lookup *l, enum problem problem)
{
    l->problem = problem;
}

static void end(struct lookup items[static TASKS])
{
    for (size_t i = 0; i < TASKS; i++)
        snapshot_unref(items[i].snapshot);
}

/* How often the next events contain the text; -1: there are no events. */
static int count_in_news(struct lookups *ls, const char *wanted)
{
    struct buf text;
    int n = 0;
    buf_init(&text, 65536);
    stream_add_news(ls, VIEW_UNIFIED, &text);
    bool none = text.len == 0;
    for (const char *at = text.data; !none && (at = strstr(at, wanted)) != NULL; at++)
        n++;
    buf_done(&text);
    return none ? -1 : n;
}

static void only_the_last_event_of_a_list_has_an_id(void **state)
{
    struct lookup items[TASKS];
    struct lookups ls;
    (void)state;
    begin(&ls, items);
    show(&items[0], "{\"a\":1}");
    show(&items[1], "{\"b\":1}");
    assert_int_equal(count_in_news(&ls, "\nid: "), 1);
    assert_int_equal(count_in_news(&ls, "event"), -1);
    show(&items[1], "{\"b\":2}");
    assert_int_equal(count_in_news(&ls, "event: status\nid: "), 1);
    end(items);
}

static void unsettled_lookup_is_no_news(void **state)
{
    struct lookup items[TASKS];
    struct lookups ls;
    (void)state;
    begin(&ls, items);
    show(&items[0], "{\"a\":1}");
    for (items[0].stage = STAGE_FETCH; items[0].stage < STAGE_SETTLED; items[0].stage++)
        assert_int_equal(count_in_news(&ls, "event"), -1);
    assert_int_equal(count_in_news(&ls, "event: status\n"), 1);
    end(items);
}

static void problem_that_may_pass_is_one_event_and_ends_with_a_status(void **state)
{
    struct lookup items[TASKS];
    struct lookups ls;
    (void)state;
    begin(&ls, items);
    show(&items[0], "{\"a\":1}");
    assert_int_equal(count_in_news(&ls, "event: status\n"), 1);
    trouble(&items[0], PROBLEM_UPSTREAM_TIMEOUT);
    assert_int_equal(count_in_news(&ls, "event: problem\n"), 1);
    assert_int_equal(count_in_news(&ls, "event"), -1);
    trouble(&items[0], PROBLEM_NONE);
    assert_int_equal(count_in_news(&ls, "event: status\n"), 1);
    end(items);
}

static void last_event_id_says_what_the_client_knows(void **state)
{
    static const char *const malformed[] = {
        NULL, "", "0123456", "0123456789abcde", "0123456789abcdef0", "0123456789abcde\n"};
    struct lookup items[TASKS];
    struct lookups ls;
    char id[17];
    (void)state;
    begin(&ls, items);
    show(&items[0], "{\"a\":1}");
    show(&items[1], "{\"b\":1}");
    for (size_t i = 0; i < NELEMS(malformed); i++)
        assert_false(stream_take_last_id(&ls, malformed[i]));
    const char *etags[] = {items[0].snapshot->views[VIEW_UNIFIED].etag,
                           items[1].snapshot->views[VIEW_UNIFIED].etag};
    snprintf(id, sizeof(id), "%.8s--------", etags[0] + 1);
    assert_false(stream_take_last_id(&ls, id)); /* it does not know the second task */
    assert_int_equal(count_in_news(&ls, "event: status\n"), 1);
    snprintf(id, sizeof(id), "%.8s%.8s", etags[0] + 1, etags[1] + 1);
    assert_true(stream_take_last_id(&ls, id));
    assert_int_equal(count_in_news(&ls, "event"), -1);
    end(items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_last_event_of_a_list_has_an_id),
        cmocka_unit_test(unsettled_lookup_is_no_news),
        cmocka_unit_test(problem_that_may_pass_is_one_event_and_ends_with_a_status),
        cmocka_unit_test(last_event_id_says_what_the_client_knows),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
