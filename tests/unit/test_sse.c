/* Server-sent events, as they come in pieces. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "cli/sse.h"

static struct sse sse;
static char got[512]; /* the events so far: type=data; */

static void on_event(void *ctx, const struct sse_event *event)
{
    (void)ctx;
    size_t len = strlen(got);
    assert_int_equal(strlen(event->data), event->len);
    snprintf(got + len, sizeof(got) - len, "%s=%s;", event->type, event->data);
}

static int begin(void **state)
{
    (void)state;
    got[0] = '\0';
    sse_init(&sse, 64, on_event, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    sse_done(&sse);
    return 0;
}

static void feed(const char *text)
{
    assert_true(sse_feed(&sse, text, strlen(text)));
}

TEST(an_event_ends_with_an_empty_line)
{
    feed("event: status\nid: 1\ndata: {}\n");
    assert_string_equal(got, "");
    feed("\n");
    assert_string_equal(got, "status={};");
    assert_string_equal(sse.last_id, "1");
}

TEST(lines_end_in_any_of_three_ways)
{
    feed("data: a\r\rdata: b\n\ndata: c\r\n\r\ndata: d\r\n\n");
    assert_string_equal(got, "message=a;message=b;message=c;message=d;");
}

TEST(it_does_not_matter_where_the_pieces_are_cut)
{
    const char *text = "event: x\r\ndata: a\r\ndata:b\r\n\r\n: no\r\ndata\r\n\r\nid: 7\r\ndata:  c\r\n\r\n";
    for (const char *c = text; *c != '\0'; c++)
        assert_true(sse_feed(&sse, c, 1));
    assert_string_equal(got, "x=a\nb;message=;message= c;");
    assert_string_equal(sse.last_id, "7");
}

TEST(without_data_there_is_no_event)
{
    feed("event: x\nid: 3\n\n: a comment\n\nunknown: y\n\n");
    assert_string_equal(got, "");
    assert_string_equal(sse.last_id, "3");
    feed("data: a\n\n");
    assert_string_equal(got, "message=a;"); /* the type was that of the event that was none */
}

TEST(half_an_event_is_forgotten_with_its_id)
{
    feed("id: 1\ndata: a\n\nid: 2\ndata: b\nda");
    sse_restart(&sse);
    assert_string_equal(sse.last_id, "1");
    feed("data: c\n\n");
    assert_string_equal(got, "message=a;message=c;");
    assert_string_equal(sse.last_id, "1");
}

TEST(an_id_that_can_stand_in_no_header_is_none)
{
    feed("id: a b\ndata: x\n\n");
    assert_string_equal(sse.last_id, "");
    assert_true(sse_feed(&sse, "id: a\0b\ndata: x\n\n", 17));
    assert_string_equal(sse.last_id, "");
    feed("id: good\ndata: x\n\nid\ndata: x\n\n");
    assert_string_equal(sse.last_id, "");
}

TEST(what_is_too_large_is_refused)
{
    char line[80];
    memset(line, 'x', sizeof(line));
    assert_false(sse_feed(&sse, line, sizeof(line)));
    sse_restart(&sse);
    feed("data: 0123456789012345678901234567890123456789\n");
    assert_false(sse_feed(&sse, "data: 0123456789012345678901234567890123456789\n", 47));
    assert_string_equal(got, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_event_ends_with_an_empty_line, begin, end),
        cmocka_unit_test_setup_teardown(lines_end_in_any_of_three_ways, begin, end),
        cmocka_unit_test_setup_teardown(it_does_not_matter_where_the_pieces_are_cut, begin, end),
        cmocka_unit_test_setup_teardown(without_data_there_is_no_event, begin, end),
        cmocka_unit_test_setup_teardown(half_an_event_is_forgotten_with_its_id, begin, end),
        cmocka_unit_test_setup_teardown(an_id_that_can_stand_in_no_header_is_none, begin, end),
        cmocka_unit_test_setup_teardown(what_is_too_large_is_refused, begin, end),
    };
    return cmocka_run_group_tests_name("sse", tests, NULL, NULL);
}
