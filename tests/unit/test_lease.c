/* The lookup of a task in Redis, whose replies the test gives in any order, as a cluster that moves a slot may do. */
#include "unit.h"

#include "fetch/lease.h"

static char name[] = "redis", prefix[] = "taskproxy:";
static const struct conf conf = {.redis = {.name = name, .prefix = prefix}};
static const struct task task = {.key = "main:sora:t"};
static struct {
    redis_callback *on_reply;
    void *user;
} sent[REDIS_VERBS];
static int n_done;

/* Replaces the function that sends commands; those without a callback are not sent. */
struct redis_command *redis_send(struct redis *redis, enum redis_verb verb, const char *const words[],
                                 redis_callback *on_reply, void *user)
{
    (void)redis, (void)words;
    sent[verb].on_reply = on_reply;
    sent[verb].user = user;
    return on_reply ? (struct redis_command *)&sent[verb] : NULL;
}

void redis_cancel(struct redis_command **command)
{
    *command = NULL;
}

static void answer(enum redis_verb verb)
{
    static const struct redis_reply replies[] = {
        [REDIS_SET] = {.result = REDIS_FOUND, .value = "OK", .len = 2},
        [REDIS_PTTL] = {.result = REDIS_FOUND, .number = -2},
        [REDIS_GET] = {.result = REDIS_NOTHING}};
    sent[verb].on_reply(sent[verb].user, &replies[verb]);
}

static void on_lookup_done(struct lease_lookup *lookup)
{
    assert_int_equal(lookup->holder, LEASE_OURS);
    assert_int_equal(lookup->ttl_ms, -2);
    n_done++;
}

TEST(lookup_is_done_when_all_replies_are_there_in_any_order)
{
    static const enum redis_verb orders[][3] = {
        {REDIS_SET, REDIS_PTTL, REDIS_GET}, {REDIS_SET, REDIS_GET, REDIS_PTTL},
        {REDIS_PTTL, REDIS_SET, REDIS_GET}, {REDIS_PTTL, REDIS_GET, REDIS_SET},
        {REDIS_GET, REDIS_SET, REDIS_PTTL}, {REDIS_GET, REDIS_PTTL, REDIS_SET}};
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct lease *lease = lease_new(&loop, &conf, NULL);
    for (size_t i = 0; i < NELEMS(orders); i++) {
        struct lease_lookup lookup;
        n_done = 0;
        assert_true(lease_lookup(lease, &lookup, &task, true, on_lookup_done));
        for (size_t k = 0; k < 3; k++) {
            assert_int_equal(n_done, 0);
            answer(orders[i][k]);
        }
        assert_int_equal(n_done, 1);
        lease_abandon(&lookup);
    }
    lease_free(lease);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lookup_is_done_when_all_replies_are_there_in_any_order),
    };
    return cmocka_run_group_tests_name("lease", tests, NULL, NULL);
}
