/* Error replies (after the byte 0) and replies to CLUSTER NODES (after another byte) of a Redis Cluster. */
#include "fuzz.h"

#include <string.h>

#include "lib/util.h"
#include "net/redis_slots.h"

static const struct endpoint from = {.host = "::1", .port = 7000, .loopback = true};

static void check_server(const struct endpoint *server)
{
    PROMISE(strlen(server->host) < sizeof(server->host) && server->port > 0 && server->port < 65536);
}

static void try_redirect(const char *error)
{
    struct redis_redirect ret;
    PROMISE(redis_slot(error) >= 0 && redis_slot(error) < REDIS_SLOTS);
    if (redis_redirect_parse(error, &from, &ret) < 0 || (ret.kind != REDIS_MOVED && ret.kind != REDIS_ASK))
        return;
    PROMISE(ret.slot >= 0 && ret.slot < REDIS_SLOTS);
    check_server(&ret.server);
}

static void try_nodes(const char *text, size_t len)
{
    static struct redis_slots slots;
    if (redis_slots_parse(text, len, &from, &slots) < 0)
        return;
    PROMISE(slots.n <= REDIS_NODES_MAX);
    for (size_t i = 0; i < slots.n; i++)
        check_server(&slots.nodes[i]);
    for (size_t i = 0; i < REDIS_SLOTS; i++)
        PROMISE(slots.owners[i] < slots.n || slots.owners[i] == REDIS_SLOT_UNASSIGNED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = xstrndup((const char *)data + 1, size - 1); /* redirections end at a NUL, tables do not */
    if (data[0] == 0)
        try_redirect(text);
    else
        try_nodes((const char *)data + 1, size - 1);
    free(text);
    return 0;
}
