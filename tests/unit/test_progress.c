/* The output of --watch for a task, and the URL that it requests. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "cli/follow.h"
#include "cli/progress.h"

static struct progress read_view(const char *text)
{
    struct progress p;
    assert_true(progress_read(text, strlen(text), &p));
    return p;
}

static void assert_shown(const char *text, const char *line)
{
    char out[PROGRESS_LINE_MAX];
    struct progress p = read_view(text);
    progress_line(&p, out);
    progress_done(&p);
    assert_string_equal(out, line);
}

static void assert_bar(int percent, int64_t elapsed_s, int width, const char *bar)
{
    char out[PROGRESS_LINE_MAX];
    const struct progress p = {.task = "sora/t", .state = STATE_RUNNING, .percent = percent};
    progress_bar(&p, elapsed_s, width, out);
    assert_string_equal(out, bar);
}

static void assert_no_view(const char *text)
{
    struct progress p;
    assert_false(progress_read(text, strlen(text), &p));
}

static void assert_url(const char *text, const char *base, const char *url)
{
    char *error = NULL, *got = follow_url(text, base, &error);
    assert_string_equal(got ? got : error, url);
    assert_true((got == NULL) == (error != NULL));
    free(got);
    free(error);
}

#define VIEW(rest) "{\"provider\":\"sora\",\"task_id\":\"t\"," rest "}"

TEST(line_shows_the_state_of_the_task)
{
    assert_shown(VIEW("\"status\":\"queued\",\"progress\":0"), "sora/t queued");
    assert_shown(VIEW("\"status\":\"running\",\"progress\":42"), "sora/t running 42 %");
    assert_shown(VIEW("\"status\":\"running\",\"progress\":null"), "sora/t running");
    assert_shown(VIEW("\"status\":\"succeeded\",\"progress\":100"), "sora/t succeeded");
    assert_shown(VIEW("\"status\":\"failed\",\"error\":\"refused\""), "sora/t failed: refused");
    assert_shown(VIEW("\"status\":\"cancelled\",\"error\":null"), "sora/t cancelled");
}

TEST(progress_is_shown_only_if_it_is_a_number)
{
    assert_shown(VIEW("\"status\":\"running\",\"progress\":101"), "sora/t running");
    assert_shown(VIEW("\"status\":\"running\",\"progress\":-1"), "sora/t running");
    assert_shown(VIEW("\"status\":\"running\",\"progress\":\"7%\""), "sora/t running");
}

TEST(results_are_those_that_have_a_url)
{
    struct progress p =
        read_view(VIEW("\"status\":\"succeeded\",\"results\":[{\"url\":\"https://a\"},{\"url\":7},null,\"x\","
                       "{\"url\":\"https://b\"}]"));
    char *const *urls = p.results.items;
    assert_int_equal(p.results.n, 2);
    assert_string_equal(urls[0], "https://a");
    assert_string_equal(urls[1], "https://b");
    progress_done(&p);
}

TEST(malformed_unified_view_is_rejected)
{
    assert_no_view("");
    assert_no_view("[]");
    assert_no_view("{\"status\":\"running\"}");
    assert_no_view(VIEW("\"status\":\"none\""));
    assert_no_view(VIEW("\"status\":\"IN_PROGRESS\""));
    assert_no_view("{\"code\":\"success\",\"data\":{\"status\":\"SUCCESS\"}}");
}

TEST(bar_fills_the_available_width)
{
    assert_bar(50, 65, 200, "sora/t  running  [####################....................]   50 %  1:05");
    assert_bar(0, 0, 48, "sora/t  running  [...............]    0 %  0:00");
    assert_bar(100, 3725, 48, "sora/t  running  [############]  100 %  1:02:05");
    assert_bar(-1, 5, 80, "sora/t  running  [........................................]  0:05");
}

TEST(narrow_terminal_has_no_bar)
{
    assert_bar(50, 0, 40, "sora/t  running   50 %  0:00");
    assert_bar(50, 0, 11, "sora/t  ru");
    assert_bar(50, 0, 1, "sora/t  running   50 %  0:00"); /* a terminal that does not know its width */
}

TEST(task_is_given_as_url_or_relative_to_a_base)
{
    assert_url("http://h/sora/v1/videos/t?team=a#x", "ignored", "http://h/sora/v1/videos/t?team=a");
    assert_url("sora/t", "http://127.0.0.1", "http://127.0.0.1/v1/tasks/sora/t");
    assert_url("kling/text2video/a b%", "https://h:8/proxy//",
               "https://h:8/proxy/v1/tasks/kling/text2video/a%20b%25");
    assert_url("sora/a?b#c\n", "http://h", "http://h/v1/tasks/sora/a%3Fb%23c%0A");
}

TEST(argument_without_a_task_is_rejected_with_a_reason)
{
    assert_url("t", "http://h", "\"t\" is neither a URL nor PROVIDER/ID");
    assert_url("so ra/t", "http://h", "\"so ra/t\" is neither a URL nor PROVIDER/ID");
    assert_url("ftp://h/t", "http://h", "\"ftp://h/t\" must begin with http:// or https://");
    assert_url("http://:80/t", "http://h", "\"http://:80/t\" has no host");
    assert_url("http://a:b@h/t", "http://h", "\"http://a:b@h/t\" must not contain a user name or password");
    assert_url("http://h/\303\274", "http://h",
               "\"http://h/\303\274\" must consist of visible ASCII characters");
    assert_url("sora/t", "h", "\"h\" must begin with http:// or https://");
    assert_url("sora/t", "http://h/?x", "\"http://h/?x\" must not have a query");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_shows_the_state_of_the_task),
        cmocka_unit_test(progress_is_shown_only_if_it_is_a_number),
        cmocka_unit_test(results_are_those_that_have_a_url),
        cmocka_unit_test(malformed_unified_view_is_rejected),
        cmocka_unit_test(bar_fills_the_available_width),
        cmocka_unit_test(narrow_terminal_has_no_bar),
        cmocka_unit_test(task_is_given_as_url_or_relative_to_a_base),
        cmocka_unit_test(argument_without_a_task_is_rejected_with_a_reason),
    };
    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
