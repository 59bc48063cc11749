/* throttle: see throttle.h. */
#include "access/throttle.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "lib/address.h"
#include "lib/log.h"
#include "lib/stats.h"

struct client {
    unsigned char network[ADDRESS_LEN];
    int64_t until_ms; /* the end of its window */
    int64_t refusals; /* in the window */
    UT_hash_handle hh;
};

struct throttle {
    struct client *clients; /* the oldest first */
};

struct throttle *throttle_new(void)
{
    return xcalloc(1, sizeof(struct throttle));
}

static void forget(struct throttle *throttle, struct client *client)
{
    HASH_DEL(throttle->clients, client);
    free(client);
}

void throttle_free(struct throttle *throttle)
{
    if (throttle == NULL)
        return;
    while (throttle->clients != NULL)
        forget(throttle, throttle->clients);
    free(throttle);
}

/* The client with an open window. */
static struct client *find(struct throttle *throttle, const unsigned char *network, int64_t now_ms)
{
    struct client *client;
    HASH_FIND(hh, throttle->clients, network, ADDRESS_LEN, client);
    if (client != NULL && now_ms < client->until_ms)
        return client;
    if (client != NULL)
        forget(throttle, client);
    if (HASH_COUNT(throttle->clients) >= THROTTLE_MAX)
        forget(throttle, throttle->clients);
    client = xcalloc(1, sizeof(*client));
    client->until_ms = now_ms + THROTTLE_WINDOW_MS;
    memcpy(client->network, network, ADDRESS_LEN);
    HASH_ADD(hh, throttle->clients, network, ADDRESS_LEN, client);
    return client;
}

int64_t throttle_refused(struct throttle *throttle, enum credential kind, const char *address, int64_t now_ms)
{
    static const struct {
        const char *name;
        enum stat_id counter;
    } kinds[] = {[CREDENTIAL_TOKEN] = {"token", STAT_REFUSED_TOKENS},
                 [CREDENTIAL_LINK] = {"signed link", STAT_REFUSED_LINKS},
                 [CREDENTIAL_HOOK] = {"webhook secret", STAT_REFUSED_HOOKS}};
    unsigned char network[ADDRESS_LEN];
    stat_inc(kinds[kind].counter);
    if (address == NULL || !address_network(address, network)) {
        log_info("refused a %s", kinds[kind].name);
        return 0;
    }
    struct client *client = find(throttle, network, now_ms);
    if (++client->refusals == 1)
        log_info("refused a %s from %s", kinds[kind].name, address);
    if (client->refusals <= THROTTLE_REFUSALS)
        return 0;
    if (client->refusals == THROTTLE_REFUSALS + 1)
        log_warn("%s has sent %d invalid credentials; throttling it", address, THROTTLE_REFUSALS);
    stat_inc(STAT_REFUSALS_THROTTLED);
    return client->until_ms - now_ms;
}
