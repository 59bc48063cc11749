/* Hash slots, redirections, and the table in CLUSTER NODES. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "net/redis_slots.h"

static const struct endpoint from = {.host = "10.0.0.9", .port = 7009};

/* Expected values are those of CLUSTER KEYSLOT. */
TEST(slot_is_that_of_the_hash_tag)
{
    static const struct {
        const char *key;
        int slot;
    } keys[] = {{"", 0},
                {"123456789", 12739},
                {"foo", 12182},
                {"{foo}", 12182},
                {"a{foo}b{bar}", 12182},
                {"foo{}{bar}", 8363},
                {"foo{{bar}}zap", 4015},
                {"foo{bar", 15278},
                {"foo}bar{", 11073}};
    for (size_t i = 0; i < NELEMS(keys); i++)
        assert_int_equal(redis_slot(keys[i].key), keys[i].slot);
}

static struct redis_redirect parse_good(const char *error)
{
    struct redis_redirect ret;
    assert_int_equal(redis_redirect_parse(error, &from, &ret), 0);
    return ret;
}

static void assert_server(const struct endpoint *server, const char *host, int port)
{
    assert_string_equal(server->host, host);
    assert_int_equal(server->port, port);
}

TEST(redirections_are_parsed)
{
    struct redis_redirect moved = parse_good("MOVED 16383 127.0.0.1:6381"),
                          ask = parse_good("ASK 0 2001:db8::1:6381"), same = parse_good("MOVED 1 :6381");
    assert_int_equal(moved.kind, REDIS_MOVED);
    assert_int_equal(moved.slot, 16383);
    assert_server(&moved.server, "127.0.0.1", 6381);
    assert_true(moved.server.loopback);
    assert_int_equal(ask.kind, REDIS_ASK);
    assert_server(&ask.server, "2001:db8::1", 6381);
    assert_server(&same.server, "10.0.0.9", 6381);
    assert_int_equal(parse_good("ASK 00001 127.0.0.1:006381").server.port, 6381);
    assert_int_equal(parse_good("TRYAGAIN Multiple keys request during rehashing of slot").kind,
                     REDIS_NOT_REDIRECTED);
    assert_int_equal(parse_good("CLUSTERDOWN The cluster is down").kind, REDIS_CLUSTER_DOWN);
    assert_int_equal(parse_good("ERR wrong number of arguments").kind, REDIS_NOT_REDIRECTED);
    assert_int_equal(parse_good("MOVEDX 1 127.0.0.1:1").kind, REDIS_NOT_REDIRECTED);
    assert_int_equal(parse_good("").kind, REDIS_NOT_REDIRECTED);
}

TEST(malformed_redirections_are_refused)
{
    static const char *const bad[] = {"MOVED",
                                      "MOVED 1",
                                      "MOVED 16384 127.0.0.1:1",
                                      "MOVED -1 127.0.0.1:1",
                                      "MOVED +1 127.0.0.1:1",
                                      "MOVED 000001 127.0.0.1:1",
                                      "MOVED 1x 127.0.0.1:1",
                                      "MOVED  1 127.0.0.1:1",
                                      "MOVED 1 127.0.0.1",
                                      "MOVED 1 127.0.0.1:",
                                      "MOVED 1 127.0.0.1:0",
                                      "MOVED 1 127.0.0.1:65536",
                                      "MOVED 1 127.0.0.1:1 ",
                                      "MOVED 1 127.0.0.1:1 x",
                                      "MOVED 1 redis.example:6379",
                                      "MOVED 1 ?:6379",
                                      "ASK 1 [::1:1",
                                      "ASK 1 ::1%lo:1",
                                      "ASK 1 unix:/run/redis.sock"};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        struct redis_redirect ret = {.slot = 77};
        assert_int_equal(redis_redirect_parse(bad[i], &from, &ret), -1);
        assert_int_equal(ret.slot, 77);
    }
}

static struct redis_slots slots;

static int parse(const char *text)
{
    return redis_slots_parse(text, strlen(text), &from, &slots);
}

#define MASTER(address, more) "0123abcd " address " master - 0 1426238316232 2 connected" more "\n"

TEST(nodes_are_parsed)
{
    assert_int_equal(
        parse(MASTER("10.0.0.1:7001@17001,redis-1.example", " 0-5460 [93-<-deadbeef] [94->-deadbeef]")
                  MASTER("2001:db8::2:7002@17002", " 5461 5463-16383") MASTER("10.0.0.3:7003@17003", "")
                      MASTER(":0@0", "") "1 10.0.0.4:7004@17004 slave 0123abcd 0 1 3 connected\n"
                                         "2 :7005@17005 myself,master - 0 0 3 connected 5462"),
        0);
    assert_int_equal(slots.n, 3);
    assert_server(&slots.nodes[0], "10.0.0.1", 7001);
    assert_server(&slots.nodes[1], "2001:db8::2", 7002);
    assert_server(&slots.nodes[2], "10.0.0.9", 7005);
    assert_int_equal(slots.owners[0], 0);
    assert_int_equal(slots.owners[5460], 0);
    assert_int_equal(slots.owners[5461], 1);
    assert_int_equal(slots.owners[5462], 2);
    assert_int_equal(slots.owners[16383], 1);
}

TEST(slots_without_a_node_are_unassigned)
{
    assert_int_equal(parse(MASTER("10.0.0.1:7001@17001",
                                  " 1") "2 :0@0 master,noaddr - 0 0 3 disconnected 2\n"
                                        "3 10.0.0.2:7002@17002 master,fail - 0 0 3 disconnected 3\n"),
                     0);
    assert_int_equal(slots.owners[0], REDIS_SLOT_UNASSIGNED);
    assert_int_equal(slots.owners[1], 0);
    assert_int_equal(slots.owners[2], REDIS_SLOT_UNASSIGNED);
    assert_int_equal(slots.owners[3], 1);
}

TEST(malformed_nodes_are_refused)
{
    static const char *const bad[] = {
        "x\n",
        "\n",
        MASTER("10.0.0.1:7001@17001", " 1") "\n" MASTER("10.0.0.2:7002@17002", " 2"),
        MASTER("10.0.0.1:7001@17001", " 16384"),
        MASTER("10.0.0.1:7001@17001", " 5-4"),
        MASTER("10.0.0.1:7001@17001", " 1-"),
        MASTER("10.0.0.1:7001@17001", " -1"),
        MASTER("10.0.0.1:7001@17001", " 1-2-3"),
        MASTER("10.0.0.1:7001@17001", " 1  2"),
        MASTER("10.0.0.1:7001@17001", " 1") MASTER("10.0.0.2:7002@17002", " 0-2"),
        MASTER("10.0.0.1:7001@17001", " 1 1"),
        MASTER("10.0.0.1@17001", " 1"),
        MASTER("10.0.0.1:0@17001", " 1"),
        MASTER("redis.example:7001@17001", " 1"),
        MASTER("", " 1"),
    };
    for (size_t i = 0; i < NELEMS(bad); i++)
        assert_int_equal(parse(bad[i]), -1);
}

TEST(nodes_with_a_nul_are_refused)
{
    static const char bad[] = MASTER("10.0.0.1:7001@17001", " 1") "\0" MASTER("10.0.0.2:7002@17002", " 2");
    assert_int_equal(redis_slots_parse(bad, sizeof(bad) - 1, &from, &slots), -1);
}

/* A node for each of the first slots. */
static char *many_nodes(int n)
{
    char *text = xstrdup("");
    for (int i = 0; i < n; i++) {
        char *longer =
            xasprintf("%s%d 10.0.%d.%d:1@2 master - 0 0 1 connected %d\n", text, i, i / 250, i % 250, i);
        free(text);
        text = longer;
    }
    return text;
}

TEST(number_of_nodes_is_limited)
{
    char *most = many_nodes(REDIS_NODES_MAX), *too_many = many_nodes(REDIS_NODES_MAX + 1);
    assert_int_equal(parse(most), 0);
    assert_int_equal(slots.n, REDIS_NODES_MAX);
    assert_int_equal(slots.owners[REDIS_NODES_MAX - 1], REDIS_NODES_MAX - 1);
    assert_int_equal(parse(too_many), -1);
    free(most);
    free(too_many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slot_is_that_of_the_hash_tag),        cmocka_unit_test(redirections_are_parsed),
        cmocka_unit_test(malformed_redirections_are_refused),  cmocka_unit_test(nodes_are_parsed),
        cmocka_unit_test(slots_without_a_node_are_unassigned), cmocka_unit_test(malformed_nodes_are_refused),
        cmocka_unit_test(nodes_with_a_nul_are_refused),        cmocka_unit_test(number_of_nodes_is_limited),
    };
    return cmocka_run_group_tests_name("redis_slots", tests, NULL, NULL);
}
