/* From a request URI to its task, and the map for nginx. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "task/route.h"
#include "given.h"

#define PROVIDER(name, path, more)                                                                           \
    "{\"name\":\"" name "\",\"path\":\"" path "\",\"task_id\":\"[A-Za-z0-9_-]{1,128}\"" more                 \
    ",\"auth\":{\"header\":\"A\",\"value\":\"{key}\"},\"status\":{\"at\":\"/s\"},\"keep\":[\"/s\"]}"

static struct conf *conf;

static int load(void **unused __attribute__((unused)))
{
    const struct given given[] = {
        {"/x/t.json",
         "{\"workers\":2,\"socket_dir\":\"/run/t\",\"upstreams\":{\"main\":{\"base_url\":\"https://"
         "a\",\"key_files\":[\"key\"]},"
         "\"other\":{\"base_url\":\"https://b\",\"key_files\":[\"key\"]}},\"routes\":["
         "{\"provider\":\"sora\",\"upstream\":\"main\"},{\"provider\":\"fal\",\"upstream\":\"main\"},"
         "{\"provider\":\"mini\",\"upstream\":\"main\"},"
         "{\"provider\":\"sora\",\"upstream\":\"other\",\"path\":\"/second/{task_id}\"}]}",
         0},
        {"/x/key", "sk-12345678", 0},
        {"/x/providers/sora.json",
         PROVIDER("sora", "/sora/v1/videos/{task_id}",
                  ",\"unified\":{\"results\":[{\"type\":\"v\",\"url\":\"/u\",\"path\":\"/x\"}]}"),
         0},
        {"/x/providers/fal.json",
         PROVIDER("fal", "/{owner}/{app}/requests/{task_id}/status",
                  ",\"variables\":{\"owner\":\"[a-z-]+\",\"app\":\"[a-z.]+\"},"
                  "\"result\":{\"path\":\"/{owner}/{app}/requests/{task_id}\",\"into\":\"result\",\"served\":"
                  "{\"unfinished_status\":400,\"unfinished_detail\":\"running\",\"failed_status\":422}},"
                  "\"proxy\":{\"path\":\"/api/fal/proxy\",\"header\":\"X-Fal-Target\","
                  "\"origin\":\"https://queue.fal.run\"}"),
         0},
        {"/x/providers/mini.json",
         PROVIDER("mini", "/v1/query?task_id={task_id}",
                  ",\"unified\":{\"results\":[{\"type\":\"v\",\"url\":\"/"
                  "u\",\"download\":\"keyed\"},{\"type\":\"v\",\"url\":\"/u\",\"origins\":[\"https://"
                  "files\"]}]}"),
         0},
    };
    char *error;
    conf = conf_load("/x/t.json", given_files(given, NELEMS(given)), &error);
    if (conf == NULL)
        print_error("%s\n", error);
    return conf == NULL ? -1 : 0;
}

static int unload(void **unused __attribute__((unused)))
{
    conf_free(conf);
    return 0;
}

static void assert_found(const char *uri, enum route_kind kind, size_t route, const char *id)
{
    struct task task = {0};
    enum problem problem;
    assert_int_equal(route_find(conf, uri, &task, &problem), kind);
    assert_int_equal(problem, PROBLEM_NONE);
    assert_ptr_equal(task.route, conf_route(conf, route));
    assert_string_equal(task_id(&task), id);
}

static void assert_problem(const char *uri, enum problem expected)
{
    struct task task = {0};
    enum problem problem;
    if (route_find(conf, uri, &task, &problem) != ROUTE_NONE || problem != expected)
        fail_msg("%s: %s", uri, problem_code(problem));
}

TEST(provider_path_is_the_native_view)
{
    assert_found("/sora/v1/videos/task_01", ROUTE_NATIVE, 0, "task_01");
    assert_found("/sora/v1/videos/task_01?a=b", ROUTE_NATIVE, 0, "task_01");
    assert_found("/sora/v1/videos/task_01#x?y", ROUTE_NATIVE, 0, "task_01");
    assert_found("/fal-ai/pika/requests/ID/status", ROUTE_NATIVE, 1, "fal-ai/pika/ID");
    assert_found("/v1/query?task_id=42", ROUTE_NATIVE, 2, "42");
    assert_found("/second/task_01", ROUTE_NATIVE, 3, "task_01");
}

TEST(path_of_the_second_query_is_the_result_alone)
{
    assert_found("/fal-ai/pika/requests/ID", ROUTE_RESULT, 1, "fal-ai/pika/ID");
    assert_problem("/fal-ai/pika/requests/a.b", PROBLEM_BAD_ID);
    assert_problem("/fal-ai/pika/requests", PROBLEM_NOT_FOUND);
}

TEST(task_name_is_the_unified_view)
{
    assert_found("/v1/tasks/sora/task_01", ROUTE_UNIFIED, 0, "task_01");
    assert_found("/v1/tasks/sora/%74ask_01?x", ROUTE_UNIFIED, 0, "task_01");
    assert_found("/v1/tasks/fal/fal-ai/pika/ID", ROUTE_UNIFIED, 1, "fal-ai/pika/ID");
    assert_found("/v1/tasks/mini/42", ROUTE_UNIFIED, 2, "42");
}

static void assert_content(const char *uri, const char *id, size_t number)
{
    assert_found(uri, ROUTE_CONTENT, strchr(id, '/') ? 1 : 0, id);
    assert_int_equal(route_content_number(uri), number);
}

TEST(result_has_a_number_after_the_name_of_its_task)
{
    assert_content("/v1/tasks/sora/task_01/content/0", "task_01", 0);
    assert_content("/v1/tasks/sora/task_01/content/12?sig=1/2#3", "task_01", 12);
    assert_content("/v1/tasks/sora/%74ask_01/content/007", "task_01", 7);
    assert_content("/v1/tasks/fal/fal-ai/pika/ID/content/999999999", "fal-ai/pika/ID", 999999999);
    assert_found("/v1/tasks/fal/fal-ai/content/5", ROUTE_UNIFIED, 1, "fal-ai/content/5");
    assert_content("/v1/tasks/sora/task_01/content", "task_01", 0);
    static const char *const others[] = {"/",   "/x",   "/1x",         "/-1", "1",   "/%31",
                                         "/1/", "/1/2", "/1000000000", "/ 1", "//1", "/content"};
    for (size_t i = 0; i < NELEMS(others); i++) {
        char *uri = xasprintf("/v1/tasks/sora/task_01/content%s", others[i]);
        assert_problem(uri, PROBLEM_BAD_ID);
        free(uri);
    }
    assert_content("/sora/v1/videos/task_01/content?variant=video", "task_01", 0); /* OpenAI's clients */
    assert_content("/sora/v1/videos/task_01/content", "task_01", 0);
    assert_content("/sora/v1/videos/task_01/content?variant=thumbnail", "task_01", SIZE_MAX);
    assert_content("/sora/v1/videos/task_01/content?a=1&variant=spritesheet&wait=9", "task_01", SIZE_MAX);
    assert_content("/sora/v1/videos/task_01/content?invariant=thumbnail", "task_01", 0);
    assert_content("/sora/v1/videos/task_01/content/1", "task_01", 1);
    assert_content("/fal-ai/pika/requests/ID/content/1", "fal-ai/pika/ID", 1);
    assert_problem("/content", PROBLEM_NOT_FOUND);
    assert_problem("/1", PROBLEM_NOT_FOUND);
    assert_problem("1", PROBLEM_NOT_FOUND);
    assert_problem("", PROBLEM_NOT_FOUND);
    assert_problem("/sora/v1/videos/a.b/content", PROBLEM_BAD_ID);
    assert_problem("/v1/tasks/nobody/task_01/content/0", PROBLEM_NOT_FOUND);
    assert_problem("/v1/tasks/content/0", PROBLEM_NOT_FOUND);
    assert_problem("/v1/tasks/sora/a.b/content/0", PROBLEM_BAD_ID);
}

TEST(first_route_of_a_provider_is_the_named_one)
{
    for (size_t i = 0; i < conf->routes.n; i++)
        assert_int_equal(conf_route(conf, i)->named, i < 3);
}

TEST(other_paths_are_not_found)
{
    static const char *const uris[] = {"",
                                       "/",
                                       "*",
                                       "sora/v1/videos/x",
                                       "/sora",
                                       "/sora/v1/videos",
                                       "/sora/v1/videos/x/y",
                                       "//sora/v1/videos/x",
                                       "/v1/task",
                                       "/v1/tasksx",
                                       "/v1/tasks/none/x",
                                       "http://host/sora/v1/videos/x",
                                       "/../sora/v1/videos/x",
                                       "/Sora/v1/videos/x"};
    for (size_t i = 0; i < NELEMS(uris); i++)
        assert_problem(uris[i], PROBLEM_NOT_FOUND);
}

TEST(id_outside_its_grammar_is_a_bad_request)
{
    static const char *const uris[] = {"/sora/v1/videos/",
                                       "/sora/v1/videos/a.b",
                                       "/sora/v1/videos/..",
                                       "/sora/v1/videos/a%2fb",
                                       "/sora/v1/videos/%00",
                                       "/sora/v1/videos/%",
                                       "/v1/query",
                                       "/v1/query?task_id=",
                                       "/v1/query?task_id=a&task_id=b",
                                       "/v1/query?task_id=%2e%2e",
                                       "/v1/tasks/sora/",
                                       "/v1/tasks/sora/a/b",
                                       "/v1/tasks/sora/a%2Fb",
                                       "/v1/tasks/sora/%",
                                       "/v1/tasks/fal/fal-ai/ID",
                                       "/v1/tasks/fal/fal-ai%2Fpika%2FID",
                                       "/v1/tasks/sora/.."};
    for (size_t i = 0; i < NELEMS(uris); i++)
        assert_problem(uris[i], PROBLEM_BAD_ID);
}

TEST(uri_of_any_length_is_harmless)
{
    struct buf uri;
    struct task task;
    enum problem problem;
    buf_init(&uri, 1 << 20);
    buf_puts(&uri, "/v1/tasks/sora/");
    while (uri.len < 100000) {
        buf_puts(&uri, "aaaaaaa");
        assert_int_equal(route_find(conf, uri.data, &task, &problem),
                         uri.len - 15 <= 128 ? ROUTE_UNIFIED : ROUTE_NONE);
    }
    buf_done(&uri);
}

/* The number of tasks that route_ids finds in the query of /v1/tasks. */
static int ids_of(const char *query, struct task *tasks, enum problem *problems)
{
    char *uri = xasprintf("/v1/tasks%s", query);
    enum problem problem;
    assert_int_equal(route_find(conf, uri, tasks, &problem), ROUTE_MANY);
    int n = route_ids(conf, uri, tasks, problems);
    free(uri);
    return n;
}

TEST(list_is_parsed_in_order_with_a_problem_per_task)
{
    struct task tasks[ROUTE_IDS_MAX];
    enum problem problems[ROUTE_IDS_MAX];
    assert_int_equal(
        ids_of("?ids=sora/a,fal/fal-ai/pika/ID,none/x,sora/..,sora/a,sora,mini%2F42", tasks, problems), 7);
    static const enum problem expected[] = {PROBLEM_NONE,   PROBLEM_NONE, PROBLEM_NOT_FOUND,
                                            PROBLEM_BAD_ID, PROBLEM_NONE, PROBLEM_NOT_FOUND,
                                            PROBLEM_NONE};
    for (size_t i = 0; i < NELEMS(expected); i++) {
        assert_int_equal(problems[i], expected[i]);
        assert_int_equal(tasks[i].route != NULL, expected[i] == PROBLEM_NONE);
    }
    assert_string_equal(task_id(&tasks[1]), "fal-ai/pika/ID");
    assert_string_equal(task_id(&tasks[4]), "a");
    assert_string_equal(task_id(&tasks[6]), "42");
}

TEST(malformed_list_is_rejected_entirely)
{
    static const char *const queries[] = {"",
                                          "?",
                                          "?ids",
                                          "?ids=",
                                          "?ids=,",
                                          "?ids=sora/a,",
                                          "?ids=,sora/a",
                                          "?ids=sora/a,,sora/b",
                                          "?ids=sora/a&ids=sora/b",
                                          "?ids=%",
                                          "?ids=sora/a%00",
                                          "?id=sora/a"};
    struct task tasks[ROUTE_IDS_MAX];
    enum problem problems[ROUTE_IDS_MAX];
    for (size_t i = 0; i < NELEMS(queries); i++)
        assert_int_equal(ids_of(queries[i], tasks, problems), -1);
}

TEST(list_has_at_most_a_hundred_tasks)
{
    struct task tasks[ROUTE_IDS_MAX];
    enum problem problems[ROUTE_IDS_MAX];
    struct buf query;
    buf_init(&query, 1 << 20);
    buf_puts(&query, "?ids=sora/a");
    for (int n = 1; n < ROUTE_IDS_MAX; n++)
        buf_puts(&query, ",sora/a");
    assert_int_equal(ids_of(query.data, tasks, problems), ROUTE_IDS_MAX);
    buf_puts(&query, ",sora/a");
    assert_int_equal(ids_of(query.data, tasks, problems), -1);
    buf_done(&query);
}

TEST(key_consists_of_upstream_provider_and_id)
{
    struct task task;
    task_init(&task, conf_route(conf, 3), "task_01");
    assert_string_equal(task.key, "other:sora:task_01");
    assert_int_equal(task.key_len, strlen(task.key));
    assert_string_equal(task_id(&task), "task_01");
}

TEST(nginx_map_finds_the_task_in_a_uri)
{
    static const char *const lines[] = {
        "map \"$uri $http_x_fal_target\" $blue_uri {\n    default $uri;\n"
        "    \"~^/api/fal/proxy https://queue\\.fal\\.run(?<tp1>/[^?#]*)\" $tp1;\n}\n",
        "map \"$blue_uri?$args\" $blue_task {\n    default $blue_uri;\n    \"~^/v1/tasks\\?\" "
        "$request_uri;\n",
        "    \"~^/(?<tp1>[^/?]+)/(?<tp2>[^/?]+)/requests/(?<tp3>[^/?]+)\\?\" "
        "\"/${tp1}/${tp2}/requests/${tp3}/status\";\n",
        "    \"~^/v1/tasks/sora/(?<tp1>[^/?]+)(?:/content(?:/[0-9]+)?)?\\?\" \"/sora/v1/videos/${tp1}\";\n",
        "    \"~^/v1/tasks/fal/(?<tp1>[^/?]+)/(?<tp2>[^/?]+)/(?<tp3>[^/?]+)(?:/content(?:/[0-9]+)?)?\\?\" "
        "\"/${tp1}/${tp2}/requests/${tp3}/status\";\n",
        "    \"~^/v1/tasks/mini/(?<tp1>[^/?]+)(?:/content(?:/[0-9]+)?)?\\?\" \"/v1/query?task_id=${tp1}\";\n",
        "    \"~^/v1/query\\?(?=(?:.*&)?task_id=(?<tp1>[^&]+))\" \"/v1/query?task_id=${tp1}\";\n",
        "    \"~^(?<tp1>/[^?]+)/content(?:/[0-9]+)?\\?\" $tp1;\n",
        "\nupstream blue_https_a {\n    server a:443;\n    keepalive 8;\n}\n"
        "# proxy_ssl_trusted_certificate in taskproxy.conf must include /x/ca.pem.\n",
        "\nupstream blue_https_files {\n    server files:443;\n    keepalive 8;\n}\n",
        "\nupstream blue {\n    hash $blue_task consistent;\n",
        "    server unix:/run/t/worker-0.sock max_fails=0;\n    server unix:/run/t/worker-1.sock "
        "max_fails=0;\n",
        "\nupstream blue_status {\n    server unix:/run/t/status.sock max_fails=0;\n"};
    char ca_file[] = "/x/ca.pem";
    struct conf_upstream *main_one = conf->upstreams.items;
    struct buf out;
    buf_init(&out, 65536);
    main_one->ca_file = ca_file;
    route_print_nginx(conf, "blue", &out);
    main_one->ca_file = NULL;
    for (size_t i = 0; i < NELEMS(lines); i++) {
        if (strstr(out.data, lines[i]) == NULL)
            fail_msg("there is no\n%sin\n%s", lines[i], out.data);
    }
    buf_done(&out);
}

static char *printed_for_cache(int64_t nginx_cache_ms)
{
    struct buf out;
    buf_init(&out, 65536);
    conf->nginx_cache_ms = nginx_cache_ms;
    route_print_nginx(conf, "blue", &out);
    conf->nginx_cache_ms = 0;
    return out.data;
}

TEST(nginx_cache_is_printed_if_it_is_on)
{
    char *off = printed_for_cache(0), *on = printed_for_cache(1000);
    assert_null(strstr(off, "cache"));
    assert_non_null(strstr(on, "\nfastcgi_cache_path /run/blue-cache keys_zone=blue:512k "));
    assert_non_null(strstr(on, "\n    \"   \" blue; # no query and no such header: found without the "
                               "expression\n    \"   */*\" blue;\n    \"~^(?:(?:^|&)(?:ids|"));
    assert_non_null(strstr(on, "|task_id)=[^& ]*)*+  (?!.*(?i:wait|event-stream))\" blue;\n}\n"));
    free(off);
    free(on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(provider_path_is_the_native_view),
        cmocka_unit_test(path_of_the_second_query_is_the_result_alone),
        cmocka_unit_test(task_name_is_the_unified_view),
        cmocka_unit_test(result_has_a_number_after_the_name_of_its_task),
        cmocka_unit_test(first_route_of_a_provider_is_the_named_one),
        cmocka_unit_test(other_paths_are_not_found),
        cmocka_unit_test(id_outside_its_grammar_is_a_bad_request),
        cmocka_unit_test(uri_of_any_length_is_harmless),
        cmocka_unit_test(list_is_parsed_in_order_with_a_problem_per_task),
        cmocka_unit_test(malformed_list_is_rejected_entirely),
        cmocka_unit_test(list_has_at_most_a_hundred_tasks),
        cmocka_unit_test(key_consists_of_upstream_provider_and_id),
        cmocka_unit_test(nginx_map_finds_the_task_in_a_uri),
        cmocka_unit_test(nginx_cache_is_printed_if_it_is_on),
    };
    return cmocka_run_group_tests_name("route", tests, load, unload);
}
