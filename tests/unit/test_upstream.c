/* The queries of one upstream, which listens but never answers. */
#include "unit.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "given.h"
#include "upstream/upstream.h"

enum { GUARD_MS = 10000 };

#define PROVIDER                                                                                             \
    "{\"name\":\"p\",\"path\":\"/p/{task_id}\",\"task_id\":\"[a-z]+\",\"auth\":{\"header\":\"A\","           \
    "\"value\":\"{key}\"},\"status\":{\"at\":\"/s\"},\"keep\":[\"/s\"]}"

static int listener;
static struct conf *conf;
static uv_loop_t loop;
static uv_timer_t guard;
static uv_idle_t idle;
static struct upstreams *upstreams;
static struct key_choice choice, no_choice; /* all keys were tried */
static enum outcome outcome;
static int64_t refusals;

static int start_listening(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    return ntohs(address.sin_port);
}

static void load_conf(int port, const char *timeout)
{
    char text[512], *error = NULL;
    snprintf(text, sizeof(text),
             "{\"upstreams\":{\"main\":{\"base_url\":\"http://127.0.0.1:%d\",\"key_files\":[\"key\"],"
             "\"addresses\":\"any\",\"timeout\":\"%s\",\"connect_timeout\":\"%s\"}},"
             "\"routes\":[{\"provider\":\"p\",\"upstream\":\"main\"}]}",
             port, timeout, timeout);
    const struct given given[] = {{"/etc/x/t.json", text, 0},
                                  {"/etc/x/key", "sk-12345678\n", 0},
                                  {"/etc/x/providers/p.json", PROVIDER, 0}};
    conf = conf_load("/etc/x/t.json", given_files(given, NELEMS(given)), &error);
    if (conf == NULL)
        fail_msg("%s", error);
}

static void on_guard(uv_timer_t *timer)
{
    (void)timer;
    uv_stop(&loop);
}

static void begin(const char *timeout)
{
    load_conf(start_listening(), timeout);
    uv_loop_init(&loop);
    uv_timer_init(&loop, &guard);
    uv_timer_start(&guard, on_guard, GUARD_MS, 0);
    uv_idle_init(&loop, &idle);
    upstreams = upstreams_new(&loop, conf);
    choice = (struct key_choice){.tried = 0};
    no_choice = (struct key_choice){.tried = UINT64_MAX};
    outcome = OUTCOME_OK;
    refusals = 0;
}

static void end(void)
{
    upstreams_free(upstreams);
    uv_close((uv_handle_t *)&guard, NULL);
    uv_close((uv_handle_t *)&idle, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    conf_free(conf);
    close(listener);
}

static void on_end(void *user, struct upstream_call *call, const struct http_answer *answer)
{
    (void)user;
    outcome = answer->outcome;
    upstream_learn(call, answer, answer->outcome, answer->why);
    uv_stop(&loop);
}

static void on_refusal(void *user, struct upstream_call *call, const struct http_answer *answer)
{
    (void)user;
    assert_int_equal(answer->outcome, OUTCOME_NO_KEY);
    upstream_learn(call, answer, answer->outcome, answer->why);
    refusals++;
}

static void get(struct key_choice *keys, upstream_callback *on_answer)
{
    const struct upstream_query query = {
        .route = conf_route(conf, 0), .seen = true, .target = "/p/a", .choice = keys};
    upstream_get(upstreams, &query, on_answer, NULL);
}

static void on_idle(uv_idle_t *handle)
{
    (void)handle;
    get(&no_choice, on_refusal);
}

TEST(query_times_out_beside_constant_refusals)
{
    begin("100ms");
    get(&choice, on_end);
    uv_idle_start(&idle, on_idle);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(outcome, OUTCOME_TIMEOUT);
    assert_true(refusals > 0);
    end();
}

TEST(queries_end_without_a_callback_when_the_upstreams_are_freed)
{
    begin("1m");
    get(&choice, on_end);
    get(&no_choice, on_refusal);
    end();
    assert_int_equal(outcome, OUTCOME_OK);
    assert_int_equal(refusals, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(query_times_out_beside_constant_refusals),
        cmocka_unit_test(queries_end_without_a_callback_when_the_upstreams_are_freed),
    };
    return cmocka_run_group_tests_name("upstream", tests, NULL, NULL);
}
